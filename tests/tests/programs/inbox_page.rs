//! The simulator's inbox page in a real Chromium: what a person sees, with mail that came through a sidecar.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use e2e::browser::Key;
use e2e::inbox::{Inbox, SENDER, plain};
use e2e::secrets;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The least contrast of text that WCAG 2.2 asks for at level AA.
const LEAST_CONTRAST: f64 = 4.5;

/// The text elements that are shown with less contrast than the first argument, each with its contrast.
const FAINT: &str = r#"((least) => {
    const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
    const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = (one) => {
        for (; one; one = one.parentElement) {
            const colour = numbers(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
        && !one.matches(".hidden, :disabled") && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return texts.map((one) => {
        const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))];
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.textContent.trim().slice(0, 40)];
    }).filter(([contrast]) => contrast < least).map(([contrast, text]) => `${contrast.toFixed(2)} ${text}`);
})"#;

#[tokio::test]
async fn the_list_fills_as_mail_arrives_and_says_so() -> Result<()> {
    let inbox = Inbox::open().await?;
    inbox.page.wait("!document.getElementById('empty').hidden").await?;
    for (count, subject) in [(1, "First order"), (2, "Second order")] {
        inbox.send(&["ada@example.com", "bob@example.com"], &plain(subject, "Thank you.")).await?;
        inbox.wait_for_messages(count).await?;
        inbox
            .page
            .wait(&format!(
                "document.getElementById('announcer').textContent.endsWith('Contoso Shop: {subject}')"
            ))
            .await?;
    }
    ensure!(inbox.subjects().await? == ["Second order", "First order"]);
    let line: String = inbox.page.value("document.querySelector('#messages li').innerText").await?;
    for part in ["Contoso Shop", "to ada@example.com and 1 more", "Client submission"] {
        ensure!(line.contains(part), "{line}");
    }
    inbox.page.wait("document.getElementById('count-messages').textContent === '2'").await?;
    ensure!(inbox.page.complaints().is_empty(), "{:?}", inbox.page.complaints());
    Ok(())
}

#[tokio::test]
async fn a_message_is_shown_with_everything_that_is_known_of_it() -> Result<()> {
    let inbox = Inbox::open().await?;
    let text = format!(
        "From: Contoso Shop <{SENDER}>\r\nTo: Ada <ada@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe <b>?=\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
         --a\r\nContent-Type: text/plain\r\n\r\n<i>plain words</i>\r\n--a\r\nContent-Type: text/html\r\n\r\n\
         <p>words in a <a href=\"https://shop.example/orders\">page</a></p>\r\n--a--\r\n--m\r\nContent-Type: text/html\r\n\
         Content-Disposition: attachment; filename=\"../bill.html\"\r\n\r\n<script>alert(1)</script>\r\n--m--\r\n"
    );
    inbox.send(&["ada@example.com"], &text).await?;
    inbox.wait_for_messages(1).await?;
    let page = &inbox.page;
    page.value::<()>("document.querySelector('#messages a').click()").await?;
    page.wait("document.activeElement.id === 'subject'").await?;
    ensure!(page.value::<String>("document.activeElement.textContent").await? == "Grüße <b>");
    ensure!(page.text_with_frames().await?.contains("words in a "), "the frame shows the HTML");
    // The other form of the text.
    page.value::<()>("document.querySelectorAll('input[name=show-as]')[1].click()").await?;
    ensure!(
        page.value::<String>("document.getElementById('text').textContent")
            .await?
            .contains("<i>plain words</i>")
    );
    // What is folded away.
    page.value::<()>("document.querySelectorAll('details').forEach((one) => { one.open = true })").await?;
    let shown: String = page.value("document.getElementById('message-pane').innerText").await?;
    for part in [
        "https://shop.example/orders",
        "MAIL FROM",
        "system:serviceaccount:shop:default",
        "TLSv1_3",
        "C: EHLO notifications.shop.svc.cluster.local",
        "C: AUTH XOAUTH2 (credentials)",
        "S: 235 2.7.0 Authentication successful",
        "C: RCPT TO:<ada@example.com>",
        "S: 250 2.0.0 OK",
    ] {
        ensure!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    let everything = page.text_with_frames().await?;
    ensure!(secrets::find(&everything).is_empty(), "{:?}", secrets::find(&everything));
    // An attachment becomes a file, whatever it is.
    page.value::<()>("document.querySelector('#attachments a').click()").await?;
    let file = inbox.browser.downloaded("bill.html").await?;
    ensure!(file == b"<script>alert(1)</script>", "{}", String::from_utf8_lossy(&file));
    ensure!(page.complaints().is_empty(), "{:?}", page.complaints());
    Ok(())
}

#[tokio::test]
async fn the_html_of_a_message_runs_nothing_and_loads_nothing() -> Result<()> {
    let (remote, asked) = remote().await?;
    let inbox = Inbox::open().await?;
    let text = format!(
        "From: Contoso Shop <{SENDER}>\r\nTo: Ada <ada@example.com>\r\nSubject: Hostile\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/html\r\n\r\n<html><head><meta http-equiv=\"refresh\" content=\"0;url=http://{remote}/refresh\">\r\n\
         <base href=\"http://{remote}/\"><link rel=stylesheet href=\"http://{remote}/style\">\r\n\
         <link rel=preconnect href=\"http://{remote}/\">\r\n\
         <style>@import url(http://{remote}/import); body {{ background: url(http://{remote}/background) }}</style></head>\r\n\
         <body onload=\"fetch('http://{remote}/onload')\"><p>before</p><script>fetch('http://{remote}/script');\r\n\
         document.body.textContent = 'it ran'; parent.document.title = 'it ran'</script>\r\n\
         <img src=\"http://{remote}/pixel\" onerror=\"fetch('http://{remote}/error')\">\r\n\
         <iframe src=\"http://{remote}/frame\"></iframe><object data=\"http://{remote}/object\"></object>\r\n\
         <video src=\"http://{remote}/video\" autoplay></video>\r\n\
         <form action=\"http://{remote}/form\"><input autofocus></form><p>behind</p></body></html>\r\n"
    );
    inbox.send(&["ada@example.com"], &text).await?;
    inbox.wait_for_messages(1).await?;
    let page = &inbox.page;
    page.value::<()>("document.querySelector('#messages a').click()").await?;
    page.wait("document.getElementById('html') !== null").await?;
    // The frame is loaded, with all that it may load.
    page.value::<()>("new Promise((done) => { const frame = document.getElementById('html'); frame.addEventListener('load', () => done()); \
                      frame.src = frame.src; })")
        .await?;
    let shown = page.text_with_frames().await?;
    ensure!(shown.contains("before") && shown.contains("behind"), "{shown}");
    ensure!(!page.value::<String>("document.title").await?.contains("it ran"));
    ensure!(asked.load(Ordering::SeqCst) == 0, "something was loaded");
    // The server of this test does see who asks.
    drop(TcpStream::connect(remote).await?);
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn messages_are_searched_and_deleted() -> Result<()> {
    let inbox = Inbox::open().await?;
    for (subject, text) in
        [("Shipped", "It left the warehouse."), ("Invoice", "Please pay."), ("Reminder", "Please pay now.")]
    {
        inbox.send(&["ada@example.com"], &plain(subject, text)).await?;
    }
    inbox.wait_for_messages(3).await?;
    let page = &inbox.page;
    let search = |text: &str| {
        format!(
            "(() => {{ const field = document.getElementById('search'); field.value = {text:?}; field.dispatchEvent(new Event('input')) }})()"
        )
    };
    page.value::<()>(&search("PLEASE pay")).await?;
    inbox.wait_for_messages(2).await?;
    page.value::<()>(&search("warehouse")).await?;
    inbox.wait_for_messages(1).await?;
    ensure!(inbox.subjects().await? == ["Shipped"]);
    page.value::<()>(&search("no such word")).await?;
    inbox.wait_for_messages(0).await?;
    page.wait("document.getElementById('empty').textContent === 'No message has these words.'").await?;
    page.value::<()>(&search("")).await?;
    inbox.wait_for_messages(3).await?;

    page.value::<()>("document.querySelectorAll('#messages a')[1].click()").await?;
    page.wait("document.activeElement.id === 'subject'").await?;
    page.value::<()>("document.querySelector('#message-pane button').click()").await?;
    inbox.wait_for_messages(2).await?;
    ensure!(inbox.subjects().await? == ["Reminder", "Shipped"]);
    ensure!(inbox.alone.microsoft.messages().len() == 2);

    page.value::<()>("document.getElementById('delete-all').click()").await?;
    page.wait("document.getElementById('confirm').open").await?;
    page.press(Key::Escape).await?;
    page.wait("!document.getElementById('confirm').open").await?;
    ensure!(inbox.alone.microsoft.messages().len() == 2, "nothing is deleted before a person agrees");
    page.value::<()>("document.getElementById('delete-all').click()").await?;
    page.value::<()>("document.getElementById('confirm-yes').click()").await?;
    inbox.wait_for_messages(0).await?;
    ensure!(inbox.alone.microsoft.messages().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_keyboard_is_enough() -> Result<()> {
    let inbox = Inbox::open().await?;
    for subject in ["Invoice", "Parcel one", "Parcel two"] {
        inbox.send(&["ada@example.com"], &plain(subject, "Hello.")).await?;
    }
    inbox.wait_for_messages(3).await?;
    let page = &inbox.page;
    // To the search, and what is typed there.
    tab_to(&inbox, "search").await?;
    page.type_text("parcel").await?;
    inbox.wait_for_messages(2).await?;
    // Into the list, down, and into the message.
    page.press(Key::Tab).await?;
    ensure!(inbox.focus().await?.contains("Parcel two"), "{}", inbox.focus().await?);
    let outlined = "getComputedStyle(document.activeElement).outlineStyle === 'solid' && document.activeElement.matches(':focus-visible')";
    ensure!(page.value::<bool>(outlined).await?, "what has the focus is outlined");
    page.press(Key::ArrowDown).await?;
    ensure!(inbox.focus().await?.contains("Parcel one"));
    page.press(Key::Enter).await?;
    page.wait(
        "document.activeElement.id === 'subject' && document.activeElement.textContent === 'Parcel one'",
    )
    .await?;
    // Out of it by its button; the focus goes to what is left.
    page.press(Key::Tab).await?;
    ensure!(inbox.focus().await? == "Delete message", "{}", inbox.focus().await?);
    page.press(Key::Enter).await?;
    page.wait("document.activeElement.closest('#messages')?.textContent.includes('Parcel two')").await?;
    // The list's own key.
    page.press(Key::Delete).await?;
    inbox.wait_for_messages(0).await?;
    // To the faults: a link, and a switch.
    while inbox.focus().await? != "Faults 0" {
        page.press(Key::ShiftTab).await?;
    }
    page.press(Key::Enter).await?;
    page.wait("document.getElementById('fault-submission-down') !== null").await?;
    tab_to(&inbox, "fault-submission-down").await?;
    page.press(Key::Space).await?;
    page.wait("document.getElementById('count-faults').textContent === '1'").await?;
    ensure!(inbox.alone.microsoft.read(|office| office.faults.submission.down));
    ensure!(inbox.focus().await? == "fault-submission-down", "the focus stays: {}", inbox.focus().await?);
    page.press(Key::Space).await?;
    page.wait("document.getElementById('count-faults').textContent === '0'").await?;
    ensure!(!inbox.alone.microsoft.read(|office| office.faults.submission.down));
    Ok(())
}

#[tokio::test]
async fn it_fits_a_narrow_screen_and_can_be_read_in_light_and_dark() -> Result<()> {
    let inbox = Inbox::open().await?;
    let long = format!("Order {}", "0123456789".repeat(20));
    inbox.send(&["ada@example.com"], &plain(&long, &"word".repeat(100))).await?;
    inbox.wait_for_messages(1).await?;
    // Something for the page of refusals.
    breach(&inbox).await?;
    let page = &inbox.page;
    page.resize(360, 640).await?;
    let id = inbox.alone.microsoft.messages()[0].id;
    for (address, shown) in [
        ("#/messages".to_owned(), "document.querySelector('#messages li').checkVisibility()"),
        (
            format!("#/messages/{id}"),
            "document.getElementById('text') && !document.querySelector('#messages li').checkVisibility()",
        ),
        ("#/refusals".to_owned(), "document.querySelector('#violations li') !== null"),
        ("#/faults".to_owned(), "document.querySelector('#view-faults input') !== null"),
    ] {
        page.value::<()>(&format!("void (location.hash = {address:?})")).await?;
        page.wait(shown).await?;
        page.value::<()>("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            .await?;
        let width: u32 = page.value("document.documentElement.scrollWidth").await?;
        ensure!(width <= 360, "{address} is {width} pixels wide");
        for scheme in ["light", "dark"] {
            page.prefer(scheme).await?;
            let faint: Vec<String> = page.value(&format!("{FAINT}({LEAST_CONTRAST})")).await?;
            ensure!(faint.is_empty(), "{address}, {scheme}: {faint:?}");
        }
        let dark: String = page.value("getComputedStyle(document.body).backgroundColor").await?;
        ensure!(dark == "rgb(20, 23, 27)", "{dark}");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_listed_with_its_reason() -> Result<()> {
    let inbox = Inbox::open().await?;
    let page = &inbox.page;
    page.value::<()>("void (location.hash = '#/faults')").await?;
    page.wait("document.getElementById('fault-submission-unavailable') !== null").await?;
    page.value::<()>("document.getElementById('fault-submission-unavailable').click()").await?;
    page.wait("document.getElementById('count-faults').textContent === '1'").await?;
    let refused = inbox.send(&["ada@example.com"], &plain("Refused", "Hello.")).await;
    ensure!(refused.is_err(), "the sidecar passes the refusal on");
    page.value::<()>("void (location.hash = '#/refusals')").await?;
    page.wait("document.getElementById('refused')?.textContent.includes('421 4.3.2 Service not available')")
        .await?;
    ensure!(
        page.value::<String>("document.getElementById('refused').textContent")
            .await?
            .contains("MAIL FROM:<noreply@contoso.com>")
    );
    page.value::<()>("void (location.hash = '#/faults')").await?;
    page.wait("document.getElementById('fault-submission-unavailable')?.checked").await?;
    page.value::<()>("document.getElementById('fault-submission-unavailable').click()").await?;
    page.wait("document.getElementById('count-faults').textContent !== '1'").await?;
    page.value::<()>("void (location.hash = '#/refusals')").await?;
    page.wait("document.getElementById('violations') !== null").await?;
    // A violation appears while the page is open.
    breach(&inbox).await?;
    page.wait("document.getElementById('violations')?.textContent.includes('MailWithoutTls')").await?;
    page.value::<()>("document.getElementById('delete-violations').click()").await?;
    page.wait("document.getElementById('violations').textContent === 'None.'").await?;
    ensure!(inbox.alone.microsoft.violations().is_empty());
    Ok(())
}

/// Presses Tab until the element of this id has the focus.
async fn tab_to(inbox: &Inbox, id: &str) -> Result<()> {
    for _ in 0..30 {
        if inbox.focus().await? == id {
            return Ok(());
        }
        inbox.page.press(Key::Tab).await?;
    }
    anyhow::bail!("Tab does not lead to {id}; the focus is on {}", inbox.focus().await?)
}

/// Sends MAIL before TLS, which Exchange refuses.
async fn breach(inbox: &Inbox) -> Result<()> {
    let mut stream = TcpStream::connect(inbox.alone.microsoft.smtp_address()).await?;
    stream.write_all(b"EHLO a.example\r\nMAIL FROM:<a@b.example>\r\n").await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("530 ") {
            return Ok(());
        }
    }
    anyhow::bail!("MAIL before TLS was not refused")
}

/// A server that counts who asks it.
async fn remote() -> Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, asked) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok((address, asked))
}

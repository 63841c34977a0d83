//! The inbox of the simulator.

use anyhow::Result;
use e2e::inbox::{Inbox, SENDER, plain};

/// The inbox with some mail and a message of HTML open.
pub async fn picture() -> Result<Vec<u8>> {
    let inbox = Inbox::open().await?;
    let page = &inbox.page;
    page.prefer("light").await?;
    page.resize(1200, 720).await?;
    for (subject, to) in [
        ("Confirm your address", "grace@example.com"),
        ("Weekly report", "ops@example.org"),
        ("Password changed", "bob@example.com"),
        ("Your invoice 2026-1142", "ada@example.com"),
    ] {
        inbox.send(&[to], &plain(subject, "Hello,\r\n\r\nthis is a message.")).await?;
    }
    inbox.send(&["ada@example.com", "archive@example.com"], &order()).await?;
    inbox.wait_for_messages(5).await?;
    page.value::<()>("document.querySelector('#messages a').click()").await?;
    page.wait("document.getElementById('html') !== null").await?;
    page.drawn().await?;
    page.picture().await
}

/// A message with HTML, text and an attachment.
fn order() -> String {
    format!(
        "From: Contoso Shop <{SENDER}>\r\nTo: Ada Lovelace <ada@example.com>\r\nSubject: Your order has been shipped\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\
         Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\n\
         Your order has been shipped.\r\n--a\r\nContent-Type: text/html\r\n\r\n\
         <div style=\"font: 16px sans-serif; padding: 8px 16px\"><h2 style=\"color: #0b5cad\">It is on its way</h2>\r\n\
         <p>Dear Ada,</p><p>your order <b>4711</b> left the warehouse today.</p>\r\n\
         <p><a href=\"https://shop.example/orders/4711\">Follow the parcel</a></p><p>Contoso Shop</p></div>\r\n--a--\r\n--m\r\n\
         Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"invoice.pdf\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjcK\r\n--m--\r\n"
    )
}

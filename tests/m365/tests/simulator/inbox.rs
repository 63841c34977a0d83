//! The inbox over HTTP: what the page gets, and what a browser is told to do with it.

use hyper::Method;
use mailroute_m365::{
    Message, Options, Resource, Simulator, directory::SAMPLE_PASSWORD, directory::SAMPLE_SUBJECT,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    client::{Answer, control},
    submission::{accept_one, log_in},
};

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

/// Notes a message as if it had arrived.
fn arrive(simulator: &Simulator, id: u64, data: &str) {
    let message: Message = serde_json::from_value(json!({
        "id": id,
        "receivedAt": "2026-11-21T10:00:00Z",
        "mailbox": "noreply@contoso.com",
        "mailFrom": "noreply@contoso.com",
        "mailParameters": [],
        "recipients": [{"address": "alice@example.com"}],
        "messageId": format!("<{id}@contoso.com>"),
        "headers": [],
        "data": "",
        "token": {
            "tenant": "", "clientId": "", "assertionIssuer": "", "assertionSubject": "", "issuedAt": 0, "expiresAt": 0,
        },
        "connection": {"id": 1, "client": "", "ehlo": "", "tlsVersion": null, "sni": null},
    }))
    .unwrap();
    simulator.insert(Message { data: data.into(), ..message });
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    control(simulator, Method::GET, path, "").await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn the_root_leads_to_the_page_which_may_only_load_itself() {
    let simulator = start().await;
    for path in ["/", "/inbox"] {
        let answer = get(&simulator, path).await;
        assert_eq!((answer.status.as_u16(), header(&answer, "location")), (303, "inbox/"));
    }
    let page = get(&simulator, "/inbox/").await;
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = header(&page, "content-security-policy");
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(
        header(&get(&simulator, "/inbox/main.js").await, "content-type"),
        "text/javascript; charset=utf-8"
    );
}

#[tokio::test]
async fn every_answer_is_for_this_page_only() {
    let simulator = start().await;
    arrive(&simulator, 1, "Content-Type: text/html\r\n\r\n<p>Hello</p>\r\n");
    for path in [
        "",
        "style.css",
        "messages",
        "messages/1",
        "messages/1/html",
        "messages/1/message.eml",
        "refusals",
        "faults",
        "messages/7",
    ] {
        let answer = get(&simulator, &format!("/inbox/{path}")).await;
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer", "{path}");
        assert!(header(&answer, "content-security-policy").contains("default-src 'none'"), "{path}");
    }
}

#[tokio::test]
async fn the_list_is_given_a_page_at_a_time_newest_first() {
    let simulator = start().await;
    for id in 1..=150 {
        arrive(&simulator, id, &format!("Subject: number {id}\r\n\r\n"));
    }
    let first = get(&simulator, "/inbox/messages").await.json();
    assert_eq!((&first["total"], &first["more"]), (&json!(150), &json!(true)));
    assert_eq!(first["messages"].as_array().unwrap().len(), 100);
    assert_eq!(first["messages"][0]["subject"], "number 150");
    let second = get(&simulator, "/inbox/messages?before=51").await.json();
    assert_eq!(second["more"], false);
    let ids: Vec<u64> = second["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (1..=50).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_search_looks_at_all_messages_and_needs_every_word() {
    let simulator = start().await;
    arrive(&simulator, 1, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nthe oldest\r\n");
    for id in 2..=120 {
        arrive(&simulator, id, "Subject: other\r\n\r\nbody\r\n");
    }
    for query in ["GR%C3%9C%C3%9FE", "oldest", "the+oldest", "%3C1@contoso.com%3E"] {
        let found = get(&simulator, &format!("/inbox/messages?search={query}")).await.json();
        assert_eq!(found["messages"].as_array().unwrap().len(), 1, "{query}");
    }
    let found = get(&simulator, "/inbox/messages?search=the+newest").await.json();
    assert_eq!((&found["total"], &found["messages"]), (&json!(120), &json!([])));
}

#[tokio::test]
async fn one_message_is_deleted() {
    let simulator = start().await;
    arrive(&simulator, 1, "Subject: one\r\n\r\n");
    arrive(&simulator, 2, "Subject: two\r\n\r\n");
    assert_eq!(control(&simulator, Method::DELETE, "/messages/1", "").await.status, 204);
    let left: Vec<u64> = simulator.messages().iter().map(|message| message.id).collect();
    assert_eq!(left, [2]);
}

#[tokio::test]
async fn the_html_of_a_message_is_for_a_sandboxed_frame() {
    let simulator = start().await;
    arrive(&simulator, 1, "Content-Type: text/html\r\n\r\n<script>alert(1)</script><p>Hello</p>\r\n");
    let html = get(&simulator, "/inbox/messages/1/html").await;
    assert_eq!(header(&html, "content-type"), "text/html; charset=utf-8");
    let policy = header(&html, "content-security-policy");
    assert!(policy.ends_with("; sandbox") && !policy.contains("script-src"), "{policy}");
    arrive(&simulator, 2, "Subject: text\r\n\r\n<p>Hello</p>\r\n");
    assert_eq!(get(&simulator, "/inbox/messages/2/html").await.status, 404);
}

#[tokio::test]
async fn attachments_are_files_to_download() {
    let simulator = start().await;
    let data = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/html\r\n\
                Content-Disposition: attachment; filename=\"page.html\"\r\n\r\n<script>alert(1)</script>\r\n--b--\r\n";
    arrive(&simulator, 1, data);
    let file = get(&simulator, "/inbox/messages/1/attachments/0").await;
    assert_eq!(file.text(), "<script>alert(1)</script>");
    assert_eq!(header(&file, "content-type"), "application/octet-stream");
    assert!(header(&file, "content-disposition").starts_with("attachment; filename=\"page.html\""));
    assert_eq!(get(&simulator, "/inbox/messages/1/message.eml").await.text(), data);
    for path in ["1/attachments/1", "1/attachments/99", "2/attachments/0", "2/message.eml"] {
        assert_eq!(get(&simulator, &format!("/inbox/messages/{path}")).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_page_is_told_when_something_changes() {
    let simulator = start().await;
    let mut stream = TcpStream::connect(simulator.control_address()).await.unwrap();
    stream.write_all(b"GET /inbox/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    let mut read = async |until: &str| {
        while !heard.contains(until) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the stream ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    read("event: change").await;
    read(r#""messages":0"#).await;
    arrive(&simulator, 1, "Subject: one\r\n\r\n");
    read(r#""messages":1"#).await;
    control(&simulator, Method::PUT, "/inbox/faults/login-down", r#"{"on": true}"#).await;
    read(r#""faults":1"#).await;
}

#[tokio::test]
async fn faults_are_switched_by_name() {
    let simulator = start().await;
    let all = get(&simulator, "/inbox/faults").await.json();
    assert!(all["switches"].as_array().unwrap().iter().all(|switch| switch["on"] == false));
    let put =
        async |body: &str| control(&simulator, Method::PUT, "/inbox/faults/submission-down", body).await;
    assert_eq!(put(r#"{"on": true}"#).await.json()["on"], true);
    assert!(simulator.read(|office| office.faults.submission.down));
    assert_eq!(put(r#"{"on": false}"#).await.json()["on"], false);
    assert!(!simulator.read(|office| office.faults.submission.down));
    assert_eq!(control(&simulator, Method::PUT, "/inbox/faults/none", r#"{"on": true}"#).await.status, 404);
    control(&simulator, Method::PUT, "/faults", r#"{"relay": {"withoutStartTls": true}}"#).await;
    let all = get(&simulator, "/inbox/faults").await.json();
    assert_eq!((&all["others"], &all["faults"]["relay"]["withoutStartTls"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn the_dialogue_is_shown_and_no_secret_ever() {
    let simulator = start().await;
    let token = simulator.access_token_for(Resource::Submission, SAMPLE_SUBJECT, 600);
    let mut stream = log_in(&simulator, &token).await;
    accept_one(&mut stream).await;
    let id = simulator.messages()[0].id;
    let reading = get(&simulator, &format!("/inbox/messages/{id}")).await.json();
    let lines: Vec<String> = reading["dialogue"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| format!("{}: {}", line["by"].as_str().unwrap(), line["text"].as_str().unwrap()))
        .collect();
    for line in [
        "client: AUTH XOAUTH2 (credentials)",
        "server: 235 2.7.0 Authentication successful",
        "event: (TLSv1_3, server name localhost)",
        "client: RCPT TO:<alice@example.com>",
    ] {
        assert!(lines.iter().any(|known| known == line), "no {line:?} in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("client: (message, ")), "{lines:#?}");
    assert_eq!(reading["token"]["assertionSubject"], SAMPLE_SUBJECT);
    for path in ["messages", &format!("messages/{id}"), "refusals", "faults", ""] {
        let answer = get(&simulator, &format!("/inbox/{path}")).await;
        for secret in [token.as_str(), SAMPLE_PASSWORD, "eyJ", "dXNlcj"] {
            assert!(!answer.text().contains(secret), "{path}");
        }
    }
}

#[tokio::test]
async fn what_was_refused_is_listed_with_what_was_asked() {
    let simulator = start().await;
    let mut stream = TcpStream::connect(simulator.smtp_address()).await.unwrap();
    let (mut replies, mut octets) = (Vec::new(), [0; 512]);
    stream.write_all(b"EHLO shop.example\r\n").await.unwrap();
    // One command at a time: pipelining before it is offered is refused, too.
    while !replies.windows(5).any(|line| line == b"\n250 ") {
        let read = stream.read(&mut octets).await.unwrap();
        assert_ne!(read, 0, "the connection stays open");
        replies.extend_from_slice(&octets[..read]);
    }
    stream.write_all(b"MAIL FROM:<a@b.example>\r\n").await.unwrap();
    // The connection stays open, so that what was said is read.
    let noted = |office: &mailroute_m365::office::Office| (!office.violations.is_empty()).then_some(());
    simulator.wait_for(std::time::Duration::from_secs(20), noted).await.unwrap();
    let listed = get(&simulator, "/inbox/refusals").await.json();
    assert_eq!((&listed["total"], &listed["violations"][0]["kind"]), (&json!(1), &json!("MailWithoutTls")));
    assert_eq!(listed["refused"][0]["asked"], "MAIL FROM:<a@b.example>");
    assert!(listed["refused"][0]["reply"].as_str().unwrap().starts_with("530 "), "{listed}");
}

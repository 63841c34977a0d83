//! Upstreams that are not Microsoft: they get no token, no mail, and cannot end the process.

use mailroute_route::condition::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::message;
use crate::scene::{Scene, submission};

/// A plaintext server that sends each of `lines` after what the client sends, keeping what it received.
async fn server(lines: &'static [&'static [u8]]) -> (u16, tokio::sync::watch::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = tokio::sync::watch::Sender::new(Vec::new());
    let seen = received.subscribe();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            converse(stream, lines, &received).await;
        }
    });
    (port, seen)
}

async fn converse(mut stream: TcpStream, lines: &[&[u8]], received: &tokio::sync::watch::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    for line in lines {
        if stream.write_all(line).await.is_err() {
            return;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => received.send_modify(|all| all.extend_from_slice(&buffer[..n])),
        }
    }
}

/// A sidecar whose upstream is such a server; what the server got, and what the operator was told.
async fn facing(lines: &'static [&'static [u8]], reason: Reason) -> (String, String) {
    let (port, received) = server(lines).await;
    let scene = Scene::with(|_| {}, |_, route| submission(route).endpoint.port = port).await;
    let told = scene.told(reason).await;
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("no")).await;
    assert_eq!(reply.code, 451, "{reply}");
    let received = String::from_utf8_lossy(&received.borrow()).into_owned();
    assert!(!received.contains("AUTH") && !received.contains("MAIL"), "{received}");
    (received, told.message)
}

const EHLO: &[u8] = b"250-x Hello\r\n250 STARTTLS\r\n";

#[tokio::test]
async fn plaintext_behind_the_answer_to_starttls_is_refused() {
    let (received, told) = facing(
        &[b"220 x\r\n", EHLO, b"220 go\r\n250-x INJECTED\r\n250 AUTH XOAUTH2\r\n", b"235 welcome\r\n"],
        Reason::StartTlsMissing,
    )
    .await;
    assert!(told.contains("plaintext"), "{told}");
    assert!(received.contains("STARTTLS\r\n"), "{received}");
}

#[tokio::test]
async fn plaintext_in_place_of_the_handshake_is_refused() {
    facing(&[b"220 x\r\n", EHLO, b"220 go\r\n", b"250-x\r\n250 AUTH XOAUTH2\r\n"], Reason::TlsFailed).await;
}

#[tokio::test]
async fn another_protocol_is_told() {
    facing(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], Reason::UpstreamProtocolError).await;
}

#[tokio::test]
async fn a_greeting_without_end_is_bounded() {
    static ENDLESS: [u8; 200_000] = [b'2'; 200_000];
    static LINES: [&[u8]; 1] = [&ENDLESS];
    facing(&LINES, Reason::UpstreamProtocolError).await;
}

#[tokio::test]
async fn a_goodbye_in_place_of_a_greeting_is_told() {
    let (_, told) = facing(&[b"421 4.3.2 Service not available\r\n"], Reason::UpstreamUnavailable).await;
    assert!(told.contains("421 4.3.2"), "{told}");
}

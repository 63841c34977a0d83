//! Upstreams that are not Microsoft: they get no token, no mail, and cannot end the process.

use mailroute_route::condition::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch::Sender;

use crate::client::message;
use crate::control::identity;
use crate::scene::{Scene, submission};

/// A plaintext server that sends each of `lines` after what the client sends, keeping what it received.
async fn server(lines: &'static [&'static [u8]]) -> (u16, tokio::sync::watch::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Sender::new(Vec::new());
    let seen = received.subscribe();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            converse(stream, lines, &received).await;
        }
    });
    (port, seen)
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    lines: &[&[u8]],
    received: &Sender<Vec<u8>>,
) {
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

/// A sidecar whose upstream turns hostile only within good TLS: it sends each of `lines` after what the client sends.
async fn facing_within_tls(lines: &'static [&'static [u8]], reason: Reason) -> String {
    let (ca_pem, acceptor) = identity("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let received = Sender::new(Vec::new());
        while let Ok((mut stream, _)) = listener.accept().await {
            converse(&mut stream, &[b"220 x\r\n", EHLO], &received).await;
            if stream.write_all(b"220 go\r\n").await.is_ok()
                && let Ok(mut stream) = acceptor.accept(stream).await
            {
                let mut hello = [0; 256];
                if stream.read(&mut hello).await.is_ok() {
                    converse(stream, lines, &received).await;
                }
            }
        }
    });
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), ca_pem).unwrap();
    let change = |_: &mailroute_m365::Simulator, route: &mut mailroute_route::RouteFile| {
        let endpoint = &mut submission(route).endpoint;
        (endpoint.port, endpoint.ca_file) = (port, Some(ca.path().to_owned()));
    };
    let scene = Scene::with(|_| {}, change).await;
    let told = scene.told(reason).await;
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("no")).await;
    assert_eq!(reply.code, 451, "{reply}");
    told.message
}

#[tokio::test]
async fn odd_lines_in_the_answer_to_ehlo_do_no_harm() {
    static LINES: [&[u8]; 2] = [
        b"250-x\r\n250- \r\n250-\r\n250-\xff\xfe\r\n250 auth xoauth2\r\n",
        b"535 5.7.139 Authentication unsuccessful, basic authentication is disabled.\r\n",
    ];
    let told = facing_within_tls(&LINES, Reason::BasicAuthDisabled).await;
    assert!(told.starts_with("535 5.7.139"), "the log-in was reached: {told}");
}

#[tokio::test]
async fn a_reply_without_end_within_tls_is_bounded() {
    static ENDLESS: [u8; 200_000] = [b'2'; 200_000];
    static LINES: [&[u8]; 1] = [&ENDLESS];
    let told = facing_within_tls(&LINES, Reason::UpstreamProtocolError).await;
    assert!(told.contains("a line of more than 4096 octets"), "{told}");
}

#[tokio::test]
async fn what_is_not_smtp_within_tls_is_told() {
    facing_within_tls(&[b"hello there\r\n"], Reason::UpstreamProtocolError).await;
}

#[tokio::test]
async fn an_upstream_without_xoauth2_gets_no_token() {
    let told =
        facing_within_tls(&[b"250-x\r\n250 AUTH LOGIN\r\n", b"235 welcome\r\n"], Reason::LoginFailed).await;
    assert!(told.contains("does not offer AUTH XOAUTH2"), "{told}");
}

//! Clients that people use.

use std::process::Stdio;

use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::io::AsyncWriteExt as _;

use crate::server::{Server, token};

fn transport(server: &Server, user: &str, password: &str) -> AsyncSmtpTransport<Tokio1Executor> {
    let root = Certificate::from_pem(server.certificate.as_bytes()).unwrap();
    let tls = TlsParameters::builder("localhost".into()).add_root_certificate(root).build().unwrap();
    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(server.address.port())
        .tls(Tls::Required(tls))
        .credentials(Credentials::new(user.into(), password.into()))
        .authentication(vec![Mechanism::Plain, Mechanism::Login])
        .build()
}

fn message() -> Message {
    Message::builder()
        .from("noreply@contoso.com".parse().unwrap())
        .to("ann@fabrikam.com".parse().unwrap())
        .subject("hello")
        .header(ContentType::TEXT_PLAIN)
        .body("Grüße".to_owned())
        .unwrap()
}

#[tokio::test]
async fn lettre_sends_as_a_user_and_as_a_pod_and_not_as_anybody() {
    let server = Server::start().await;
    let token = token("mailroute.dev", "shop", "c2lnbmVk");
    for (user, password) in [("ann", "secret"), ("bob", "geheim"), ("token", &token)] {
        transport(&server, user, password).send(message()).await.unwrap();
    }
    let refused = transport(&server, "ann", "geheim").send(message()).await.unwrap_err();
    assert!(refused.to_string().contains("535") || refused.is_permanent(), "{refused}");
    let taken = server.stop().await;
    assert_eq!(taken.len(), 3);
    assert!(
        taken
            .iter()
            .all(|taken| taken.to == ["ann@fabrikam.com"] && taken.text.contains(" with ESMTPSA id "))
    );
}

/// What `curl` answers to a message: its exit code. None where there is no curl.
async fn curl(server: &Server, more: &[&str]) -> Option<i32> {
    std::fs::write(server.path("ca.crt"), &server.certificate).unwrap();
    let (url, ca) = (format!("smtp://localhost:{}/app", server.address.port()), server.path("ca.crt"));
    let child = tokio::process::Command::new("curl")
        .args(["--silent", "--ipv4", "--url", &url, "--cacert", &ca.display().to_string()])
        .args(["--mail-from", "noreply@contoso.com", "--mail-rcpt", "ann@fabrikam.com", "--upload-file", "-"])
        .args(more)
        .stdin(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(b"From: noreply@contoso.com\r\nSubject: x\r\n\r\ny\r\n").await;
    drop(input);
    child.wait().await.unwrap().code()
}

#[tokio::test]
async fn curl_sends_as_a_user_and_not_without() {
    let server = Server::start().await;
    let Some(code) = curl(&server, &["--ssl-reqd", "--user", "ann:secret"]).await else {
        eprintln!("there is no curl here");
        return;
    };
    assert_eq!(code, 0);
    assert_eq!(
        curl(&server, &["--ssl-reqd", "--user", "bob:geheim", "--login-options", "AUTH=LOGIN"]).await,
        Some(0)
    );
    for refused in
        [&["--ssl-reqd"][..], &["--user", "ann:secret"], &[], &["--ssl-reqd", "--user", "ann:wrong"]]
    {
        assert_ne!(curl(&server, refused).await, Some(0), "{refused:?}");
    }
    assert_eq!(server.stop().await.len(), 2);
}

//! TLS: what is offered when, and what `Received` says of it.

use std::time::Duration;

use mailroute_sidecar::listener::SessionLimits;
use mailroute_sidecar::smtp::reply::Reply;

use crate::client::{Client, plain};
use crate::server::{Server, Setup, token};

fn offers(reply: &Reply, extension: &str) -> bool {
    reply.lines.iter().any(|line| line == extension)
}

#[tokio::test]
async fn a_login_is_offered_under_tls_alone_and_tls_before_it_alone() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    let reply = client.command("EHLO a").await;
    assert!(offers(&reply, "STARTTLS") && !offers(&reply, "AUTH PLAIN LOGIN"), "{reply:?}");
    assert_eq!(client.command("STARTTLS").await.code, 220);
    let mut client = client.under_tls(&server.certificate).await.unwrap();
    let reply = client.command("EHLO a").await;
    assert!(!offers(&reply, "STARTTLS") && offers(&reply, "AUTH PLAIN LOGIN"), "{reply:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_trace_line_says_how_a_message_came_in() {
    let server = Server::start().await;
    let mut client = Client::logged_in(&server).await;
    assert_eq!(client.send("noreply@contoso.com", "a@b.example").await.code, 250);
    client.command("MAIL FROM:<noreply@contoso.com> SMTPUTF8").await;
    client.command("RCPT TO:<a@b.example>").await;
    client.command("DATA").await;
    assert_eq!(client.command("Subject: x\r\n\r\ny\r\n.").await.code, 250);
    let taken = server.stop().await;
    for (taken, with) in taken.iter().zip(["ESMTPSA", "UTF8SMTPSA"]) {
        let front = format!(
            "Received: from app.example ([127.0.0.1])\r\n\tby mail.shop.svc.cluster.local (MailRoute) with {with} id "
        );
        assert!(taken.text.starts_with(&front), "{}", taken.text);
        assert_eq!(
            (taken.from.as_str(), taken.to.as_slice()),
            ("<noreply@contoso.com>", &["a@b.example".to_owned()][..])
        );
    }
    assert_eq!(taken.len(), 2);
}

#[tokio::test]
async fn pods_log_in_with_the_token_of_their_service_account() {
    let server = Server::start().await;
    for (audience, namespace) in [("mailroute.dev", "shop"), ("mailroute.dev/gateway/shop/mail", "web")] {
        let mut client = Client::secured(&server).await;
        let token = token(audience, namespace, "c2lnbmVk");
        assert_eq!(client.command(&plain("token", &token)).await.code, 235);
        assert_eq!(client.send("noreply@contoso.com", "a@b.example").await.code, 250);
    }
    assert_eq!(server.metric("mailroute_logins_total{result=\"accepted\"}"), 2.0);
    assert_eq!(server.stop().await.len(), 2);
}

#[tokio::test]
async fn without_a_certificate_clients_are_told_to_come_again_until_there_is_one() {
    let mut server = Server::with(Setup { certificate: false, ..Setup::default() }).await;
    let mut client = Client::connect(server.address).await;
    let reply = client.command("EHLO a").await;
    assert!(!offers(&reply, "STARTTLS") && !offers(&reply, "AUTH PLAIN LOGIN"), "{reply:?}");
    assert_eq!(client.command("STARTTLS").await.code, 454);
    assert_eq!(client.command(&plain("ann", "secret")).await.code, 454);
    assert_eq!(client.command("MAIL FROM:<noreply@contoso.com>").await.code, 454);
    assert_eq!(server.metric("mailroute_smtp_certificate_expiry_timestamp_seconds"), 0.0);
    server.renew();
    while !offers(&client.command("EHLO a").await, "STARTTLS") {
        tokio::task::yield_now().await;
    }
    assert!(server.metric("mailroute_smtp_certificate_expiry_timestamp_seconds") > 1e9);
    Client::logged_in(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_no_tls_client_harms_nobody() {
    let server = Server::start().await;
    let mut client = Client::connect(server.address).await;
    client.command("EHLO a").await;
    assert_eq!(client.command("STARTTLS").await.code, 220);
    client.write(&[0; 64]).await;
    client.rest().await;
    assert_eq!(server.metric("mailroute_refusals_total{reason=\"tls\"}"), 1.0);
    Client::logged_in(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn handshakes_that_stall_are_given_up_and_keep_nobody_from_theirs() {
    let limits = SessionLimits { handshake: Duration::from_secs(5), ..SessionLimits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    let mut stalled = Vec::new();
    for _ in 0..15 {
        let mut client = Client::connect(server.address).await;
        client.command("EHLO a").await;
        assert_eq!(client.command("STARTTLS").await.code, 220);
        stalled.push(client);
    }
    Client::logged_in(&server).await;
    assert_eq!(
        server.metric("mailroute_refusals_total{reason=\"tls\"}"),
        0.0,
        "it did not wait for the others"
    );
    for client in stalled {
        assert!(client.rest().await.is_empty());
    }
    assert_eq!(server.metric("mailroute_refusals_total{reason=\"tls\"}"), 15.0);
    server.stop().await;
}

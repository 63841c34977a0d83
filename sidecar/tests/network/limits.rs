//! What one address may hold, and how failed logins slow down.

use std::time::{Duration, Instant};

use mailroute_sidecar::listener::SessionLimits;
use tokio::task::JoinSet;

use crate::client::{Client, plain};
use crate::server::{Server, Setup};

#[tokio::test]
async fn an_address_has_so_many_sessions() {
    let server =
        Server::with(Setup { arguments: vec!["--smtp-client-sessions", "2"], ..Setup::default() }).await;
    let first = Client::connect(server.address).await;
    let _second = Client::connect(server.address).await;
    let mut third = Client::silent(server.address).await;
    let reply = third.reply().await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (421, "4.7.0".into()));
    assert_eq!(server.metric("mailroute_refusals_total{reason=\"sessions\"}"), 1.0);
    drop(first);
    loop {
        let mut next = Client::silent(server.address).await;
        if next.reply().await.code == 220 {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn all_addresses_together_have_as_many_sessions_as_the_route_says() {
    let server = Server::with(Setup { sessions: 1, ..Setup::default() }).await;
    let _first = Client::connect(server.address).await;
    let mut second = Client::silent(server.address).await;
    let reply = second.reply().await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (421, "4.3.2".into()));
    server.stop().await;
}

#[tokio::test]
async fn whoever_only_connects_keeps_nobody_out_and_who_has_logged_in_is_left_alone() {
    let limits = SessionLimits::default();
    let server = Server::with(Setup { sessions: 4, limits, ..Setup::default() }).await;
    let mut logged_in = Client::logged_in(&server).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut client = Client::silent_from(2, server.address).await;
        assert_eq!(client.reply().await.code, 220);
        silent.push(client);
    }
    // The first is in the middle of a handshake.
    silent[0].command("EHLO a").await;
    assert_eq!(silent[0].command("STARTTLS").await.code, 220);
    let mut others = Vec::new();
    for expected in [None, Some(421)] {
        let mut client = Client::silent_from(3, server.address).await;
        assert_eq!(client.reply().await.code, 220, "the oldest session gives way");
        let told = silent[others.len()].next_reply().await;
        assert_eq!(told.map(|reply| reply.code), expected);
        others.push(client);
    }
    assert_eq!(logged_in.send("noreply@contoso.com", "a@b.example").await.code, 250);
    assert_eq!(silent[2].command("EHLO a").await.code, 250);
    assert_eq!(server.metric("mailroute_refusals_total{reason=\"sessions\"}"), 2.0);
    server.stop().await;
}

#[tokio::test]
async fn whoever_begins_a_message_without_a_login_gives_way_to_nobody() {
    let arguments = vec!["--smtp-without-auth"];
    let server = Server::with(Setup { sessions: 1, arguments, ..Setup::default() }).await;
    let mut first = Client::connect(server.address).await;
    first.command("EHLO a").await;
    for line in ["MAIL FROM:<noreply@contoso.com>", "RCPT TO:<a@b.example>"] {
        assert_eq!(first.command(line).await.code, 250);
    }
    assert_eq!(first.command("DATA").await.code, 354);
    let mut second = Client::silent_from(2, server.address).await;
    assert_eq!(second.reply().await.code, 421);
    assert_eq!(first.command("From: <noreply@contoso.com>\r\n\r\nx\r\n.").await.code, 250);
    assert_eq!(server.stop().await.len(), 1);
}

#[tokio::test]
async fn an_address_sends_so_many_messages_a_minute_over_all_of_its_sessions() {
    let server =
        Server::with(Setup { arguments: vec!["--smtp-client-messages", "3"], ..Setup::default() }).await;
    let (mut one, mut other) = (Client::logged_in(&server).await, Client::logged_in(&server).await);
    for client in [0, 1, 0] {
        let client = if client == 0 { &mut one } else { &mut other };
        assert_eq!(client.send("noreply@contoso.com", "a@b.example").await.code, 250);
    }
    for client in [&mut one, &mut other] {
        let reply = client.send("noreply@contoso.com", "a@b.example").await;
        assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (450, "4.7.1".into()));
    }
    assert_eq!(server.metric("mailroute_refusals_total{reason=\"rate\"}"), 2.0);
    assert_eq!(server.stop().await.len(), 3);
}

#[tokio::test]
async fn three_failed_logins_end_a_session_and_each_makes_the_next_wait() {
    let server = Server::start().await;
    let mut client = Client::secured(&server).await;
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.command(&plain("ann", "wrong")).await.code, 535);
    }
    assert!(begin.elapsed() >= Duration::from_secs(3), "one second, then two: {:?}", begin.elapsed());
    assert_eq!(client.reply().await.code, 421);
    assert_eq!(client.next_reply().await, None);
    assert_eq!(server.metric("mailroute_logins_total{result=\"refused\"}"), 3.0);
    server.stop().await;
}

#[tokio::test]
async fn many_who_log_in_at_once_all_get_in() {
    let server = Server::start().await;
    let mut clients = JoinSet::new();
    let (address, certificate) = (server.address, server.certificate.clone());
    for n in 0..15 {
        let certificate = certificate.clone();
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            client.command("EHLO a").await;
            client.command("STARTTLS").await;
            let mut client = client.under_tls(&certificate).await.unwrap();
            client.command("EHLO a").await;
            let (user, password) = if n % 2 == 0 { ("ann", "secret") } else { ("bob", "geheim") };
            assert_eq!(client.command(&plain(user, password)).await.code, 235);
            assert_eq!(client.send("noreply@contoso.com", "a@b.example").await.code, 250);
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(server.stop().await.len(), 15);
}

#[tokio::test]
async fn at_the_end_those_between_messages_are_sent_elsewhere_and_nobody_in_a_message() {
    let (leave, server) = (SessionLimits::default().leave, Server::start().await);
    let (mut stranger, mut pooled) = (Client::secured(&server).await, Client::logged_in(&server).await);
    let mut writing = Client::logged_in(&server).await;
    for line in ["MAIL FROM:<noreply@contoso.com>", "RCPT TO:<a@b.example>", "DATA"] {
        writing.command(line).await;
    }
    server.drain();
    let begin = Instant::now();
    assert_eq!(stranger.reply().await.code, 421);
    let waited = begin.elapsed();
    assert!(waited < leave, "at once, or nearly: {waited:?}");
    assert_eq!(pooled.reply().await.code, 421);
    // Who comes now is served all the same: other nodes learn late that this gateway ends.
    let mut late = Client::logged_in(&server).await;
    assert_eq!(late.send("noreply@contoso.com", "a@b.example").await.code, 250);
    assert_eq!(writing.command("Subject: x\r\n\r\ny\r\n.").await.code, 250);
    assert_eq!(server.stop().await.len(), 2);
}

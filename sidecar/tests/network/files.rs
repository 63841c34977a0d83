//! Files that change while clients are connected.

use crate::client::{Client, plain};
use crate::server::{Server, USERS};

/// Tries to log in with new sessions until the answer has this code.
async fn until(server: &Server, user: &str, password: &str, code: u16) {
    loop {
        let mut client = Client::secured(server).await;
        if client.command(&plain(user, password)).await.code == code {
            return;
        }
    }
}

#[tokio::test]
async fn users_come_and_go_with_their_file() {
    let server = Server::start().await;
    until(&server, "bob", "geheim", 235).await;
    let (ann, _) = USERS.split_once('\n').unwrap();
    let renamed = ann.replace("ann:", "eve:");
    std::fs::write(server.path("users"), format!("{ann}\n{renamed}\nnot a user\n")).unwrap();
    until(&server, "eve", "secret", 235).await;
    until(&server, "ann", "secret", 235).await;
    let mut client = Client::secured(&server).await;
    assert_eq!(client.command(&plain("bob", "geheim")).await.code, 535, "also who was let in a moment ago");
    server.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_session_on_and_a_broken_one_is_not() {
    let mut server = Server::start().await;
    let mut old = Client::logged_in(&server).await;
    server.renew();
    loop {
        let mut client = Client::connect(server.address).await;
        client.command("EHLO a").await;
        assert_eq!(client.command("STARTTLS").await.code, 220);
        if client.under_tls(&server.certificate).await.is_ok() {
            break;
        }
    }
    assert_eq!(old.send("noreply@contoso.com", "a@b.example").await.code, 250, "open sessions go on");
    std::fs::write(server.path("tls.crt"), "broken").unwrap();
    std::fs::write(server.path("users"), USERS.replace("bob", "eve")).unwrap();
    // The files are looked at in the same rounds.
    until(&server, "eve", "geheim", 235).await;
    Client::logged_in(&server).await;
    server.stop().await;
}

//! Who may be named as the sender, seen from both ends.

use mailroute_route::file::{OnViolation, Senders};

use crate::client::message;
use crate::scene::{PATIENCE, Scene};

async fn scene(on_violation: OnViolation) -> Scene {
    let allow = vec!["*@alerts.contoso.com".to_owned()];
    let scene = Scene::with(|_| {}, |_, route| route.senders = Some(Senders { allow, on_violation })).await;
    scene.well().await;
    scene
}

/// The message of the sample mailbox, from somebody else.
fn from_bob(subject: &str) -> String {
    message(subject).replace("From: <noreply@contoso.com>", "From: \"Bob, the Builder\" <bob@fabrikam.com>")
}

#[tokio::test]
async fn a_foreign_sender_is_refused_before_microsoft_counts_it() {
    let scene = scene(OnViolation::Reject).await;
    let mut client = scene.client().await;
    let reply = client.command("MAIL FROM:<bob@fabrikam.com>").await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string().as_str()), (550, "5.7.60"), "{reply}");
    assert!(
        reply.text().contains("bob@fabrikam.com; allowed: noreply@contoso.com, *@alerts.contoso.com"),
        "{reply}"
    );
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &from_bob("refused")).await;
    assert!(reply.code == 550 && reply.text().contains("bob@fabrikam.com; allowed:"), "{reply}");
    assert_eq!(client.send("NoReply@contoso.com", &["ann@fabrikam.com"], &message("taken")).await.code, 250);
    assert_eq!(scene.m365.messages().len(), 1);
    scene.assert_careful();
}

#[tokio::test]
async fn the_mailbox_stands_in_for_a_foreign_sender() {
    let scene = scene(OnViolation::Rewrite).await;
    let reply =
        scene.client().await.send("bob@fabrikam.com", &["ann@fabrikam.com"], &from_bob("rewritten")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].mail_from, "noreply@contoso.com");
    let text = String::from_utf8_lossy(&arrived[0].data);
    let (added, rest) = text.split_once("To: <ann@fabrikam.com>\r\n").unwrap();
    assert!(
        added.ends_with(
            "\r\nFrom: \"Bob, the Builder\" <noreply@contoso.com>\r\nReply-To: \"Bob, the Builder\" <bob@fabrikam.com>\r\n"
        ),
        "{text}"
    );
    assert!(message("rewritten").ends_with(rest) && !rest.contains("From:"), "{text}");
    scene.assert_careful();
}

#[tokio::test]
async fn a_message_that_names_nobody_gets_the_sender_of_its_envelope() {
    let scene = Scene::start().await;
    scene.well().await;
    let reply = scene
        .client()
        .await
        .send("noreply@contoso.com", &["ann@fabrikam.com"], "Subject: x\r\n\r\ntext\r\n")
        .await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert!(String::from_utf8_lossy(&arrived[0].data).contains("\r\nFrom: noreply@contoso.com\r\n"));
    scene.assert_careful();
}

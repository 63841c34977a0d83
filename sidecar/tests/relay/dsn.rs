//! Delivery status notifications: who is told of a failure after a 250, how, and that nothing loops.

use mailroute_m365::{Rule, SmtpAction, Stage};
use mailroute_route::RouteFile;
use mailroute_route::file::DeliveryMode::Queue;

use crate::client::message;
use crate::kept::{SENDER, always, emptied, given_up, id_of, queued, reply, rules, with};
use crate::scene::{PATIENCE, Scene, metric};

const TWO: &[&str] = &["ann@fabrikam.com", "bob@fabrikam.com"];
const UNKNOWN: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";

async fn notifying(change: impl FnOnce(&mut RouteFile)) -> Scene {
    with(Queue, |_, route| {
        route.delivery.dead_letters.notify_sender = true;
        change(route);
    })
    .await
}

#[tokio::test]
async fn the_sender_is_told_of_a_recipient_that_was_refused() {
    let scene = notifying(|_| {}).await;
    scene.fault(Stage::Rcpt, reply(UNKNOWN), 1);
    let id = queued(&scene, TWO, "invoice").await;
    given_up(&scene, 1).await;
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    let note = arrived.iter().find(|message| message.mail_from.is_empty()).expect("a notification");
    assert_eq!(note.recipient_addresses(), [SENDER]);
    for (name, value) in [
        ("From", "\"Mail Delivery System\" <noreply@contoso.com>"),
        ("To", "<noreply@contoso.com>"),
        ("Auto-Submitted", "auto-replied"),
        ("In-Reply-To", "<invoice@contoso.com>"),
    ] {
        assert_eq!(note.header(name), Some(value), "{name}");
    }
    assert!(
        note.header("Content-Type").unwrap().starts_with("multipart/report; report-type=delivery-status;")
    );
    let text = String::from_utf8(note.data.clone()).unwrap();
    for line in [
        "Reporting-MTA: dns; notifications.shop.svc.cluster.local",
        &format!("X-Queue-ID: {id}"),
        "Final-Recipient: rfc822; ann@fabrikam.com",
        "Action: failed",
        "Status: 5.1.10",
        "Content-Type: text/rfc822-headers",
        "Subject: invoice",
    ] {
        assert!(text.lines().any(|met| met == line), "{line}: {text}");
    }
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.10 RESOLVER.ADR.RecipientNotFound"), "{text}");
    assert!(
        !text.contains("bob@fabrikam.com\r\n") && !text.contains("Hello,"),
        "no more than is needed: {text}"
    );
    assert_eq!(metric(&scene.metrics().await, "mailroute_notifications_total"), Some(1.0));
    scene.assert_careful();
}

#[tokio::test]
async fn the_sender_is_told_when_the_time_is_over() {
    let scene = notifying(|route| route.delivery.max_age_seconds = 1).await;
    always(&scene, Stage::EndOfData, reply("451 4.6.99 Not this message, not now"));
    queued(&scene, &["ann@fabrikam.com"], "late").await;
    let queue = scene.app.queue();
    let mut rounds = queue.rounds();
    while queue.figures().dead_letters < 1 {
        rounds.changed().await.unwrap();
    }
    rules(&scene, vec![]);
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    let text = String::from_utf8(arrived[0].data.clone()).unwrap();
    assert!(
        text.contains("Status: 4.4.7\r\n") && text.contains("It could not be delivered in time"),
        "{text}"
    );
}

#[tokio::test]
async fn a_notification_that_is_refused_is_a_dead_letter_and_causes_no_other() {
    let scene = notifying(|_| {}).await;
    rules(
        &scene,
        vec![
            Rule::times(Stage::Rcpt, reply(UNKNOWN), 1),
            Rule::times(Stage::EndOfData, reply("554 5.6.0 Corrupt message content"), 1),
        ],
    );
    queued(&scene, &["ann@fabrikam.com"], "refused").await;
    given_up(&scene, 2).await;
    assert!(scene.m365.messages().is_empty());
    assert_eq!(metric(&scene.metrics().await, "mailroute_notifications_total"), Some(1.0));
}

#[tokio::test]
async fn nobody_is_told_of_a_message_without_reverse_path_or_of_an_answer() {
    let scene = notifying(|_| {}).await;
    always(&scene, Stage::EndOfData, reply("554 5.6.0 Corrupt message content"));
    let mut client = scene.client().await;
    id_of(&client.send("", TWO, &message("null")).await);
    let answer = message("answer").replace("Subject:", "Auto-Submitted: auto-replied\r\nSubject:");
    id_of(&client.send(SENDER, TWO, &answer).await);
    given_up(&scene, 2).await;
    assert_eq!(metric(&scene.metrics().await, "mailroute_notifications_total"), Some(0.0));
}

#[tokio::test]
async fn nobody_is_told_unless_the_route_says_so() {
    let scene = with(Queue, |_, _| {}).await;
    always(&scene, Stage::EndOfData, reply("554 5.6.0 Corrupt message content"));
    queued(&scene, TWO, "quiet").await;
    given_up(&scene, 1).await;
    rules(&scene, vec![Rule::always(Stage::Noop, SmtpAction::Cut)]);
    emptied(&scene).await;
    assert!(scene.m365.messages().is_empty());
    assert_eq!(metric(&scene.metrics().await, "mailroute_notifications_total"), Some(0.0));
}

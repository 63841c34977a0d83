//! `endpoint.chunking`: messages with BDAT in one flight, and with DATA where the upstream does not take that.

use mailroute_m365::{Line, Rule, SmtpAction, Stage};
use mailroute_route::file::{Chunking, DeliveryMode};

use crate::client::message;
use crate::kept::{SENDER, emptied, reply, rules, send, subjects};
use crate::scene::{Scene, submission};

const ANN: &[&str] = &["ann@fabrikam.com"];
const TWO: &[&str] = &["ann@fabrikam.com", "bob@fabrikam.com"];

async fn scene(mode: DeliveryMode, chunking: Chunking) -> Scene {
    Scene::with(
        |_| {},
        |_, route| {
            route.delivery.mode = mode;
            submission(route).endpoint.chunking = chunking;
        },
    )
    .await
}

/// How often a command was said.
fn said(scene: &Scene, command: &str) -> usize {
    scene.m365.read(|office| {
        let lines = office.dialogues.iter().flat_map(|(_, dialogue)| dialogue.lines.iter());
        lines.filter(|line| line.text.starts_with(command)).count()
    })
}

#[tokio::test]
async fn a_message_goes_with_bdat_only_where_the_route_says_so_octet_for_octet() {
    for (chunking, bdat, data) in [(Chunking::Never, 0, 1), (Chunking::WhenOffered, 1, 0)] {
        let scene = scene(DeliveryMode::Deliver, chunking).await;
        let text = format!("{}.\r\n..\r\n.a\r\n", message("dots"));
        assert_eq!(scene.client().await.send(SENDER, ANN, &text).await.code, 250);
        let taken = scene.m365.messages().remove(0).data;
        assert!(String::from_utf8_lossy(&taken).ends_with("\r\n.\r\n..\r\n.a\r\n"), "{chunking:?}");
        assert_eq!((said(&scene, "BDAT"), said(&scene, "DATA")), (bdat, data));
        scene.assert_careful();
    }
}

#[tokio::test]
async fn with_several_recipients_only_the_queue_sends_it_since_their_refusal_must_stop_nobody_else() {
    let direct = scene(DeliveryMode::DeliverOrQueue, Chunking::WhenOffered).await;
    assert_eq!(send(&direct, TWO, "direct").await.code, 250);
    assert_eq!((said(&direct, "BDAT"), said(&direct, "DATA")), (0, 1));

    let queue = scene(DeliveryMode::Queue, Chunking::WhenOffered).await;
    queue.fault(Stage::Rcpt, reply("452 4.2.2 The recipient's mailbox is full"), 1);
    assert_eq!(send(&queue, TWO, "queued").await.code, 250);
    emptied(&queue).await;
    let to = |message: mailroute_m365::mailbox::Message| {
        message.recipients.into_iter().map(|to| to.address).collect()
    };
    let reached: Vec<Vec<String>> = queue.m365.messages().into_iter().map(to).collect();
    assert_eq!(reached, [[TWO[1]], [TWO[0]]], "each has it once");
    assert_eq!((said(&queue, "BDAT"), said(&queue, "DATA")), (2, 0));
    queue.assert_careful();
}

#[tokio::test]
async fn an_upstream_that_refuses_bdat_is_spoken_to_with_data_before_anything_is_told() {
    let scene = scene(DeliveryMode::Deliver, Chunking::WhenOffered).await;
    rules(&scene, vec![Rule::always(Stage::Bdat, SmtpAction::Reply(Line::HeaderTooLarge.into()))]);
    for subject in ["first", "second"] {
        let reply = send(&scene, ANN, subject).await;
        assert_eq!(reply.code, 250, "{reply}");
    }
    assert_eq!(subjects(&scene.m365), ["first", "second"]);
    assert_eq!((said(&scene, "BDAT"), said(&scene, "DATA")), (1, 2));
    scene.assert_careful();
}

#[tokio::test]
async fn a_message_that_is_refused_either_way_says_nothing_of_bdat() {
    let scene = scene(DeliveryMode::Deliver, Chunking::WhenOffered).await;
    let text = message("boss").replace("From: <noreply@contoso.com>", "From: <ceo@contoso.com>");
    let reply = scene.client().await.send(SENDER, ANN, &text).await;
    assert_eq!((reply.code, reply.text().contains("SendAsDenied")), (554, true), "{reply}");
    assert_eq!(send(&scene, ANN, "good").await.code, 250);
    assert_eq!((said(&scene, "BDAT"), said(&scene, "DATA")), (2, 1));
}

#[tokio::test]
async fn refusals_of_the_envelope_are_told_as_with_data() {
    let scene = scene(DeliveryMode::Deliver, Chunking::WhenOffered).await;
    let refusal = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found";
    scene.fault(Stage::Rcpt, reply(refusal), 1);
    let reply = send(&scene, ANN, "nobody").await;
    assert_eq!((reply.code, reply.text().contains("RecipientNotFound")), (550, true), "{reply}");
    assert!(scene.m365.messages().is_empty());
    // The connection is as good as before.
    assert_eq!(send(&scene, &TWO[1..], "after").await.code, 250);
    assert_eq!(said(&scene, "EHLO"), 2, "before TLS and over it, once");
    scene.assert_careful();
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_message() {
    let scene = scene(DeliveryMode::Deliver, Chunking::WhenOffered).await;
    assert_eq!(send(&scene, ANN, "first").await.code, 250);
    scene.fault(Stage::Mail, SmtpAction::Cut, 1);
    assert_eq!(send(&scene, ANN, "second").await.code, 250);
    assert_eq!(subjects(&scene.m365), ["first", "second"]);
}

//! Rules of a route, seen from both ends.

use mailroute_m365::faults::Request;
use mailroute_m365::{Faults, GraphAction, GraphAnswer, GraphFaults, Rule, Stage};
use mailroute_route::RouteFile;
use mailroute_route::file::{Archive, DeliveryMode, HeaderField, Headers, Recipients};

use crate::client::message;
use crate::kept::{self, SENDER, emptied, given_up, send};
use crate::route::by_graph;
use crate::scene::{PATIENCE, Scene, metric};

fn only(allow: &[&str], redirect_to: Option<&str>) -> Option<Recipients> {
    let allow = allow.iter().map(|&entry| entry.to_owned()).collect();
    Some(Recipients { allow, redirect_to: redirect_to.map(str::to_owned) })
}

async fn scene(change: impl FnOnce(&mut RouteFile)) -> Scene {
    let scene = Scene::with(|_| {}, |_, route| change(route)).await;
    scene.well().await;
    scene
}

#[tokio::test]
async fn a_recipient_that_the_route_does_not_allow_is_refused_by_itself() {
    let scene = scene(|route| route.recipients = only(&["ann@fabrikam.com"], None)).await;
    let mut client = scene.client().await;
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.code, 250);
    let reply = client.command("RCPT TO:<bob@fabrikam.com>").await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string().as_str()), (550, "5.7.1"), "{reply}");
    assert!(reply.text().ends_with("allowed: ann@fabrikam.com"), "{reply}");
    assert_eq!(client.command("RCPT TO:<ann@fabrikam.com>").await.code, 250);
    assert_eq!(client.command("DATA").await.code, 354);
    assert_eq!(client.finish(&message("allowed")).await.code, 250);
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].recipient_addresses(), ["ann@fabrikam.com"]);
    let refusals = "mailroute_refusals_total{reason=\"recipient_rule\"}";
    assert_eq!(metric(&scene.metrics().await, refusals), Some(1.0));
    scene.assert_careful();
}

#[tokio::test]
async fn a_staging_system_sends_to_one_address_only() {
    let scene = scene(|route| route.recipients = only(&[], Some("staging@fabrikam.com"))).await;
    let to = ["ann@fabrikam.com", "hidden@fabrikam.com"];
    let reply = scene.client().await.send(SENDER, &to, &message("staged")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].recipient_addresses(), ["staging@fabrikam.com"]);
    let text = String::from_utf8_lossy(&arrived[0].data);
    let field = "\r\nX-MailRoute-Original-To: ann@fabrikam.com,\r\n hidden@fabrikam.com\r\n";
    assert!(text.contains(field) && text.ends_with(&message("staged")), "{text}");
    let redirected = "mailroute_rule_actions_total{action=\"recipient_redirected\"}";
    assert_eq!(metric(&scene.metrics().await, redirected), Some(2.0));
    scene.assert_careful();
}

#[tokio::test]
async fn graph_sends_what_is_redirected_to_nobody_else() {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            by_graph(m365, route, false);
            route.recipients = only(&["bob@fabrikam.com"], Some("staging@fabrikam.com"));
        },
    )
    .await;
    scene.well().await;
    let to = ["ann@fabrikam.com", "bob@fabrikam.com"];
    let reply = scene.client().await.send(SENDER, &to, &message("staged")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    let mut recipients = arrived[0].recipient_addresses();
    recipients.sort();
    assert_eq!(recipients, ["bob@fabrikam.com", "staging@fabrikam.com"]);
    scene.assert_careful();
}

const ARCHIVE: &str = "archive@fabrikam.com";
const UNKNOWN: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found";

fn to_archive() -> Option<Archive> {
    Some(Archive { bcc: ARCHIVE.into() })
}

async fn archived(mode: DeliveryMode) -> Scene {
    kept::with(mode, |_, route| route.archive = to_archive()).await
}

/// The next archive copy meets this at RCPT.
fn copy_meets(scene: &Scene, line: &str) {
    // Behind the one recipient of each message.
    let second = Rule { seen: 1, every: Some(2), ..Rule::times(Stage::Rcpt, kept::reply(line), 1) };
    kept::rules(scene, vec![second]);
}

async fn count(scene: &Scene, action: &str) -> Option<f64> {
    metric(&scene.metrics().await, &format!("mailroute_rule_actions_total{{action=\"{action}\"}}"))
}

#[tokio::test]
async fn every_message_has_the_archive_as_one_more_recipient_in_every_mode() {
    for mode in [DeliveryMode::Deliver, DeliveryMode::DeliverOrQueue, DeliveryMode::Queue] {
        let scene = archived(mode).await;
        assert_eq!(send(&scene, &["ann@fabrikam.com"], "copied").await.code, 250);
        let named = &["Archive@Fabrikam.com", "bob@fabrikam.com"];
        assert_eq!(send(&scene, named, "named").await.code, 250);
        let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
        let of = |subject: &str| {
            let of_subject = arrived.iter().find(|message| message.header("Subject") == Some(subject));
            of_subject.unwrap().recipient_addresses()
        };
        assert_eq!(of("copied"), ["ann@fabrikam.com", ARCHIVE], "{mode:?}");
        assert_eq!(of("named"), *named, "{mode:?}: once");
        emptied(&scene).await;
        // As Microsoft counts them.
        scene.report(|report| report.usage.recipients_last_24h == 4).await;
        assert_eq!(count(&scene, "archive_added").await, Some(1.0));
        scene.assert_careful();
    }
}

#[tokio::test]
async fn without_a_queue_a_refused_copy_is_counted_and_the_message_goes_on() {
    for line in [UNKNOWN, "452 4.2.2 Mailbox full"] {
        let scene = archived(DeliveryMode::Deliver).await;
        copy_meets(&scene, line);
        let reply = send(&scene, &["ann@fabrikam.com"], "on").await;
        assert_eq!(reply.code, 250, "{reply}");
        assert_eq!(scene.m365.messages()[0].recipient_addresses(), ["ann@fabrikam.com"]);
        assert_eq!(count(&scene, "archive_refused").await, Some(1.0), "{line}");
    }
}

#[tokio::test]
async fn with_a_queue_a_copy_that_is_refused_for_good_is_a_dead_letter() {
    for mode in [DeliveryMode::DeliverOrQueue, DeliveryMode::Queue] {
        let scene = archived(mode).await;
        copy_meets(&scene, UNKNOWN);
        let id = kept::queued(&scene, &["ann@fabrikam.com"], "on").await;
        given_up(&scene, 1).await;
        assert_eq!(scene.app.queue().list_dead(), [id]);
        assert_eq!(scene.m365.messages()[0].recipient_addresses(), ["ann@fabrikam.com"]);
        assert_eq!(count(&scene, "archive_refused").await, Some(1.0), "{mode:?}");
        // The next messages go on.
        assert_eq!(send(&scene, &["ann@fabrikam.com"], "next").await.code, 250);
        scene.m365.wait_for_messages(2, PATIENCE).await;
    }
}

#[tokio::test]
async fn with_a_queue_a_copy_that_is_refused_for_now_follows() {
    let scene = archived(DeliveryMode::DeliverOrQueue).await;
    copy_meets(&scene, "452 4.2.2 Mailbox full");
    kept::queued(&scene, &["ann@fabrikam.com"], "followed").await;
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    let to: Vec<_> = arrived.iter().flat_map(|message| message.recipient_addresses()).collect();
    assert_eq!(to, ["ann@fabrikam.com", ARCHIVE]);
    assert_eq!(count(&scene, "archive_refused").await, Some(0.0));
    scene.assert_careful();
}

#[tokio::test]
async fn graph_sends_the_copy_and_goes_without_it_where_it_refuses_the_message_with_it() {
    let scene = kept::with(DeliveryMode::Deliver, |m365, route| {
        by_graph(m365, route, false);
        route.archive = to_archive();
    })
    .await;
    assert_eq!(send(&scene, &["ann@fabrikam.com"], "copied").await.code, 250);
    let mut to = scene.m365.messages()[0].recipient_addresses().join(" ");
    to.make_ascii_lowercase();
    assert!(to.contains("ann@fabrikam.com") && to.contains(ARCHIVE), "{to}");
    let refusal = GraphAction::Answer(GraphAnswer::new(400).code("ErrorInvalidRecipients"));
    let rules = vec![Rule::times(Request::SendMail, refusal, 1)];
    scene.m365.set_faults(Faults { graph: GraphFaults { rules, ..<_>::default() }, ..<_>::default() });
    assert_eq!(send(&scene, &["ann@fabrikam.com"], "alone").await.code, 250);
    assert_eq!(scene.m365.messages()[1].recipient_addresses(), ["ann@fabrikam.com"]);
    assert_eq!(count(&scene, "archive_refused").await, Some(1.0));
    scene.assert_careful();
}

#[tokio::test]
async fn header_fields_are_removed_and_set_but_for_what_a_signature_covers() {
    let scene = scene(|route| {
        let set = vec![HeaderField { name: "Auto-Submitted".into(), value: "auto-generated".into() }];
        route.headers = Some(Headers { remove: vec!["X-Mailer".into()], set });
    })
    .await;
    let mut client = scene.client().await;
    let with = |fields: &str, subject: &str| message(subject).replace("To:", &format!("{fields}To:"));
    let plain = with("X-Mailer: app 1.0\r\n", "plain");
    assert_eq!(client.send(SENDER, &["ann@fabrikam.com"], &plain).await.code, 250);
    let signed = "X-Mailer: app 1.0\r\nDKIM-Signature: v=1; h=from:x-mailer; b=x\r\n";
    let signed = with(signed, "signed");
    assert_eq!(client.send(SENDER, &["ann@fabrikam.com"], &signed).await.code, 250);
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    let field = |at: usize, name: &str| arrived[at].header(name).map(str::to_owned);
    assert_eq!(field(0, "X-Mailer"), None);
    assert_eq!(field(0, "Auto-Submitted").as_deref(), Some("auto-generated"));
    assert_eq!(field(1, "X-Mailer").as_deref(), Some("app 1.0"));
    assert_eq!(field(1, "Auto-Submitted").as_deref(), Some("auto-generated"), "not covered");
    for (action, times) in [("header_removed", 1.0), ("header_set", 2.0), ("header_kept", 1.0)] {
        assert_eq!(count(&scene, action).await, Some(times), "{action}");
    }
    scene.assert_careful();
}

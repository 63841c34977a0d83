//! What 250 means in each delivery mode, and what happens in place of it.

use std::time::Duration;

use mailroute_m365::{Line, Rule, SmtpAction, Stage};
use mailroute_quota::Timing;
use mailroute_route::file::DeliveryMode::{Deliver, DeliverOrQueue, Queue};
use mailroute_sidecar::app::Intervals;

use crate::client::message;
use crate::kept::{
    SENDER, always, down, emptied, figures, files, given_up, id_of, queued, reply, rules, scene, send,
    subjects, timed, with,
};
use crate::scene::{PATIENCE, Scene, intervals, metric};

const ANN: &[&str] = &["ann@fabrikam.com"];
const TWO: &[&str] = &["ann@fabrikam.com", "bob@fabrikam.com"];

fn nothing_is_kept(scene: &Scene) {
    assert_eq!(scene.app.queue().figures().messages, 0);
    for shelf in ["queue", "dead"] {
        assert!(files(&scene.files.path(""), shelf).is_empty(), "{shelf}");
    }
}

#[tokio::test]
async fn what_the_upstream_takes_at_once_has_its_own_250_and_is_not_kept() {
    let scene = scene(DeliverOrQueue).await;
    let reply = send(&scene, ANN, "taken").await;
    assert_eq!(reply.code, 250, "{reply}");
    assert!(reply.text().contains("<taken@contoso.com>") && reply.text().contains("Hostname="), "{reply}");
    assert_eq!(subjects(&scene.m365), ["taken"]);
    nothing_is_kept(&scene);
    scene.assert_careful();
}

#[tokio::test]
async fn what_the_upstream_refuses_for_good_reaches_the_waiting_application_as_it_is() {
    let scene = scene(DeliverOrQueue).await;
    let text = message("boss").replace("From: <noreply@contoso.com>", "From: <ceo@contoso.com>");
    let reply = scene.client().await.send(SENDER, ANN, &text).await;
    assert_eq!((reply.code, reply.text().contains("SendAsDenied")), (554, true), "{reply}");
    nothing_is_kept(&scene);
}

#[tokio::test]
async fn one_recipient_refused_for_good_is_told_before_anybody_got_the_message() {
    let scene = scene(DeliverOrQueue).await;
    scene.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let reply = send(&scene, TWO, "mixed").await;
    assert_eq!((reply.code, reply.text().contains("<ann@fabrikam.com>")), (550, true), "{reply}");
    nothing_is_kept(&scene);
    assert!(scene.m365.messages().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_250_and_a_delivery_later() {
    let scene = scene(DeliverOrQueue).await;
    down(&scene.m365, true).await;
    let id = queued(&scene, ANN, "later").await;
    assert_eq!(files(&scene.files.path(""), "queue")[0], id.as_str(), "durable before the 250");
    down(&scene.m365, false).await;
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["later"]);
    nothing_is_kept(&scene);
    scene.assert_careful();
}

#[tokio::test]
async fn a_known_fault_of_the_route_is_250_without_an_attempt() {
    let scene = Scene::with(
        |options| options.config.directory.tenants[0].smtp_auth_disabled = true,
        |_, route| route.delivery.mode = DeliverOrQueue,
    )
    .await;
    scene.told(mailroute_route::condition::Reason::SmtpAuthDisabledTenant).await;
    queued(&scene, ANN, "patient").await;
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = false);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["patient"]);
}

#[tokio::test]
async fn throttled_is_250_and_a_delivery_later() {
    for line in [Line::ConcurrentConnections, Line::MessageRate, Line::TemporaryServerError] {
        // After such a reply the mailbox is used less for some minutes; here these are short.
        let quota = Timing { minute: Duration::from_millis(200), ..Timing::default() };
        let scene = timed(DeliverOrQueue, Intervals { quota, ..intervals() }, |_, _| {}).await;
        scene.fault(Stage::Mail, SmtpAction::Reply(line.into()), 1);
        queued(&scene, ANN, "throttled").await;
        emptied(&scene).await;
        assert_eq!(subjects(&scene.m365), ["throttled"], "{line:?}");
    }
}

#[tokio::test]
async fn out_of_budget_is_250_and_a_delivery_when_the_window_moves() {
    let scene = with(DeliverOrQueue, |_, route| route.limits.recipients_per_day = Some(1)).await;
    assert!(send(&scene, ANN, "first").await.text().contains("Hostname="));
    queued(&scene, ANN, "second").await;
    let counted = metric(&scene.metrics().await, r#"mailroute_queued_messages_total{cause="limits"}"#);
    assert_eq!(counted, Some(1.0));
    let mut route = scene.route.clone();
    (route.generation, route.limits.recipients_per_day) = (2, Some(10));
    route.delivery.mode = DeliverOrQueue;
    scene.files.write_route(&route);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["first", "second"]);
    scene.assert_careful();
}

#[tokio::test]
async fn a_slow_upstream_is_250_after_the_wait_and_the_same_attempt_goes_on() {
    let scene = with(DeliverOrQueue, |_, route| route.delivery.wait_seconds = 1).await;
    scene.fault(Stage::EndOfData, SmtpAction::Delay(2000), 1);
    let id = queued(&scene, ANN, "slow").await;
    assert_eq!(scene.app.queue().list()[0].id, id);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["slow"], "sent once");
    scene.assert_careful();
}

#[tokio::test]
async fn a_refusal_after_the_wait_is_a_dead_letter() {
    let scene = with(DeliverOrQueue, |_, route| route.delivery.wait_seconds = 1).await;
    let refusal = reply("554 5.6.0 Corrupt message content");
    rules(
        &scene,
        vec![
            Rule::times(Stage::EndOfData, SmtpAction::Delay(1500), 1),
            Rule::times(Stage::EndOfData, refusal, 1),
        ],
    );
    let id = queued(&scene, ANN, "refused").await;
    given_up(&scene, 1).await;
    assert_eq!(scene.app.queue().list_dead(), [id]);
}

/// Exchange's five seconds before a refusal and waits of four and eight, all at half of their length.
#[tokio::test]
async fn exchange_delays_a_refusal_past_the_default_wait_and_not_past_a_longer_one() {
    let scene = async |wait| {
        let scene = Scene::with(
            |options| options.config.pace.tarpit_milliseconds = 2500,
            |_, route| (route.delivery.mode, route.delivery.wait_seconds) = (DeliverOrQueue, wait),
        )
        .await;
        scene.well().await;
        scene
    };
    let send = async |scene: &Scene| {
        let text = message("boss").replace("From: <noreply@contoso.com>", "From: <ceo@contoso.com>");
        scene.client().await.send(SENDER, ANN, &text).await
    };
    let (default, longer) = tokio::join!(scene(2), scene(4));
    let (late, in_time) = tokio::join!(send(&default), send(&longer));
    assert_eq!((in_time.code, in_time.text().contains("SendAsDenied")), (554, true), "{in_time}");
    nothing_is_kept(&longer);
    let id = id_of(&late);
    default.told(mailroute_route::condition::Reason::SendAsDenied).await;
    assert_eq!(default.app.queue().list()[0].id, id, "held");
    let again = send(&default).await;
    assert_eq!((again.code, again.text().contains("From memory")), (554, true), "{again}");
}

#[tokio::test]
async fn a_recipient_refused_after_the_wait_is_a_dead_letter_and_the_others_have_the_message() {
    let scene = with(DeliverOrQueue, |_, route| route.delivery.wait_seconds = 1).await;
    let refusal = reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found");
    rules(
        &scene,
        vec![Rule::times(Stage::Rcpt, SmtpAction::Delay(1500), 1), Rule::times(Stage::Rcpt, refusal, 1)],
    );
    let id = queued(&scene, TWO, "mixed").await;
    given_up(&scene, 1).await;
    assert_eq!(scene.app.queue().list_dead(), [id]);
    let arrived = scene.m365.messages();
    assert_eq!((arrived.len(), arrived[0].recipient_addresses()), (1, vec!["bob@fabrikam.com"]));
}

#[tokio::test]
async fn recipients_refused_for_now_wait_while_the_others_have_the_message() {
    let scene = scene(DeliverOrQueue).await;
    scene.fault(Stage::Rcpt, reply("452 4.2.2 Mailbox full"), 1);
    queued(&scene, TWO, "split").await;
    emptied(&scene).await;
    let arrived: Vec<_> =
        scene.m365.messages().iter().map(|message| message.recipient_addresses().join(",")).collect();
    assert_eq!(arrived, ["bob@fabrikam.com", "ann@fabrikam.com"]);
    scene.assert_careful();
}

#[tokio::test]
async fn a_full_spool_is_452_and_the_upstream_is_asked_all_the_same() {
    let scene = with(DeliverOrQueue, |_, route| route.delivery.max_spool_bytes = 1).await;
    assert_eq!(send(&scene, ANN, "fits upstream").await.code, 250);
    always(&scene, Stage::Mail, SmtpAction::Reply(Line::TemporaryServerError.into()));
    let reply = send(&scene, ANN, "fits nowhere").await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (452, "4.3.1".into()), "{reply}");
    let turned_away = metric(&scene.metrics().await, r#"mailroute_refusals_total{reason="storage"}"#);
    assert_eq!(turned_away, Some(1.0), "the refusal is not counted");
    nothing_is_kept(&scene);
}

#[tokio::test]
async fn a_full_spool_waits_for_a_slow_upstream() {
    let slow = |_: &_, route: &mut mailroute_route::RouteFile| {
        (route.delivery.wait_seconds, route.delivery.max_spool_bytes) = (1, 1);
    };
    let scene = with(DeliverOrQueue, slow).await;
    scene.fault(Stage::EndOfData, SmtpAction::Delay(1500), 1);
    let reply = send(&scene, ANN, "slow").await;
    assert!(reply.code == 250 && reply.text().contains("Hostname="), "{reply}");
    nothing_is_kept(&scene);
}

#[tokio::test]
async fn mode_queue_answers_before_it_asks() {
    let scene = scene(Queue).await;
    for n in 0..5 {
        queued(&scene, ANN, &format!("q{n}")).await;
    }
    emptied(&scene).await;
    let mut arrived = subjects(&scene.m365);
    arrived.sort();
    assert_eq!(arrived, ["q0", "q1", "q2", "q3", "q4"]);
    nothing_is_kept(&scene);
    scene.assert_careful();
}

#[tokio::test]
async fn mode_queue_with_a_full_spool_is_452() {
    let scene = with(Queue, |_, route| route.delivery.max_spool_bytes = 1).await;
    let reply = send(&scene, ANN, "full").await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (452, "4.3.1".into()), "{reply}");
    let turned_away = metric(&scene.metrics().await, r#"mailroute_refusals_total{reason="storage"}"#);
    assert_eq!(turned_away, Some(1.0), "the refusal is not counted");
    assert!(scene.m365.messages().is_empty());
}

#[tokio::test]
async fn mode_queue_says_250_while_the_upstream_is_down() {
    let scene = scene(Queue).await;
    down(&scene.m365, true).await;
    let id = queued(&scene, ANN, "later").await;
    assert_eq!(files(&scene.files.path(""), "queue")[0], id.as_str());
    down(&scene.m365, false).await;
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["later"]);
}

#[tokio::test]
async fn mode_deliver_keeps_nothing_after_its_451() {
    let scene = scene(Deliver).await;
    always(&scene, Stage::EndOfData, SmtpAction::Reply(Line::TemporaryServerError.into()));
    assert_eq!(send(&scene, ANN, "no").await.code, 451);
    nothing_is_kept(&scene);
    rules(&scene, vec![]);
    tokio::time::timeout(Duration::from_millis(300), scene.m365.wait_for_messages(1, PATIENCE))
        .await
        .expect_err("nobody sends it but the application");
}

#[tokio::test]
async fn mode_deliver_smooths_a_burst_while_the_application_waits() {
    let scene = with(Deliver, |_, route| route.limits.messages_per_minute = Some(120)).await;
    let mut client = scene.client().await;
    for n in 0..62 {
        // Half of the minute goes at once, the rest two a second.
        let reply = client.send(SENDER, ANN, &message(&format!("burst{n}"))).await;
        assert_eq!(reply.code, 250, "{n}: {reply}");
    }
    scene.assert_careful();
}

#[tokio::test]
async fn more_than_two_hundred_of_a_domain_are_delivered_in_parts() {
    let scene = scene(DeliverOrQueue).await;
    let to: Vec<String> = (0..450).map(|n| format!("u{n}@fabrikam.com")).collect();
    let refs: Vec<&str> = to.iter().map(String::as_str).collect();
    queued(&scene, &refs, "many").await;
    emptied(&scene).await;
    let parts: Vec<usize> = scene.m365.messages().iter().map(|message| message.recipients.len()).collect();
    assert_eq!(parts, [200, 200, 50]);
    let mut arrived: Vec<String> = scene
        .m365
        .messages()
        .iter()
        .flat_map(|message| message.recipient_addresses())
        .map(Into::into)
        .collect();
    arrived.sort();
    let mut expected = to.clone();
    expected.sort();
    assert_eq!(arrived, expected, "each once");
    let ids: Vec<_> = scene.m365.messages().iter().map(|message| message.message_id.clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    scene.assert_careful();
}

#[tokio::test]
async fn a_reload_of_the_mode_applies_to_the_next_message() {
    let scene = scene(Deliver).await;
    let mut client = scene.client().await;
    let mut route = scene.route.clone();
    (route.generation, route.delivery.mode) = (2, Queue);
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    let reply = client.send(SENDER, ANN, &message("queued")).await;
    id_of(&reply);
    figures(&scene, |figures| figures.messages == 0).await;
    assert_eq!(subjects(&scene.m365), ["queued"]);
}

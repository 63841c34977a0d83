//! `durability: Gateway`: what is not delivered at once is with the gateway before the application's 250.

use std::time::{Duration, Instant};

use mailroute_m365::{SmtpAction, Stage};
use mailroute_route::file::DeliveryMode::{DeliverOrQueue, Queue};
use mailroute_route::file::{DeliveryMode, Durability, GatewayUnavailable};
use mailroute_route::identity::Role;
use mailroute_sidecar::app::Intervals;
use mailroute_sidecar::queue::schedule::RetrySchedule;

use crate::kept::{down, reply};
use crate::pods::{ANN, BOB, Pod, Pods, stored};
use crate::scene::{Files, intervals};

async fn pods(mode: DeliveryMode) -> (Pods, Pod) {
    let (mut pods, gateway) = Pods::with_gateway(mode).await;
    pods.route.delivery.durability = Durability::Gateway;
    (pods, gateway)
}

#[tokio::test]
async fn in_mode_queue_every_message_is_at_the_gateway() {
    let (pods, gateway) = pods(Queue).await;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    let id = sidecar.queued(&[ANN], "first").await;
    assert!(gateway.app.queue().knows(&id));
    assert_eq!((stored(&gateway.files, "queue"), stored(&sidecar.files, "queue")), (1, 0));
    // The pod goes without a word.
    drop(sidecar);
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["first"]);
}

#[tokio::test]
async fn what_is_delivered_at_once_does_not_touch_the_gateway_and_what_is_not_is_there() {
    let (pods, gateway) = pods(DeliverOrQueue).await;
    let sidecar = pods.sidecar().await;
    let answer = sidecar.send(&[ANN], "at-once").await;
    assert!(answer.code == 250 && !answer.text().contains("queued"), "{answer}");
    assert_eq!(gateway.app.queue().figures().messages, 0);
    pods.fault(Stage::Rcpt, reply("452 4.2.2 The recipient's mailbox is full"), 1);
    let id = sidecar.queued(&[ANN, BOB], "half").await;
    assert!(gateway.app.queue().knows(&id) && stored(&sidecar.files, "queue") == 0);
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["at-once", "half", "half"]);
    assert_eq!(pods.recipients()[1..], [[BOB], [ANN]], "each has it once");
}

#[tokio::test]
async fn without_a_gateway_the_application_keeps_the_message() {
    let mut pods = Pods::new("127.0.0.1:1", DeliverOrQueue).await;
    pods.route.delivery.durability = Durability::Gateway;
    let sidecar = pods.sidecar().await;
    assert_eq!(sidecar.send(&[ANN], "delivered").await.code, 250, "what is delivered needs no gateway");
    down(&pods.m365, true).await;
    let answer = sidecar.send(&[ANN], "refused").await;
    assert_eq!(answer.code, 451, "{answer}");
    let text = answer.to_string();
    assert!(
        text.starts_with("451 4.3.0 GatewayReady")
            && text.ends_with("kubectl describe mailroute notifications -n shop\r\n"),
        "{text}"
    );
    assert_eq!(sidecar.app.queue().figures().messages, 0);
    let mut reports = pods.control.reports.clone();
    let told = reports.wait_for(|all| all.last().is_some_and(|last| last.gateway_error.is_some()));
    drop(tokio::time::timeout(crate::scene::PATIENCE, told).await.expect("the operator is told").unwrap());
}

#[tokio::test]
async fn or_the_pod_keeps_it_where_the_route_says_so() {
    let mut pods = Pods::new("127.0.0.1:1", DeliverOrQueue).await;
    pods.route.delivery.durability = Durability::Gateway;
    pods.route.delivery.gateway_unavailable = GatewayUnavailable::Pod;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    sidecar.queued(&[ANN], "kept").await;
    assert_eq!(stored(&sidecar.files, "queue"), 1);
    down(&pods.m365, false).await;
    sidecar.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["kept"]);
}

#[tokio::test]
async fn a_gateway_that_is_silent_is_not_waited_for_long() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut pods = Pods::new(&silent.local_addr().unwrap().to_string(), Queue).await;
    pods.route.delivery.durability = Durability::Gateway;
    let sidecar = pods.sidecar().await;
    let started = Instant::now();
    assert_eq!(sidecar.send(&[ANN], "refused").await.code, 451);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

/// Nothing is tried again within a minute.
fn slow_pace() -> Intervals {
    let minute = Duration::from_secs(60);
    let queue = RetrySchedule { first: minute, patient: minute * 5, longest: minute * 60, hold: minute };
    Intervals { queue, ..intervals() }
}

async fn slow() -> (Pods, Pod, Pod) {
    let mut pods = Pods::new("127.0.0.1:1", DeliverOrQueue).await;
    pods.route.delivery.durability = Durability::Gateway;
    pods.route.delivery.wait_seconds = 1;
    let arguments = ["--gateway", "127.0.0.1:0"];
    let gateway = pods.pod(Role::Gateway, "gateway-0", &arguments, slow_pace(), Files::new()).await;
    pods.found_at(&gateway.gateway_address().to_string());
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], slow_pace(), Files::new()).await;
    (pods, gateway, sidecar)
}

#[tokio::test]
async fn an_attempt_that_takes_long_goes_on_here_and_the_gateway_is_told_what_came_of_it() {
    let (pods, gateway, sidecar) = slow().await;
    pods.fault(Stage::EndOfData, SmtpAction::Delay(2500), 1);
    let id = sidecar.queued(&[ANN], "slow").await;
    assert_eq!(gateway.app.queue().figures().messages, 1);
    assert!(gateway.app.queue().knows(&id) && stored(&sidecar.files, "queue") == 0);
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["slow"], "once");
}

#[tokio::test]
async fn what_a_pod_is_trying_is_not_tried_by_a_gateway_that_gets_a_new_route_or_starts_again() {
    for is_restarted in [false, true] {
        let (mut pods, mut gateway, sidecar) = slow().await;
        pods.fault(Stage::EndOfData, SmtpAction::Delay(4000), 1);
        sidecar.queued(&[ANN], "slow").await;
        if is_restarted {
            gateway = gateway.restarted().await;
            assert_eq!(gateway.app.queue().figures().messages, 1);
        } else {
            let bytes = pods.route.delivery.max_spool_bytes + (1 << 20);
            pods.route.delivery.max_spool_bytes = bytes;
            gateway.files.write_route(&pods.route);
            gateway.figures(|figures| figures.max_bytes == bytes).await;
        }
        sidecar.app.gateways().all_told().await;
        gateway.figures(|figures| figures.messages == 0).await;
        assert_eq!(pods.arrived(), ["slow"], "once, restarted: {is_restarted}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_away_for_a_while_is_told_when_it_is_back() {
    let (pods, gateway, sidecar) = slow().await;
    pods.fault(Stage::EndOfData, SmtpAction::Delay(2500), 1);
    sidecar.queued(&[ANN], "slow").await;
    let address = gateway.gateway_address().to_string();
    let (files, _) = gateway.stopped().await;
    // Longer than a restart takes.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(stored(&files, "queue"), 1);
    let gateway = pods.pod(Role::Gateway, "gateway-0", &["--gateway", &address], slow_pace(), files).await;
    sidecar.app.gateways().all_told().await;
    assert_eq!(gateway.app.queue().figures().messages, 0);
    assert_eq!(pods.arrived(), ["slow"], "once");
}

#[tokio::test]
async fn an_attempt_that_takes_long_and_fails_leaves_the_message_to_the_gateway() {
    let (pods, gateway, sidecar) = slow().await;
    // Answered late, and not for good.
    let rules = vec![
        mailroute_m365::Rule::times(Stage::Data, SmtpAction::Delay(2000), 1),
        mailroute_m365::Rule::times(Stage::EndOfData, reply("451 4.6.99 Not this message, not now"), 1),
    ];
    let submission = mailroute_m365::SubmissionFaults { rules, ..<_>::default() };
    pods.m365.set_faults(mailroute_m365::Faults { submission, ..<_>::default() });
    let id = sidecar.queued(&[ANN], "late").await;
    let started = Instant::now();
    let progress = loop {
        let shown = gateway.app.queue().show(&id).await.unwrap();
        if shown.kept.progress.attempts > 0 {
            break shown.kept.progress;
        }
        assert!(started.elapsed() < crate::scene::PATIENCE, "the gateway is told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(progress.last.is_some_and(|last| last.text.contains("4.6.99")));
    gateway.app.queue().retry(&id).unwrap();
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["late"]);
}

#[tokio::test]
async fn a_sidecar_that_ends_while_an_attempt_is_under_way_leaves_it_to_the_gateway() {
    let (pods, gateway, sidecar) = slow().await;
    pods.fault(Stage::EndOfData, SmtpAction::Delay(120_000), 1);
    sidecar.queued(&[ANN], "cut").await;
    let (_, took) = sidecar.stopped().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    gateway.figures(|figures| figures.messages == 0).await;
    assert!(pods.arrived().contains(&"cut".to_owned()));
}

#[tokio::test]
async fn a_full_gateway_is_one_that_cannot_store() {
    let (mut pods, _) = pods(Queue).await;
    let tiny = {
        pods.route.delivery.max_spool_bytes = 1;
        pods.gateway("127.0.0.1:0").await
    };
    pods.route.delivery.max_spool_bytes = 1 << 30;
    pods.found_at(&tiny.gateway_address().to_string());
    let sidecar = pods.sidecar().await;
    assert_eq!(sidecar.send(&[ANN], "refused").await.code, 451);
    let metrics = crate::scene::http_get(tiny.app.admin_address(), "/metrics").await;
    assert_eq!(
        crate::scene::metric(&metrics, "mailroute_gateway_messages_total{outcome=\"full\"} "),
        Some(1.0)
    );
    let metrics = crate::scene::http_get(sidecar.app.admin_address(), "/metrics").await;
    assert_eq!(crate::scene::metric(&metrics, "mailroute_handovers_total{outcome=\"deferred\"} "), Some(1.0));
}

//! The end of a sidecar, and of a gateway: what is left is handed over, as far as it has come.

use std::time::Duration;

use mailroute_m365::Stage;
use mailroute_route::file::DeliveryMode::{DeliverOrQueue, Queue};
use mailroute_route::file::{Archive, HeaderField, Headers, Recipients};
use mailroute_route::identity::Role;
use mailroute_sidecar::gateway::client::{CONNECTIONS, Offer};
use mailroute_sidecar::queue::QueuePlace;
use mailroute_sidecar::spool::{Progress, RecipientStatus, Shelf};

use crate::client::{Client, message};
use crate::kept::{SENDER, down, reply};
use crate::once::{gateways, give, sample};
use crate::pods::{ANN, BOB, Pods, patient, stored};
use crate::scene::{Files, PATIENCE};

#[tokio::test]
async fn what_is_left_is_handed_over_with_its_progress_and_its_age() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], patient(), Files::new()).await;
    pods.fault(Stage::Rcpt, reply("452 4.2.2 The recipient's mailbox is full"), 1);
    let id = sidecar.queued(&[ANN, BOB], "half").await;
    pods.arrive(1).await;
    let place = |shown: &mailroute_sidecar::queue::Shown| shown.place;
    let before = loop {
        let shown = sidecar.app.queue().show(&id).await.unwrap();
        if place(&shown) == QueuePlace::Waiting && shown.kept.progress.attempts == 1 {
            break shown.kept;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    down(&pods.m365, true).await;
    let (files, took) = sidecar.stopped().await;
    assert_eq!(stored(&files, "queue"), 0);
    assert!(took < Duration::from_secs(5), "{took:?}");

    let after = gateway.app.queue().show(&id).await.unwrap().kept;
    assert_eq!(after.entry, before.entry);
    assert_eq!(after.progress.statuses, [RecipientStatus::Waiting, RecipientStatus::Delivered]);
    assert!(after.progress.attempts >= 1 && after.progress.last.is_some(), "{:?}", after.progress);
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.recipients(), [[BOB], [ANN]], "each has it once");
}

#[tokio::test]
async fn what_is_handed_over_meets_no_rule_of_the_route_a_second_time() {
    let mut pods = Pods::new("127.0.0.1:1", Queue).await;
    let (staging, archive) = ("staging@fabrikam.com", "archive@fabrikam.com");
    pods.route.recipients = Some(Recipients { allow: vec![], redirect_to: Some(staging.into()) });
    pods.route.archive = Some(Archive { bcc: archive.into() });
    let set = vec![HeaderField { name: "Auto-Submitted".into(), value: "auto-generated".into() }];
    pods.route.headers = Some(Headers { remove: vec![], set });
    let gateway = pods.gateway("127.0.0.1:0").await;
    pods.found_at(&gateway.gateway_address().to_string());
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    let id = sidecar.queued(&[ANN, BOB], "ruled").await;
    sidecar.stopped().await;
    let kept = gateway.app.queue().show(&id).await.unwrap().kept;
    assert_eq!(kept.entry.envelope.archive_position(), Some(1));
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.recipients(), [[staging, archive]]);
    let text = String::from_utf8_lossy(&pods.m365.messages()[0].data).into_owned();
    for field in ["X-MailRoute-Original-To:", "Auto-Submitted:"] {
        assert_eq!(text.matches(field).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_job_during_an_outage_ends_in_seconds_and_not_with_the_grace() {
    let mut took = Vec::new();
    for has_gateway in [true, false] {
        let (mut pods, gateway) = Pods::with_gateway(Queue).await;
        if !has_gateway {
            pods.route.gateway = None;
        }
        let sidecar = pods.sidecar().await;
        down(&pods.m365, true).await;
        for n in 0..30 {
            sidecar.queued(&[ANN], &format!("m{n}")).await;
        }
        let (files, time) = sidecar.stopped().await;
        took.push(time);
        assert_eq!(stored(&files, "queue"), if has_gateway { 0 } else { 30 });
        assert_eq!(gateway.app.queue().figures().messages, if has_gateway { 30 } else { 0 });
    }
    println!("with a gateway {:?}, without {:?}", took[0], took[1]);
    assert!(took[0] < Duration::from_secs(5) && took[1] > Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn what_waits_is_handed_over_while_a_session_is_still_open() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    let mut open = Client::connect(sidecar.app.smtp_addresses()[0]).await;
    sidecar.queued(&[ANN], "early").await;
    let stop = tokio::spawn(sidecar.stopped());
    gateway.figures(|figures| figures.messages == 1).await;
    let answer = open.send(SENDER, &[ANN], &message("late")).await;
    assert_eq!(answer.code, 250, "the session goes on: {answer}");
    drop(open);
    let (files, _) = tokio::time::timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!((stored(&files, "queue"), gateway.app.queue().figures().messages), (0, 2));
}

#[tokio::test]
async fn a_message_that_the_gateway_has_no_room_for_does_not_hold_up_the_others() {
    let mut pods = Pods::new("127.0.0.1:1", Queue).await;
    pods.route.delivery.max_spool_bytes = 256 << 10;
    let gateway = pods.gateway("127.0.0.1:0").await;
    pods.found_at(&gateway.gateway_address().to_string());
    pods.route.delivery.max_spool_bytes = 1 << 30;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    // As many as there are connections, in front of the small ones.
    for n in 0..CONNECTIONS {
        let large =
            format!("{}{}", message(&format!("large{n}")), "A line of some octets.\r\n".repeat(20_000));
        let mut client = Client::connect(sidecar.app.smtp_addresses()[0]).await;
        assert_eq!(client.send(SENDER, &[ANN], &large).await.code, 250);
    }
    for n in 0..10 {
        sidecar.queued(&[ANN], &format!("small{n}")).await;
    }
    let (files, _) = sidecar.stopped().await;
    assert_eq!((stored(&files, "queue"), gateway.app.queue().figures().messages), (CONNECTIONS, 10));
}

#[tokio::test]
async fn what_can_be_delivered_is_delivered_and_not_handed_over() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], patient(), Files::new()).await;
    pods.fault(Stage::EndOfData, reply("451 4.6.99 Not this message, not now"), 1);
    let id = sidecar.queued(&[ANN], "later").await;
    while sidecar.app.queue().show(&id).await.unwrap().kept.progress.attempts == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sidecar.stopped().await;
    assert_eq!(pods.arrived(), ["later"]);
    assert!(!gateway.app.queue().knows(&id));
}

#[tokio::test]
async fn dead_letters_are_handed_over_too() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let sidecar = pods.sidecar().await;
    pods.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let id = sidecar.queued(&[ANN], "unknown").await;
    sidecar.figures(|figures| figures.dead_letters == 1).await;
    let (files, _) = sidecar.stopped().await;
    assert_eq!((stored(&files, "dead"), gateway.app.queue().list_dead()), (0, vec![id.clone()]));
    let shown = gateway.app.queue().show(&id).await.unwrap();
    assert!(
        matches!(&shown.kept.progress.statuses[0], RecipientStatus::Failed(problem) if problem.text.contains("5.1.10"))
    );
    // A restart finds it where it was put.
    let gateway = gateway.restarted().await;
    assert_eq!(gateway.app.queue().list_dead(), [id]);
}

#[tokio::test]
async fn without_a_gateway_that_answers_what_is_left_stays_and_the_operator_is_told_why() {
    let pods = Pods::new("127.0.0.1:1", Queue).await;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    sidecar.queued(&[ANN], "left").await;
    let (files, took) = sidecar.stopped().await;
    assert_eq!(stored(&files, "queue"), 1);
    assert!(took < Duration::from_secs(9), "within the grace of 8 seconds: {took:?}");
    let last = pods.control.reports.borrow().last().cloned().expect("a last report");
    assert_eq!((last.queue.messages, last.left.len()), (1, 1), "{last:#?}");
    assert!(last.gateway_error.as_ref().is_some_and(|met| met.contains("127.0.0.1:1")), "{last:#?}");

    // The next start finds it, and so does a gateway that is there by then.
    let mut pods = pods;
    let gateway = pods.gateway("127.0.0.1:0").await;
    pods.found_at(&gateway.gateway_address().to_string());
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], patient(), files).await;
    sidecar.stopped().await;
    assert_eq!(gateway.app.queue().figures().messages, 1);
}

#[tokio::test]
async fn a_gateway_that_comes_back_within_the_grace_is_in_time() {
    let mut pods = Pods::new("127.0.0.1:1", Queue).await;
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    pods.found_at(&address.to_string());
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    sidecar.queued(&[ANN], "late").await;
    let stop = tokio::spawn(sidecar.stopped());
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let gateway = pods.gateway(&address.to_string()).await;
    let (files, _) = tokio::time::timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!((stored(&files, "queue"), gateway.app.queue().figures().messages), (0, 1));
}

#[tokio::test]
async fn any_of_several_gateways_takes_it_and_one_that_ends_gives_to_the_other_and_not_to_itself() {
    let pods = Pods::new("gateway.invalid", Queue).await;
    let (first, second) = pods.two_gateways("127.0.0.1:0").await;
    let both = vec![first.gateway_address(), second.gateway_address()];
    let sidecar = pods.sidecar().await;
    sidecar.app.gateways().dial(both);
    down(&pods.m365, true).await;
    for n in 0..20 {
        sidecar.queued(&[ANN], &format!("m{n}")).await;
    }
    sidecar.stopped().await;
    let messages = |pod: &crate::pods::Pod| pod.app.queue().figures().messages;
    assert_eq!(messages(&first) + messages(&second), 20);
    let (files, took) = first.stopped().await;
    assert_eq!((stored(&files, "queue"), messages(&second)), (0, 20), "{took:?}");
    // Nobody else is there: what is left stays on the volume.
    let (files, took) = second.stopped().await;
    assert_eq!(stored(&files, "queue"), 20);
    assert!(took < Duration::from_secs(9), "{took:?}");
    let last = pods.control.reports.borrow().last().cloned().expect("a last report");
    assert!(last.left.is_empty(), "nothing is lost: {last:#?}");
}

#[tokio::test]
async fn a_gateway_that_ends_alone_hears_the_answer_to_what_it_is_sending() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    pods.fault(Stage::EndOfData, mailroute_m365::SmtpAction::Delay(4_000), 1);
    give(&gateways(&pods, Role::Sidecar, &pods.route.name), 1).await.unwrap();
    // Microsoft has the message, and the gateway has no answer.
    pods.arrive(1).await;
    let gateway = gateway.restarted().await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["m1"]);
}

#[tokio::test]
async fn a_gateway_that_ends_waits_a_while_for_another_that_does_not_answer() {
    let pods = Pods::new("gateway.invalid", Queue).await;
    let free = crate::kills::free();
    let first = pods.gateway("127.0.0.1:0").await;
    first.app.gateways().dial(vec![free]);
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    sidecar.dial(vec![first.gateway_address()]);
    give(&sidecar, 1).await.unwrap();
    let stop = tokio::spawn(first.stopped());
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let second = pods.gateway(&free.to_string()).await;
    let (files, _) = tokio::time::timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!((stored(&files, "queue"), second.app.queue().figures().messages), (0, 1));
}

#[tokio::test]
async fn a_gateway_that_ends_leaves_to_a_pod_what_that_is_trying_also_when_the_route_has_no_gateway_any_more()
{
    let (mut pods, gateway) = Pods::with_gateway(Queue).await;
    let (entry, body) = sample(1);
    let reserved_until = Some(jiff::Timestamp::now() + jiff::SignedDuration::from_mins(2));
    let progress = Progress { reserved_until, ..Progress::fresh(&entry) };
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    gateways(&pods, Role::Sidecar, &pods.route.name).hand_over(offer).await.unwrap();
    pods.route.gateway = None;
    gateway.files.write_route(&pods.route);
    while gateway.app.gateways().is_there() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (files, _) = gateway.stopped().await;
    assert_eq!((stored(&files, "queue"), pods.arrived().len()), (1, 0));
}

#[tokio::test]
async fn a_gateway_is_alive_and_listens_on_no_port_of_localhost_for_mail() {
    let (_pods, gateway) = Pods::with_gateway(Queue).await;
    assert!(gateway.app.smtp_addresses().is_empty());
    let (spool, admin) = (gateway.files.path(""), gateway.app.admin_address());
    let asked = tokio::task::spawn_blocking(move || mailroute_sidecar::cli::health_check::ask(&spool, admin));
    asked.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_whose_attempt_does_not_end_is_cut_off_and_handed_over() {
    let (mut pods, gateway) = Pods::with_gateway(DeliverOrQueue).await;
    pods.route.delivery.wait_seconds = 1;
    let sidecar = pods.sidecar().await;
    pods.fault(Stage::EndOfData, mailroute_m365::SmtpAction::Delay(120_000), 1);
    sidecar.queued(&[ANN], "slow").await;
    let (files, took) = sidecar.stopped().await;
    assert_eq!(stored(&files, "queue"), 0, "{took:?}");
    gateway.figures(|figures| figures.messages == 0).await;
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(pods.arrived().last().map(String::as_str), Some("slow"));
}

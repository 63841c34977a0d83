//! The end of a pod: what is accepted until then, what is still delivered, and what is left.

use std::time::{Duration, Instant};

use mailroute_m365::{Options, Simulator, SmtpAction, Stage};
use mailroute_route::file::DeliveryMode::{DeliverOrQueue, Queue};
use mailroute_route::file::LogAddresses;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::queue::schedule;

use crate::canary::{Program, port};
use crate::client::{Client, message};
use crate::kept::{SENDER, down, emptied, files, id_of, once, queued, reply, scene, subjects, timed, with};
use crate::scene::{PATIENCE, Scene, intervals, surroundings};

const ANN: &[&str] = &["ann@fabrikam.com"];

/// Stops the sidecar, and says how long that took.
async fn stopped(app: App) -> Duration {
    let started = Instant::now();
    tokio::time::timeout(PATIENCE, app.stop()).await.expect("the stop ends");
    started.elapsed()
}

/// Subjects of what arrived.
fn sorted(m365: &Simulator) -> Vec<String> {
    let mut subjects = subjects(m365);
    subjects.sort();
    subjects
}

#[tokio::test]
async fn what_waits_for_its_next_attempt_is_tried_once_more_before_the_end() {
    let scene = timed(Queue, once(), |_, _| {}).await;
    scene.fault(Stage::EndOfData, reply("451 4.6.99 Not this message, not now"), 3);
    for n in 0..3 {
        queued(&scene, ANN, &format!("m{n}")).await;
    }
    let mut rounds = scene.app.queue().rounds();
    while scene
        .app
        .queue()
        .list()
        .iter()
        .any(|one| one.next == Some(one.since) || one.place != mailroute_sidecar::queue::QueuePlace::Waiting)
    {
        rounds.changed().await.unwrap();
    }
    assert!(scene.m365.messages().is_empty());
    let Scene { m365, app, files: kept, .. } = scene;
    let took = stopped(app).await;
    assert_eq!(sorted(&m365), ["m0", "m1", "m2"]);
    assert!(files(&kept.path(""), "queue").is_empty());
    assert!(took < Duration::from_secs(6), "nothing is waited for when nothing is left: {took:?}");
}

#[tokio::test]
async fn what_cannot_be_delivered_stays_on_disk_and_is_in_the_last_report() {
    let scene = scene(Queue).await;
    down(&scene.m365, true).await;
    for n in 0..3 {
        queued(&scene, ANN, &format!("m{n}")).await;
    }
    let Scene { control, app, files: kept, .. } = scene;
    let took = stopped(app).await;
    assert!(took < Duration::from_secs(9), "within the grace of 8 seconds: {took:?}");
    let messages = files(&kept.path(""), "queue").into_iter().filter(|name| !name.ends_with(".state"));
    assert_eq!(messages.count(), 3);
    let last = control.reports.borrow().last().cloned().expect("a last report");
    assert_eq!(last.queue.messages, 3, "{last:#?}");
    assert_eq!(last.left.len(), 3, "by their Message-IDs: {last:#?}");
    assert!(last.left.iter().all(|id| id.starts_with('<') && id.ends_with('>')), "{last:#?}");
}

#[tokio::test]
async fn a_route_that_hides_addresses_hides_the_message_ids_of_what_is_left() {
    let scene = with(Queue, |_, route| route.log_addresses = LogAddresses::Hidden).await;
    down(&scene.m365, true).await;
    queued(&scene, ANN, "left").await;
    let Scene { control, app, .. } = scene;
    stopped(app).await;
    let last = control.reports.borrow().last().cloned().expect("a last report");
    assert_eq!((last.queue.messages, last.left.len()), (1, 0), "{last:#?}");
}

#[tokio::test]
async fn what_waits_is_told_as_the_end_begins_which_may_be_cut_short() {
    let mut scene =
        timed(Queue, Intervals { report: Duration::from_secs(3), ..intervals() }, |_, _| {}).await;
    scene.well().await;
    // Nothing is wrong with the route that would have to be told before.
    scene.fault(Stage::EndOfData, reply("451 4.6.99 Not this message, not now"), 1000);
    for n in 0..3 {
        queued(&scene, ANN, &format!("m{n}")).await;
    }
    let told = scene.control.reports.wait_for(|all| all.last().is_some_and(|last| last.queue.messages == 3));
    tokio::select! {
        told = told => drop(told.expect("the control service is there")),
        () = scene.app.stop() => panic!("the operator was not told before the stop was over"),
    }
}

#[tokio::test]
async fn a_session_that_is_open_at_the_end_may_still_send_and_is_kept_or_delivered() {
    for mode in [Queue, DeliverOrQueue] {
        let scene = scene(mode).await;
        let mut client = scene.client().await;
        client.offer(SENDER, ANN).await;
        let Scene { m365, app, files: kept, .. } = scene;
        let stop = tokio::spawn(stopped(app));
        let reply = client.finish(&message("last")).await;
        assert_eq!(reply.code, 250, "{reply}");
        let reply = client.send(SENDER, ANN, &message("very last")).await;
        assert_eq!(reply.code, 250, "{reply}");
        drop(client);
        stop.await.unwrap();
        assert_eq!(sorted(&m365), ["last", "very last"], "{mode:?}");
        assert!(files(&kept.path(""), "queue").is_empty());
    }
}

#[tokio::test]
async fn an_application_that_waits_at_the_end_gets_its_250_and_the_message_is_on_disk() {
    let scene = with(DeliverOrQueue, |_, route| route.delivery.wait_seconds = 120).await;
    scene.fault(Stage::EndOfData, SmtpAction::Delay(120_000), 1);
    let mut client = scene.client().await;
    client.offer(SENDER, ANN).await;
    let Scene { m365, app, files: kept, .. } = scene;
    let sending = tokio::spawn(async move { client.finish(&message("waiting")).await });
    let begun = |office: &mailroute_m365::office::Office| {
        (office.faults.submission.rules[0].times == Some(0)).then_some(())
    };
    m365.wait_for(PATIENCE, begun).await.expect("the upstream takes its time");
    let took = stopped(app).await;
    let id = id_of(&sending.await.unwrap());
    assert!(files(&kept.path(""), "queue").contains(&id.to_string()));
    assert!(took < Duration::from_secs(9), "{took:?}");
}

#[tokio::test]
async fn the_next_start_delivers_what_was_left() {
    let scene = scene(Queue).await;
    down(&scene.m365, true).await;
    queued(&scene, ANN, "left").await;
    let scene = scene.restarted().await;
    down(&scene.m365, false).await;
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["left"]);
}

#[tokio::test]
async fn a_backlog_is_flushed_as_far_as_the_limits_allow() {
    let hour = Duration::from_secs(3600);
    let quota = mailroute_quota::Timing { minute: hour, hour, day: hour };
    let queue = schedule::RetrySchedule { first: hour, ..intervals().queue };
    let scene = timed(Queue, Intervals { quota, queue, ..intervals() }, |_, route| {
        route.limits.messages_per_minute = Some(4);
    })
    .await;
    for n in 0..5 {
        queued(&scene, ANN, &format!("m{n}")).await;
    }
    let Scene { m365, app, files: kept, .. } = scene;
    stopped(app).await;
    let delivered = m365.messages().len();
    assert!((2..=4).contains(&delivered), "{delivered}");
    let left = files(&kept.path(""), "queue").into_iter().filter(|name| !name.ends_with(".state")).count();
    assert_eq!(left + delivered, 5);
}

/// The program with one session, asked to stop by this signal.
async fn stopping(signal: &str) -> (Program, Client) {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let port = port(&program.line_with("\"listening\"").await["addresses"]);
    let client = Client::connect(([127, 0, 0, 1], port).into()).await;
    program.signal(signal).await;
    program.line_with("asked to stop").await;
    (program, client)
}

#[tokio::test]
async fn a_second_sigterm_does_not_cut_the_stop() {
    let (program, mut client) = stopping("-TERM").await;
    // As the kubelet does when a stop is tried once more.
    for _ in 0..3 {
        program.signal("-TERM").await;
    }
    assert_eq!(client.command("NOOP").await.code, 250);
    drop(client);
    let (code, log) = program.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"stopped\""), "{log}");
}

#[tokio::test]
async fn a_second_interrupt_from_a_terminal_does() {
    let (mut program, client) = stopping("-INT").await;
    program.signal("-INT").await;
    program.line_with("interrupted twice").await;
    program.ended().await;
    drop(client);
}

//! The mailbox's limits, against the simulator's counters: nothing is sent that Exchange would refuse for its amount, and
//! all of it arrives. Minutes and days are short.

use std::collections::BTreeSet;
use std::time::Duration;

use mailroute_m365::directory::SAMPLE_MAILBOX;
use mailroute_m365::limits::Peak;
use mailroute_m365::{Line, Options, Simulator, SmtpAction, Stage};
use mailroute_quota::Timing;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::DeliveryMode;
use mailroute_sidecar::app::Intervals;

use crate::client::{Client, message};
use crate::scene::{PATIENCE, Scene, intervals, metric};

/// A burst has to wait for several of the simulator's minutes.
const LONG: Duration = Duration::from_secs(120);

/// A day that is longer than any test.
const DAY: Duration = Duration::from_secs(86_400);

/// What the mailbox may send in the windows, messages and recipients: as Exchange counts, and as the route says.
struct Bounds {
    windows: Timing,
    exchange: (u32, u32),
    route: (u32, u32),
}

impl Bounds {
    /// The same on both sides.
    fn both(minute: Duration, day: Duration, bounds: (u32, u32)) -> Self {
        Self { windows: Timing { minute, day, ..Timing::default() }, exchange: bounds, route: bounds }
    }

    /// A sidecar under these, once all is well.
    async fn scene(self) -> Scene {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
        let Self { windows, exchange, route } = self;
        let options = |options: &mut Options| {
            let limits = &mut options.config.limits;
            limits.messages_per_minute = usize::try_from(exchange.0).unwrap();
            limits.recipients_per_day = usize::try_from(exchange.1).unwrap();
            limits.minute_milliseconds = millis(windows.minute);
            limits.day_milliseconds = millis(windows.day);
        };
        let limited = |_: &Simulator, file: &mut RouteFile| {
            file.delivery.mode = DeliveryMode::DeliverOrQueue;
            file.limits.messages_per_minute = Some(route.0);
            file.limits.recipients_per_day = Some(route.1);
        };
        let scene = Scene::run(&[], Intervals { quota: windows, ..intervals() }, options, limited).await;
        scene.well().await;
        scene
    }
}

/// Sends so many messages in one session; each is accepted.
async fn burst(mut client: Client, name: String, count: usize) {
    for n in 0..count {
        let text = message(&format!("{name}.{n}"));
        let reply = client.send(SAMPLE_MAILBOX, &["ann@fabrikam.com"], &text).await;
        assert_eq!(reply.code, 250, "{name}.{n}: {reply}");
    }
}

async fn bursts(scene: &Scene, sessions: usize, each: usize) {
    let clients = futures::future::join_all((0..sessions).map(|_| scene.client())).await;
    let all = clients.into_iter().enumerate().map(|(n, client)| burst(client, format!("burst{n}"), each));
    futures::future::join_all(all).await;
}

fn peak(scene: &Scene) -> Peak {
    scene.m365.statistics().mailboxes.get(SAMPLE_MAILBOX).copied().unwrap_or_default()
}

/// Waits until so many have arrived: each of them once.
async fn arrived(scene: &Scene, count: usize) {
    let messages = scene.m365.wait_for_messages(count, LONG).await;
    let subjects: BTreeSet<_> = messages.iter().map(|message| message.header("Subject").unwrap()).collect();
    assert_eq!((messages.len(), subjects.len()), (count, count));
}

fn refusals(scene: &Scene) -> Vec<(String, u64)> {
    scene.m365.statistics().tally.refusals.into_iter().collect()
}

#[tokio::test]
async fn a_burst_of_500_arrives_without_one_refusal_and_never_beyond_the_rate() {
    let scene = Bounds::both(Duration::from_millis(800), DAY, (30, 10_000)).scene().await;
    bursts(&scene, 10, 50).await;
    arrived(&scene, 500).await;
    assert_eq!(refusals(&scene), []);
    assert!(peak(&scene).messages_in_minute <= 30, "{:?}", peak(&scene));
    assert_eq!(peak(&scene).submitting_connections, 1);
    let metrics = scene.metrics().await;
    assert!(metric(&metrics, r#"mailroute_budget_used_ratio{limit="day"}"#).unwrap() >= 0.05, "{metrics}");
    scene.assert_careful();
}

#[tokio::test]
async fn a_restart_in_the_middle_keeps_the_count_of_the_day() {
    let scene = Bounds::both(Duration::from_secs(1), DAY, (30, 20)).scene().await;
    burst(scene.client().await, "before".into(), 12).await;
    arrived(&scene, 12).await;

    let scene = scene.restarted().await;
    burst(scene.client().await, "after".into(), 12).await;
    arrived(&scene, 20).await;
    assert!(!scene.told(Reason::DailyQuotaExceeded).await.holds);
    let held = scene.report(|report| report.queue.messages == 4).await;
    assert_eq!(held.usage.recipients_last_24h, 20);
    assert_eq!(refusals(&scene), []);
    assert_eq!(peak(&scene).recipients_in_day, 20);
}

#[tokio::test]
async fn a_day_that_is_used_up_holds_mail_until_its_window_moves() {
    let day = Duration::from_secs(3);
    let scene = Bounds::both(Duration::from_millis(500), day, (30, 10)).scene().await;
    burst(scene.client().await, "day".into(), 25).await;
    assert!(!scene.told(Reason::DailyQuotaExceeded).await.holds);
    arrived(&scene, 25).await;
    assert_eq!(refusals(&scene), []);
    assert!(peak(&scene).recipients_in_day <= 10, "{:?}", peak(&scene));
    scene.well().await;
}

#[tokio::test]
async fn a_432_makes_it_smaller_and_slower_and_it_recovers() {
    let bounds = Bounds::both(Duration::from_secs(1), DAY, (1000, 10_000));
    let scene = Bounds { exchange: (10_000, 10_000), ..bounds }.scene().await;
    burst(scene.client().await, "before".into(), 3).await;
    scene.fault(Stage::EndOfData, SmtpAction::Reply(Line::ConcurrentConnections.into()), 1);
    burst(scene.client().await, "after".into(), 10).await;
    let metrics = scene.metrics().await;
    let share = metric(&metrics, "mailroute_budget_share_ratio").unwrap();
    assert!((0.5..1.0).contains(&share), "{share}");
    assert_eq!(metric(&metrics, r#"mailroute_budget_throttles_total{kind="connections"}"#), Some(1.0));
    arrived(&scene, 13).await;
    assert_eq!(scene.m365.statistics().tally.refusals("432"), 1, "{:?}", refusals(&scene));

    let recovered = async {
        while metric(&scene.metrics().await, "mailroute_budget_share_ratio") != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("an eighth comes back with each minute");
    scene.well().await;
}

#[tokio::test]
async fn a_limit_that_others_use_up_is_met_with_less_and_nothing_is_lost() {
    // Exchange allows a third of what the route says, as if other senders had the rest.
    let bounds = Bounds::both(Duration::from_millis(500), DAY, (30, 10_000));
    let scene = Bounds { exchange: (10, 10_000), ..bounds }.scene().await;
    // The first refusal comes for sure; how many more follow depends on how fast the machine is.
    scene.fault(Stage::EndOfData, SmtpAction::Reply(Line::MessageRate.into()), 1);
    burst(scene.client().await, "much".into(), 60).await;
    arrived(&scene, 60).await;
    let refused = scene.m365.statistics().tally.refusals("421 4.4.2");
    assert!((1..=20).contains(&refused), "{refused} refusals for 60 messages");
}

#[tokio::test]
async fn bad_senders_do_not_cost_the_mailbox_its_good_mail() {
    let scene = Scene::start().await;
    scene.well().await;
    let mut client = scene.client().await;
    let mut good = 0;
    for n in 0..100 {
        let from = format!("From: <bad{}@contoso.com>", n % 40);
        let bad = message(&format!("bad{n}")).replace("From: <noreply@contoso.com>", &from);
        let reply = client.send(SAMPLE_MAILBOX, &["ann@fabrikam.com"], &bad).await;
        assert!(matches!(reply.code, 554 | 451), "{reply}");
        if n % 10 == 0 {
            let reply =
                client.send(SAMPLE_MAILBOX, &["ann@fabrikam.com"], &message(&format!("good{n}"))).await;
            assert_eq!(reply.code, 250, "{reply}");
            good += 1;
        }
    }
    assert_eq!(scene.m365.messages().len(), good);
    let tally = scene.m365.statistics().tally;
    assert_eq!(tally.refusals("550 5.2.25"), 0, "the mailbox is not barred");
    assert_eq!(tally.refusals("554 5.2.252"), 10, "{:?}", tally.refusals);
    assert!(!scene.told(Reason::ErrorsHeldBack).await.holds);
}

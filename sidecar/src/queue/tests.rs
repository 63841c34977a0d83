//! The queue with a transport that does as it is told: what no upstream can be made to do on demand.

mod other_pods;

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_quota::Timing;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::control::{Allotment, Lease};
use mailroute_route::file::ControlService;
use tempfile::TempDir;

use super::*;
use crate::attempt::Active;
use crate::config;
use crate::delivery::connection::Connection;
use crate::delivery::pool::{Pool, Slot};
use crate::delivery::{DryRun, Transport};
use crate::message::envelope::{Address, BodyType, Envelope, ReversePath};
use crate::outcome::{AttemptResult, DeliveryOutcome, PartialDelivery, Probe, Verdict};
use crate::smtp::reply::{EnhancedCode, Reply};

const PACE: RetrySchedule = RetrySchedule {
    first: Duration::from_millis(20),
    patient: Duration::from_millis(40),
    longest: Duration::from_millis(80),
    hold: Duration::from_millis(5),
};

/// The breaker's unit.
const UNIT: Duration = Duration::from_millis(1);

/// Enough for all tests at once.
static SLOTS: LazyLock<Pool<Connection>> = LazyLock::new(|| Pool::new(1000));

/// What a recipient's local part asks for.
#[derive(Default)]
struct Fake {
    /// Attempts by local part.
    attempts: Mutex<HashMap<String, u32>>,
    /// Local parts in the order in which they were delivered.
    delivered: Mutex<Vec<String>>,
}

#[async_trait]
impl Transport for Fake {
    async fn slot(&self, _: &Envelope, _: &Body) -> Result<Slot<'_>, Verdict> {
        Ok(SLOTS.slot().await.unwrap())
    }

    async fn deliver(
        &self,
        _: &Slot<'_>,
        envelope: &Envelope,
        _: &Body,
        _: PartialDelivery,
    ) -> AttemptResult {
        let to = envelope.recipients[0].as_str();
        let name = to.split('@').next().unwrap().to_owned();
        let attempts = {
            let mut all = lock(&self.attempts);
            let attempts = all.entry(name.clone()).or_default();
            *attempts += 1;
            *attempts
        };
        let verdict = match name.split('-').next().unwrap() {
            "panics" if attempts < 2 => panic!("as it was told"),
            "hangs" if attempts < 2 => std::future::pending().await,
            "poison" => {
                Verdict::without_reply(DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable)), "421")
            }
            "denied" if attempts < 2 => Verdict::without_reply(
                DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)),
                "554 5.2.252 SendAsDenied; a@contoso.com not allowed to send as b@contoso.com",
            ),
            "fault" => Verdict::without_reply(DeliveryOutcome::RouteFault(Reason::MailboxFull), "full"),
            _ => Verdict::of_reply(
                DeliveryOutcome::Delivered,
                Reply::new(250, EnhancedCode::new(2, 0, 0), "OK"),
            ),
        };
        if verdict.outcome == DeliveryOutcome::Delivered {
            lock(&self.delivered).push(name);
        }
        AttemptResult { verdict, refused: vec![], observations: vec![], host: None }
    }

    async fn probe(&self) -> Probe {
        unreachable!("nobody probes here")
    }

    async fn dry_run(&self, _: &Envelope, _: &mut DryRun) {}

    async fn tend(&self, _: watch::Receiver<bool>) {}
}

struct Bench {
    queue: Arc<Queue>,
    fake: Arc<Fake>,
    directory: TempDir,
    _stop: watch::Sender<bool>,
}

impl Bench {
    async fn start(max_age_seconds: u64) -> Self {
        Self::start_at(max_age_seconds, clock::since_epoch()).await
    }

    /// One that started at another time than it is now by the system's clock, which was set in between.
    async fn start_at(max_age_seconds: u64, started: Duration) -> Self {
        Self::built(|route| route.delivery.max_age_seconds = max_age_seconds, started, UNIT).await
    }

    async fn with(change: impl FnOnce(&mut RouteFile)) -> Self {
        Self::built(change, clock::since_epoch(), UNIT).await
    }

    async fn built(change: impl FnOnce(&mut RouteFile), started: Duration, unit: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        change(&mut route);
        let (fake, metrics) = (Arc::<Fake>::default(), Arc::new(Metrics::new().unwrap()));
        let active = Active { route: Arc::new(route), transport: Arc::clone(&fake) as _ };
        let lanes = Lanes::new(&metrics, directory.path(), Timing::default(), unit);
        if active.route.control.is_some() {
            lanes.of(None).follow(&active.route).await;
        }
        lanes.publish(0, Some(Arc::new(active)));
        let (spool, found) = Spool::open(directory.path(), limits(None)).await.unwrap();
        let clock = Steady::start_at(started);
        let queue = Queue::by_clock(spool, found, lanes, metrics, PACE, clock);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&queue).run(stopped));
        Self { queue, fake, directory, _stop: stop }
    }

    async fn keep(&self, to: &[&str]) -> QueueId {
        let envelope = envelope(to);
        let id = envelope.id.clone();
        self.queue.keep(envelope, &Body::new("", "Subject: x\r\n\r\n")).await.unwrap();
        id
    }

    async fn until(&self, reached: impl Fn(&Queue, &Fake) -> bool) {
        let mut rounds = self.queue.rounds();
        let wait = async {
            while !reached(&self.queue, &self.fake) {
                rounds.changed().await.unwrap();
            }
        };
        let waited = timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "{:?}, delivered {:?}", self.queue.list(), lock(&self.fake.delivered));
    }
}

fn envelope(to: &[&str]) -> Envelope {
    let accepted = clock::timestamp();
    let [a, b, c, d, e, f, g, h, ..] = clock::nonce();
    Envelope {
        id: QueueId::new(accepted, u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        message_id: "<1@contoso.com>".into(),
        client_name: "app".into(),
        reverse_path: ReversePath::Null,
        recipients: to.iter().map(|to| Address::parse(to).unwrap()).collect(),
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    }
}

/// An attempt that the upstream has said 250 to.
fn accepted() -> AttemptResult {
    let reply = Reply::new(250, EnhancedCode::new(2, 0, 0), "OK");
    let verdict = Verdict::of_reply(DeliveryOutcome::Delivered, reply);
    AttemptResult { verdict, refused: vec![], observations: vec![], host: None }
}

#[tokio::test]
async fn a_message_that_alone_meets_trouble_of_the_route_stops_nobody_and_is_backed_off() {
    let bench = Bench::start(3600).await;
    let poison = bench.keep(&["poison@a.example"]).await;
    for n in 0..20 {
        bench.keep(&[&format!("good-{n}@a.example")]).await;
    }
    bench.until(|queue, fake| lock(&fake.delivered).len() == 20 && queue.state().index.len() == 1).await;
    bench.keep(&["good-20@a.example"]).await;
    bench.until(|_, fake| lock(&fake.delivered).len() == 21).await;
    bench
        .until(|queue, _| {
            let attempts = queue.state().index.record(&poison).map(|record| !record.held && !record.taken);
            attempts == Some(true)
        })
        .await;
    let kept = bench.queue.show(&poison).await.unwrap().kept;
    assert!(kept.progress.attempts > 0, "its own trouble is counted: {:?}", kept.progress);
}

#[tokio::test]
async fn a_fault_that_everybody_meets_is_counted_against_nobody() {
    let bench = Bench::start(3600).await;
    let ids = [bench.keep(&["fault-1@a.example"]).await, bench.keep(&["fault-2@a.example"]).await];
    bench.until(|_, fake| lock(&fake.attempts).len() == 2).await;
    bench.until(|_, fake| lock(&fake.attempts).values().sum::<u32>() > 4).await;
    for id in &ids {
        let kept = bench.queue.show(id).await.unwrap().kept;
        assert_eq!((kept.progress.attempts, kept.progress.waiting()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_gives_its_message_back_and_its_place() {
    let bench = Bench::start(3600).await;
    bench.keep(&["panics@a.example"]).await;
    bench.keep(&["good@a.example"]).await;
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good", "panics"]);
    assert!(bench.queue.state().lanes.iter().all(|lane| lane.in_delivery == 0));
}

#[tokio::test]
async fn one_message_is_tried_by_one_at_a_time() {
    let bench = Bench::start(3600).await;
    let tried =
        bench.queue.keep_tried(&envelope(&["good@a.example"]), &Body::new("", "x\r\n")).await.unwrap();
    bench.queue.drain();
    bench.keep(&["good-2@a.example"]).await;
    bench.until(|_, fake| lock(&fake.delivered).len() == 1).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good-2"], "the other one is being tried by somebody else");
    drop(tried);
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(lock(&bench.fake.delivered).len(), 2, "until it is given back");
}

#[tokio::test]
async fn a_fate_that_cannot_be_written_is_remembered_and_not_delivered_twice() {
    let bench = Bench::start(3600).await;
    // Several transactions, and only the last one is refused.
    let to: Vec<String> = (0..200).map(|n| format!("good-{n}@a.example")).collect();
    let mut to: Vec<&str> = to.iter().map(String::as_str).collect();
    to.push("poison@a.example");
    let queue_directory = bench.directory.path().join("tmp");
    std::fs::remove_dir(&queue_directory).unwrap();
    std::fs::write(&queue_directory, "in the way").unwrap();
    let envelope = envelope(&to);
    let id = envelope.id.clone();
    assert!(bench.queue.keep(envelope.clone(), &Body::new("", "x\r\n")).await.is_err());
    std::fs::remove_file(&queue_directory).unwrap();
    std::fs::create_dir(&queue_directory).unwrap();
    let tried = bench.queue.keep_tried(&envelope, &Body::new("", "x\r\n")).await.unwrap();
    std::fs::remove_dir(&queue_directory).unwrap();
    std::fs::write(&queue_directory, "in the way").unwrap();
    drop(tried);
    bench.until(|_, fake| lock(&fake.attempts).get("poison").is_some_and(|&attempts| attempts >= 3)).await;
    let first = to[0].split('@').next().unwrap();
    assert_eq!(lock(&bench.fake.attempts)[first], 1, "those before it have it");
    assert!(!bench.queue.state().unwritten.is_empty());
    std::fs::remove_file(&queue_directory).unwrap();
    std::fs::create_dir(&queue_directory).unwrap();
    bench.until(|queue, _| queue.state().unwritten.is_empty()).await;
    let kept = bench.queue.show(&id).await.unwrap().kept;
    assert_eq!(kept.progress.waiting(), 1);
}

#[tokio::test]
async fn what_was_held_beyond_its_time_is_given_up_without_being_tried_again_and_again() {
    let bench = Bench::start(1).await;
    for n in 0..40 {
        bench.keep(&[&format!("fault-{n}@a.example")]).await;
    }
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(bench.queue.figures().dead_letters, 40);
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_a_disk_that_keeps_a_settled_message() {
    let bench = Bench::start(3600).await;
    for is_released in [true, false] {
        let envelope = envelope(&["good@a.example"]);
        let id = envelope.id.clone();
        let tried = bench.queue.keep_tried(&envelope, &Body::new("", "x\r\n")).await.unwrap();
        let put_back = refuse_removal(bench.directory.path(), &id);
        let told = async { if is_released { tried.release().await } else { tried.decide(accepted()).await } };
        timeout(PROMPTLY * 2, told).await.expect("the application is answered");
        assert!(bench.queue.state().index.record(&id).is_some_and(|record| record.taken), "not sent again");
        put_back();
        bench.until(|queue, _| queue.state().index.is_empty()).await;
    }
    assert!(lock(&bench.fake.attempts).is_empty(), "nobody has tried them");
}

/// Makes the disk refuse to remove a message, by a folder in its place; gives what makes it good again.
fn refuse_removal(root: &Path, id: &QueueId) -> impl FnOnce() {
    let (path, tmp) = (root.join("queue").join(id.as_str()), root.join("tmp"));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("in the way")).unwrap();
    std::fs::remove_dir_all(&tmp).unwrap();
    std::fs::write(&tmp, "in the way").unwrap();
    move || {
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::remove_file(&tmp).unwrap();
        std::fs::create_dir(&tmp).unwrap();
    }
}

#[tokio::test]
async fn a_clock_set_back_by_hours_keeps_no_message_waiting() {
    // The program started five hours later than it is now by the system's clock.
    let bench = Bench::start_at(3600, clock::since_epoch() + Duration::from_secs(5 * 3600)).await;
    bench.keep(&["good@a.example"]).await;
    bench.keep(&["panics@a.example"]).await;
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    // One that is tried again.
    let poison = bench.keep(&["poison@a.example"]).await;
    bench.until(|_, fake| lock(&fake.attempts).get("poison").is_some_and(|&attempts| attempts >= 3)).await;
    // People see the system's time.
    let listed = bench.queue.list();
    assert_eq!(listed[0].id, poison);
    let off = listed[0].next.unwrap().duration_since(clock::timestamp()).abs();
    assert!(off < jiff::SignedDuration::from_secs(60), "{off}");
    assert!(bench.queue.figures().oldest_seconds < 60);
}

#[tokio::test]
async fn a_clock_set_forward_gives_no_message_up() {
    let bench = Bench::start_at(3600, clock::since_epoch() - Duration::from_secs(50 * 3600)).await;
    bench.keep(&["poison@a.example"]).await;
    bench.until(|_, fake| lock(&fake.attempts).get("poison").is_some_and(|&attempts| attempts >= 3)).await;
    assert_eq!((bench.queue.figures().messages, bench.queue.figures().dead_letters), (1, 0));
    assert!(bench.queue.figures().oldest_seconds < 60);
}

#[tokio::test]
async fn a_drain_does_not_end_while_the_operator_may_still_answer_with_a_lease() {
    let leased = ControlService {
        address: "localhost:1".into(),
        ca_pem: String::new(),
        token_file: "/nowhere".into(),
        leases: true,
    };
    let bench = Bench::with(|route| route.control = Some(leased)).await;
    let budget = Arc::clone(bench.queue.lanes.of(None).budget());
    let mut rounds = bench.queue.rounds();
    bench.keep(&["good@a.example"]).await;
    bench.queue.drain();
    bench.until(|_, _| budget.is_wanting()).await;
    bench.queue.nudge();
    rounds.mark_unchanged();
    rounds.changed().await.unwrap();
    // Sooner than the sidecar would look again by itself.
    let deadline = clock::now() + Duration::from_secs(5);
    assert!(!bench.queue.is_at_rest(deadline));
    let (_, sent) = budget.claim().unwrap();
    let lease = Lease { id: 1, messages: 1, recipients: 1, valid_millis: 60_000 };
    let allotment =
        Allotment { lease: Some(lease), again_millis: 60_000, cut_millis: 60_000, ..Allotment::default() };
    budget.answered(sent, &allotment).await;
    bench.queue.drained(deadline).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good"]);
}

#[tokio::test]
async fn what_is_left_is_named_by_its_newest_messages_and_without_what_was_sent_meanwhile() {
    let bench = Bench::with(|route| route.control = None).await;
    let tried =
        bench.queue.keep_tried(&envelope(&["good@a.example"]), &Body::new("", "x\r\n")).await.unwrap();
    bench.queue.name_left().await;
    assert_eq!(bench.queue.left(), ["<1@contoso.com>"]);
    tried.release().await;
    assert_eq!(bench.queue.left(), Vec::<String>::new());
}

#[tokio::test]
async fn a_person_who_retries_all_gets_past_a_refusal_in_memory() {
    let bench = Bench::built(|_| {}, clock::since_epoch(), Duration::from_secs(1)).await;
    let mut envelope = envelope(&["denied@a.example"]);
    envelope.reverse_path = ReversePath::Address(Address::parse("b@contoso.com").unwrap());
    let (body, id) = (Body::new("", "From: b@contoso.com\r\n\r\n"), envelope.id.clone());
    bench.queue.keep(envelope, &body).await.unwrap();
    // The refusal is remembered for five minutes: the second attempt ends in memory.
    let mut attempts = 0;
    while attempts < 2 {
        bench.until(|queue, _| queue.state().index.record(&id).is_some_and(|record| !record.taken)).await;
        attempts = bench.queue.show(&id).await.unwrap().kept.progress.attempts;
    }
    assert_eq!(lock(&bench.fake.attempts)["denied"], 1);
    let retried = |queue: &Queue| queue.state().index.is_empty() || queue.retry_all() > 1;
    bench.until(|queue, _| retried(queue)).await;
    assert_eq!(*lock(&bench.fake.delivered), ["denied"]);
}

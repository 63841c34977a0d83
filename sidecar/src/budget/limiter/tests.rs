//! Permits in order, written down before they are handed out, and restored after a restart.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mailroute_route::control::{Allotment, Lease};
use mailroute_route::file::ControlService;

use super::*;
use crate::{clock, config};
use mailroute_quota::Amount;

#[derive(Default)]
struct Seen {
    waits: AtomicUsize,
    throttles: AtomicUsize,
}

impl Observe for Seen {
    fn waits(&self, _: WaitReason) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn throttled(&self, _: Throttled) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
    }
}

fn route(messages: Option<u32>, recipients: Option<u32>) -> RouteFile {
    let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
    (route.limits.messages_per_minute, route.limits.recipients_per_day) = (messages, recipients);
    route
}

async fn limiter(directory: &Path, route: &RouteFile) -> Arc<RateLimiter> {
    let limiter = RateLimiter::new(directory, Timing::default(), Arc::new(Seen::default()));
    limiter.follow(route).await;
    limiter
}

fn soon() -> Instant {
    clock::now() + Duration::from_secs(600)
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_what_was_sent_and_what_may_have_been() {
    let folder = tempfile::tempdir().unwrap();
    let route = route(Some(30), Some(100));
    {
        let limiter = limiter(folder.path(), &route).await;
        limiter.take(10).await.unwrap().settle(Amount::message(10), true);
        limiter.take(20).await.unwrap().settle(Amount::NOTHING, false);
        // As if killed while it is sent: nothing runs any more, not even the drop.
        std::mem::forget(limiter.take(30).await.unwrap());
    }
    let limiter = limiter(folder.path(), &route).await;
    assert_eq!(limiter.usage(), Usage { messages_last_minute: 2, recipients_last_24h: 40 });
    assert_eq!(limiter.take(61).await.unwrap_err().why, WaitReason::Day);
    assert!(limiter.take(60).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_was_not_written_down_is_taken_as_the_full_amount() {
    let folder = tempfile::tempdir().unwrap();
    let route = route(None, Some(100));
    limiter(folder.path(), &route).await.take(20).await.unwrap().settle(Amount::NOTHING, false);
    assert_eq!(limiter(folder.path(), &route).await.usage().recipients_last_24h, 20);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_counts_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(Some(30), Some(100))).await;
    drop(limiter.take(7).await.unwrap());
    assert_eq!(limiter.usage(), Usage { messages_last_minute: 1, recipients_last_24h: 7 });
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(Some(2), None)).await;
    let order = Arc::new(Mutex::new(vec![]));
    let waiting = (0..5).map(|n| {
        let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
        async move {
            let permit = limiter.take_until(1, soon()).await.unwrap();
            order.lock().unwrap().push(n);
            permit.settle(Amount::message(1), true);
        }
    });
    let started = clock::now();
    futures::future::join_all(waiting).await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert!(started.elapsed() >= Duration::from_secs(120), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_given_back_wakes_the_first_who_waits() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(Some(1), None)).await;
    let permit = limiter.take(1).await.unwrap();
    let started = clock::now();
    let (taken, ()) =
        tokio::join!(limiter.take_until(1, soon()), async { permit.settle(Amount::NOTHING, false) });
    assert!(taken.is_ok());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_served_in_time_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(Some(1), None)).await;
    limiter.take(1).await.unwrap().settle(Amount::message(1), true);
    let started = clock::now();
    let denied = limiter.take_until(1, started + Duration::from_secs(10)).await.unwrap_err();
    assert_eq!(denied.why, WaitReason::Minute);
    assert!(started.elapsed() < Duration::from_secs(1));
}

fn leased() -> RouteFile {
    let control = ControlService {
        address: "mailroute.mailroute-system.svc:8443".into(),
        ca_pem: String::new(),
        token_file: "/nowhere".into(),
        leases: true,
    };
    RouteFile { control: Some(control), ..route(Some(30), None) }
}

#[tokio::test(start_paused = true)]
async fn without_the_operator_those_who_start_together_look_at_the_way_one_after_the_other() {
    let (folder, started, long) = (tempfile::tempdir().unwrap(), clock::now(), Duration::from_secs(300));
    let look = async |number: usize| {
        let limiter = limiter(&folder.path().join(number.to_string()), &leased()).await;
        limiter.admit(long).await.unwrap().settle(Amount::NOTHING, false);
        started.elapsed().as_secs()
    };
    let at = futures::future::join_all((0..100).map(look)).await;
    assert!(at.iter().all(|second| (15..=258).contains(second)), "{at:?}");
    let most = at.iter().map(|from| at.iter().filter(|it| (*from..from + 10).contains(it)).count()).max();
    assert!(most.unwrap() < 25, "of a hundred four are expected in ten seconds: {at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_in_time_serves_who_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &leased()).await;
    let nothing = Allotment { again_millis: 30_000, cut_millis: 60_000, ..Allotment::default() };
    let (_, sent) = limiter.claim().unwrap();
    limiter.answered(sent, &nothing).await;

    let operator = async {
        limiter.due().await;
        let (claim, sent) = limiter.claim().unwrap();
        assert_eq!(claim.messages, 1);
        let lease = Some(Lease { id: 1, messages: 1, recipients: 10, valid_millis: 10_000 });
        limiter.answered(sent, &Allotment { lease, ..nothing.clone() }).await;
    };
    let started = clock::now();
    let (permit, ()) = tokio::join!(limiter.take_until(1, started + Duration::from_secs(2)), operator);
    assert!(permit.is_ok());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());

    let started = clock::now();
    let denied = limiter.take_until(1, started + Duration::from_secs(2)).await.unwrap_err();
    assert_eq!((denied.why, started.elapsed().as_secs()), (WaitReason::Lease, 2));
}

#[tokio::test(start_paused = true)]
async fn other_limits_of_the_same_mailbox_keep_the_count_and_another_mailbox_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(Some(30), Some(100))).await;
    let under_way = limiter.take(1).await.unwrap();
    limiter.take(9).await.unwrap().settle(Amount::message(9), true);
    limiter.follow(&route(Some(10), Some(20))).await;
    assert_eq!(limiter.usage().recipients_last_24h, 9);

    let mut other = route(Some(30), Some(100));
    if let mailroute_route::file::Method::ClientSubmission(submission) = &mut other.method {
        submission.mailbox = "other@contoso.com".into();
    }
    limiter.follow(&other).await;
    under_way.settle(Amount::message(1), true);
    assert_eq!(limiter.usage().recipients_last_24h, 0, "it belongs to the mailbox before");
    limiter.follow(&route(Some(30), Some(100))).await;
    assert_eq!(limiter.usage().recipients_last_24h, 10);
}

#[tokio::test(start_paused = true)]
async fn without_limits_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let limiter = limiter(folder.path(), &route(None, None)).await;
    limiter.take(5).await.unwrap().settle(Amount::message(5), true);
    assert_eq!(limiter.usage(), Usage { messages_last_minute: 1, recipients_last_24h: 5 });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_written_does_not_hold_mail_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let limiter = limiter(&file, &route(Some(30), Some(100))).await;
    limiter.take(5).await.unwrap().settle(Amount::message(5), true);
    assert_eq!(limiter.usage().recipients_last_24h, 5);
}

#[tokio::test(start_paused = true)]
async fn the_journal_stays_short_however_much_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let route = route(Some(1_000_000), Some(1_000_000));
    let limiter = limiter(folder.path(), &route).await;
    for _ in 0..3000 {
        limiter.take(2).await.unwrap().settle(Amount::message(2), true);
    }
    let journal = Journal::path(folder.path(), "noreply@contoso.com");
    assert!(std::fs::metadata(&journal).unwrap().len() < 70_000);
    assert_eq!(limiter.usage().recipients_last_24h, 6000);
    let again = RateLimiter::new(folder.path(), Timing::default(), Arc::new(Seen::default()));
    again.follow(&route).await;
    assert_eq!(again.usage().recipients_last_24h, 6000);
}

#[tokio::test(start_paused = true)]
async fn after_too_many_connections_fewer_are_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut route = route(Some(300), None);
    route.limits.connections = 3;
    let limiter = limiter(folder.path(), &route).await;
    let before = [limiter.take(1).await.unwrap(), limiter.take(1).await.unwrap()];
    limiter.throttled(Throttled::Connections);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        limiter.take(1).await.unwrap_err().why,
        WaitReason::Restraint,
        "one is allowed, two are under way"
    );
    drop(before);
    let one = limiter.take(1).await.unwrap();
    let started = clock::now();
    let (next, ()) =
        tokio::join!(limiter.take_until(1, soon()), async { one.settle(Amount::message(1), true) });
    assert!(next.is_ok());
    assert!(started.elapsed() < Duration::from_secs(2), "the end of one lets the next go");
}

#[tokio::test(start_paused = true)]
async fn waits_and_throttles_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(Seen::default());
    let limiter = RateLimiter::new(folder.path(), Timing::default(), Arc::clone(&seen) as _);
    limiter.follow(&route(Some(30), None)).await;
    limiter.throttled(Throttled::Rate);
    assert_eq!(limiter.take(1).await.unwrap_err().why, WaitReason::Restraint);
    assert_eq!(seen.waits.load(Ordering::Relaxed), 1);
    assert_eq!(seen.throttles.load(Ordering::Relaxed), 1);
    assert!(limiter.view().share < 1.0);
}

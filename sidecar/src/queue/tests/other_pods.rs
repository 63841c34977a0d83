//! Messages that another pod tries, has, or may have.

use std::collections::HashSet;

use super::*;
use crate::queue::commands::QueueCommandError;
use crate::spool::{RecipientStatus, Shelf, StatusCounts, format};

fn hours(hours: u64) -> Timestamp {
    later(clock::timestamp(), Duration::from_secs(3600 * hours))
}

impl Bench {
    /// A message that a pod hands over while it tries it, for as long as it says.
    async fn taken_over(&self, to: &[&str], reserved_until: Option<Timestamp>) -> Entry {
        let entry = Entry::message(envelope(to), clock::timestamp());
        let progress = Progress { reserved_until, ..Progress::fresh(&entry) };
        self.queue.take_over(Shelf::Queue, &entry, progress, &Body::new("", "x\r\n")).await.unwrap();
        entry
    }

    /// Makes everything due, and waits until another message was sent.
    async fn drained_past(&self, entry: &Entry) {
        self.queue.drain();
        let before = lock(&self.fake.delivered).len();
        self.keep(&["other@a.example"]).await;
        self.until(|queue, fake| {
            lock(&fake.delivered).len() > before && queue.state().index.iter().count() == 1
        })
        .await;
        assert!(self.queue.state().index.record(&entry.envelope.id).is_some_and(|record| !record.taken));
    }
}

fn counts(waiting: usize, delivered: usize, failed: usize) -> StatusCounts {
    StatusCounts { waiting, delivered, failed }
}

#[tokio::test]
async fn what_another_pod_tries_is_left_to_it_and_not_for_longer_than_five_minutes() {
    let bench = Bench::start(3600).await;
    let entry = bench.taken_over(&["good@a.example"], Some(hours(1))).await;
    let id = &entry.envelope.id;
    bench.drained_past(&entry).await;
    assert_eq!(bench.queue.retry_all(), 0);
    bench.drained_past(&entry).await;
    let reserved = bench.queue.show(id).await.unwrap().kept.progress.reserved_until.unwrap();
    assert!(reserved <= later(clock::timestamp(), schedule::MAX_RESERVATION), "{reserved}");
    // A person may know better.
    bench.queue.retry(id).unwrap();
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(lock(&bench.fake.attempts)["good"], 1);
}

#[tokio::test]
async fn who_tells_what_came_of_its_attempt_leaves_the_message_to_this_queue() {
    let bench = Bench::start(3600).await;
    let entry = bench.taken_over(&["good@a.example"], Some(hours(1))).await;
    bench.drained_past(&entry).await;
    let failed = Progress { attempts: 1, reserved_until: Some(hours(1)), ..Progress::fresh(&entry) };
    let state = format::encode_progress(&failed).unwrap();
    let update = bench.queue.update(&entry.envelope.id, &state).await.unwrap();
    assert_eq!(update, Some(ProgressUpdate { before: counts(1, 0, 0), after: counts(1, 0, 0) }));
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert!(lock(&bench.fake.delivered).contains(&"good".to_owned()));
}

#[tokio::test]
async fn a_message_that_is_offered_again_is_joined_with_what_came_of_it_there() {
    let bench = Bench::start(3600).await;
    let entry = bench.taken_over(&["good@a.example", "good-2@a.example"], Some(hours(1))).await;
    let id = &entry.envelope.id;
    let mut offered = Progress::fresh(&entry);
    offered.statuses[0] = RecipientStatus::Delivered;
    let others = Progress { statuses: vec![RecipientStatus::Delivered; 3], ..offered.clone() };
    assert!(matches!(bench.queue.join(id, others).await, Err(UpdateError::Format(_))));
    let update = bench.queue.join(id, offered.clone()).await.unwrap();
    assert_eq!(update, Some(ProgressUpdate { before: counts(2, 0, 0), after: counts(1, 1, 0) }));
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good-2"], "not to the one that has it");
    assert!(
        matches!(bench.queue.join(id, offered).await, Err(UpdateError::Unknown)),
        "a sidecar remembers none"
    );
}

#[tokio::test]
async fn a_dead_letter_that_was_delivered_after_all_is_none() {
    let bench = Bench::start(3600).await;
    let entry = bench.taken_over(&["no@a.example", "no-2@a.example"], Some(hours(1))).await;
    let id = &entry.envelope.id;
    let told = |statuses: [RecipientStatus; 2]| {
        let progress = Progress { statuses: statuses.into(), ..Progress::fresh(&entry) };
        format::encode_progress(&progress).unwrap()
    };
    let refused = || {
        let verdict = Verdict::without_reply(DeliveryOutcome::RejectRecipient, "550 5.1.1 unknown");
        RecipientStatus::Failed(recipients::problem(&verdict, None, clock::timestamp()))
    };
    let update = async |statuses| bench.queue.update(id, &told(statuses)).await.unwrap();
    update([refused(), refused()]).await;
    assert_eq!(bench.queue.list_dead(), std::slice::from_ref(id));
    let first = update([RecipientStatus::Delivered, RecipientStatus::Waiting]).await;
    assert_eq!(first, Some(ProgressUpdate { before: counts(0, 0, 2), after: counts(0, 1, 1) }));
    assert_eq!(bench.queue.show(id).await.unwrap().kept.progress.counts(), counts(0, 1, 1));
    // What says less than is known changes nothing.
    let again = update([RecipientStatus::Waiting, RecipientStatus::Waiting]).await;
    assert_eq!(again, Some(ProgressUpdate { before: counts(0, 1, 1), after: counts(0, 1, 1) }));
    update([RecipientStatus::Waiting, RecipientStatus::Delivered]).await;
    assert!(bench.queue.list_dead().is_empty() && !bench.queue.knows(id));
    assert!(lock(&bench.fake.attempts).is_empty());
}

#[tokio::test]
async fn what_a_gateway_may_have_is_offered_again_and_not_tried_meanwhile() {
    let bench = Bench::start(3600).await;
    let until = later(clock::timestamp(), Duration::from_millis(200));
    let entry = bench.taken_over(&["good@a.example"], Some(until)).await;
    let nothing = HashSet::new();
    let leaving = bench.queue.leaving(&nothing).unwrap();
    leaving.put_off(Duration::from_secs(60));
    while clock::timestamp() <= until {
        bench.drained_past(&entry).await;
    }
    bench.drained_past(&entry).await;
    let leaving = bench.queue.leaving(&nothing).expect("it is offered again");
    assert_eq!(leaving.id(), Some(&entry.envelope.id));
    leaving.gone(Duration::ZERO).await;
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert!(!lock(&bench.fake.attempts).contains_key("good"));
}

#[tokio::test]
async fn a_second_lost_answer_does_not_shorten_the_time_that_a_gateway_has() {
    let bench = Bench::start(3600).await;
    let entry = bench.taken_over(&["good@a.example"], Some(hours(1))).await;
    let reserved = || bench.queue.state().index.record(&entry.envelope.id).unwrap().reserved_until;
    let before = reserved();
    bench.queue.leaving(&HashSet::new()).unwrap().put_off(Duration::ZERO);
    assert_eq!(reserved(), before);
    bench.queue.end_reservations(|_| true);
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good"]);
}

#[tokio::test]
async fn a_dead_letter_that_is_handed_over_is_neither_brought_back_nor_dropped_nor_handed_over_twice() {
    let bench = Bench::start(3600).await;
    let verdict = Verdict::without_reply(DeliveryOutcome::RejectRecipient, "550 5.1.1 unknown");
    let dead = async |to| {
        let entry = Entry::message(envelope(&[to]), clock::timestamp());
        let failed = RecipientStatus::Failed(recipients::problem(&verdict, None, clock::timestamp()));
        let progress = Progress { statuses: vec![failed], ..Progress::fresh(&entry) };
        bench.queue.take_over(Shelf::Dead, &entry, progress, &Body::new("", "x\r\n")).await.unwrap();
        entry.envelope.id
    };
    let id = dead("good@a.example").await;
    let leaving = bench.queue.leaving_dead(&id).unwrap();
    assert!(bench.queue.leaving_dead(&id).is_none());
    assert!(matches!(bench.queue.retry_dead(&id).await, Err(QueueCommandError::Leaving(_))));
    assert!(matches!(bench.queue.discard(&id).await, Err(QueueCommandError::Leaving(_))));
    drop(leaving);
    bench.queue.retry_dead(&id).await.unwrap();
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(*lock(&bench.fake.delivered), ["good"]);
    let id = dead("good-2@a.example").await;
    bench.queue.leaving_dead(&id).unwrap().gone().await;
    assert!(bench.queue.list_dead().is_empty() && !bench.queue.knows(&id));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_gateway_what_is_under_way_ends_and_nothing_else_begins() {
    let bench = Bench::start(3600).await;
    let hanging = bench.keep(&["hangs@a.example"]).await;
    while !lock(&bench.fake.attempts).contains_key("hangs") {
        tokio::task::yield_now().await;
    }
    let began = clock::now();
    bench.queue.finished(began + Duration::from_secs(5)).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5), "not for ever");
    let waiting = bench.keep(&["good@a.example"]).await;
    bench.queue.cut_off();
    bench.queue.finished(clock::now() + Duration::from_secs(5)).await;
    let state = bench.queue.state();
    assert!([hanging, waiting].iter().all(|id| state.index.record(id).is_some_and(|record| !record.taken)));
    assert!(!lock(&bench.fake.attempts).contains_key("good"));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_cut_off_and_what_is_delivered_is_left_to_the_disk() {
    let bench = Bench::start(3600).await;
    let hanging = bench.keep(&["hangs@a.example"]).await;
    // No round of the worker follows the start of an attempt.
    while !lock(&bench.fake.attempts).contains_key("hangs") {
        tokio::task::yield_now().await;
    }
    let delivered = envelope(&["good@a.example"]);
    let tried = bench.queue.keep_tried(&delivered, &Body::new("", "x\r\n")).await.unwrap();
    let put_back = refuse_removal(bench.directory.path(), &delivered.id);
    tried.decide(accepted()).await;
    bench.queue.cut_off();
    bench.until(|queue, _| queue.state().index.record(&hanging).is_some_and(|record| !record.taken)).await;
    let leaving = bench.queue.leaving(&HashSet::new()).expect("what was cut off may be handed over");
    assert_eq!(leaving.id(), Some(&hanging));
    let others = [hanging].into();
    assert!(bench.queue.leaving(&others).is_none(), "what is delivered is not");
    drop(leaving);
    put_back();
    bench.until(|queue, _| queue.state().index.is_empty()).await;
    assert_eq!(*lock(&bench.fake.delivered), ["hangs"]);
}

//! What waits, by due time: a small record for each message; everything else about it is on disk.
//!
//! Pure: time is passed in, by a clock that does not step (see [`super::schedule::Ahead`]). Knows neither what a message is nor what comes of it.
//!
//! Invariant: a message is in the order of due times exactly when nobody has taken it, so nobody can take it twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use jiff::Timestamp;

use super::schedule::{later, until};
use crate::message::envelope::QueueId;

/// Every message that waits or is being tried.
#[derive(Debug, Default)]
pub struct Index {
    records: BTreeMap<QueueId, QueueRecord>,
    /// By mailbox, so that one which is full keeps nobody else's mail waiting.
    due: BTreeMap<MailboxNumber, BTreeSet<(Timestamp, QueueId)>>,
    /// Of which mailboxes anything may be held, so that nobody looks for nothing.
    holds: BTreeSet<MailboxNumber>,
}

/// A mailbox among those that messages name; 0 for messages that name none.
pub type MailboxNumber = u16;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// When to try it next.
    pub due: Timestamp,
    /// Since when it is tried: its acceptance, or when a person asked for it again.
    pub since: Timestamp,
    /// Recipients that wait, for the budget.
    pub recipients: u32,
    /// Another pod tries it until then: only a person who asks for this very message makes it due before.
    pub reserved_until: Option<Timestamp>,
    /// It waits for the route, not for its own time.
    pub held: bool,
    /// How many messages had got through when the route stood in its way last.
    pub stopped_after: Option<u64>,
    /// A person asked for the next attempt.
    pub by_command: bool,
    /// Somebody has taken it.
    pub taken: bool,
    /// The mailbox that sends it.
    pub mailbox: MailboxNumber,
}

impl QueueRecord {
    /// A message that may be tried from `due` on.
    pub const fn new(since: Timestamp, due: Timestamp, recipients: u32) -> Self {
        Self {
            due,
            since,
            recipients,
            reserved_until: None,
            held: false,
            stopped_after: None,
            by_command: false,
            taken: false,
            mailbox: 0,
        }
    }

    /// The same, left to another pod until `until`.
    #[must_use]
    pub fn reserved(self, until: Option<Timestamp>) -> Self {
        let due = until.map_or(self.due, |until| until.max(self.due));
        Self { due, reserved_until: until, ..self }
    }

    /// Makes it due: it is left to no other pod any more.
    pub fn end_reservation(&mut self, now: Timestamp) {
        (self.due, self.reserved_until) = (self.since.min(now), None);
    }

    /// Whether another pod tries it.
    pub fn is_reserved(&self, now: Timestamp) -> bool {
        self.reserved_until.is_some_and(|until| until > now)
    }
}

impl Index {
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing waits and nothing is being tried.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds a message, or replaces what is known of it.
    pub fn insert(&mut self, id: QueueId, record: QueueRecord) {
        self.remove(&id);
        if !record.taken {
            self.enter(&id, &record);
        }
        if record.held {
            self.holds.insert(record.mailbox);
        }
        self.records.insert(id, record);
    }

    /// Forgets a message.
    pub fn remove(&mut self, id: &QueueId) -> Option<QueueRecord> {
        let record = self.records.remove(id)?;
        self.leave(id, &record);
        Some(record)
    }

    fn enter(&mut self, id: &QueueId, record: &QueueRecord) {
        self.due.entry(record.mailbox).or_default().insert((record.due, id.clone()));
    }

    fn leave(&mut self, id: &QueueId, record: &QueueRecord) {
        if let Some(due) = self.due.get_mut(&record.mailbox) {
            due.remove(&(record.due, id.clone()));
            if due.is_empty() {
                self.due.remove(&record.mailbox);
            }
        }
    }

    /// What is known of a message.
    pub fn record(&self, id: &QueueId) -> Option<&QueueRecord> {
        self.records.get(id)
    }

    /// The message that is due first among those of these mailboxes that nobody has taken.
    pub fn first(&self, of: impl Fn(MailboxNumber) -> bool) -> Option<(&QueueId, &QueueRecord)> {
        let firsts = self.due.iter().filter(|(mailbox, _)| of(**mailbox)).filter_map(|(_, due)| due.first());
        let (_, id) = firsts.min()?;
        Some((id, self.records.get(id)?))
    }

    /// Takes a message, so that nobody else does.
    pub fn take(&mut self, id: &QueueId) -> Option<QueueRecord> {
        let record = self.records.get_mut(id).filter(|record| !record.taken)?;
        record.taken = true;
        let record = *record;
        self.leave(id, &record);
        Some(record)
    }

    /// Gives a message back that was taken, as `change` says. One that was removed meanwhile stays so.
    pub fn put_back(&mut self, id: &QueueId, change: impl FnOnce(&mut QueueRecord)) {
        self.change(id, |record| {
            change(record);
            (record.taken, record.by_command) = (false, false);
        });
    }

    /// Makes a waiting message due at `now`, as a person asks. Says whether there was one to make due.
    pub fn make_due(&mut self, id: &QueueId, now: Timestamp) -> bool {
        let waiting = self.records.get(id).is_some_and(|record| !record.taken);
        if waiting {
            self.change(id, |record| (record.due, record.by_command) = (now, true));
        }
        waiting
    }

    /// Makes every message of these mailboxes due that waits for the route, which no longer holds any of them. Each has the place again that it
    /// had.
    pub fn release(&mut self, now: Timestamp, of: impl Fn(MailboxNumber) -> bool) {
        let before = self.holds.len();
        self.holds.retain(|mailbox| !of(*mailbox));
        if self.holds.len() < before {
            self.make_due_where(now, |record| record.held && of(record.mailbox), false);
        }
    }

    /// Makes every message due, those that came first before the others, but not what another pod tries.
    pub fn make_all_due(&mut self, now: Timestamp) {
        self.make_due_where(now, |_| true, false);
    }

    /// The same, as a person asks: also for those that are due already.
    pub fn make_all_due_by_command(&mut self, now: Timestamp) {
        self.make_due_where(now, |_| true, true);
    }

    /// Makes every message of `which` due that was left to another pod.
    pub fn end_reservations(&mut self, now: Timestamp, which: impl Fn(&QueueId) -> bool) {
        self.change_where(
            |id, record| !record.taken && record.is_reserved(now) && which(id),
            |record| record.end_reservation(now),
        );
    }

    fn make_due_where(&mut self, now: Timestamp, which: impl Fn(&QueueRecord) -> bool, by_command: bool) {
        self.change_where(
            |_, record| !record.taken && !record.is_reserved(now) && which(record),
            |record| {
                if record.due > now {
                    record.due = record.since.min(now);
                }
                record.held = false;
                record.by_command |= by_command;
            },
        );
    }

    fn change_where(
        &mut self,
        which: impl Fn(&QueueId, &QueueRecord) -> bool,
        change: impl Fn(&mut QueueRecord),
    ) {
        let chosen = self.records.iter().filter(|(id, record)| which(id, record));
        let ids: Vec<QueueId> = chosen.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.change(&id, &change);
        }
    }

    fn change(&mut self, id: &QueueId, change: impl FnOnce(&mut QueueRecord)) {
        let Some(before) = self.records.get(id).copied() else { return };
        self.leave(id, &before);
        let mut record = before;
        change(&mut record);
        if record.held {
            self.holds.insert(record.mailbox);
        }
        if !record.taken {
            self.enter(id, &record);
        }
        self.records.insert(id.clone(), record);
    }

    /// The messages of this mailbox name none from now on.
    pub fn forget_mailbox(&mut self, mailbox: MailboxNumber) {
        self.change_where(|_, record| record.mailbox == mailbox, |record| record.mailbox = 0);
        self.holds.remove(&mailbox);
    }

    /// Some of those of these mailboxes that nobody, here or elsewhere, is trying and that were tried for `max_age`.
    pub fn expired(
        &self,
        now: Timestamp,
        max_age: Duration,
        most: usize,
        of: impl Fn(MailboxNumber) -> bool,
    ) -> Vec<QueueId> {
        let is_free = |record: &QueueRecord| !record.taken && !record.is_reserved(now) && of(record.mailbox);
        let over = |record: &QueueRecord| is_free(record) && later(record.since, max_age) <= now;
        self.records.iter().filter(|(_, record)| over(record)).map(|(id, _)| id.clone()).take(most).collect()
    }

    /// Age of the message that has been tried for longest.
    pub fn oldest(&self, now: Timestamp) -> Duration {
        let since = self.records.values().map(|record| record.since).min();
        since.map_or(Duration::ZERO, |since| until(now, since))
    }

    /// Every message, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&QueueId, &QueueRecord)> {
        self.records.iter()
    }

    /// Every message that came behind `after`, in the order in which they came.
    pub fn behind(&self, after: Option<&QueueId>) -> impl Iterator<Item = (&QueueId, &QueueRecord)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records.range::<QueueId, _>((from, Bound::Unbounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn id(second: i64) -> QueueId {
        QueueId::new(at(second), 7)
    }

    fn filled(due: &[i64]) -> Index {
        let mut index = Index::default();
        for (n, due) in (0..).zip(due) {
            index.insert(id(n), QueueRecord::new(at(n), at(*due), 1));
        }
        index
    }

    fn order(mut index: Index) -> Vec<QueueId> {
        let mut order = Vec::new();
        while let Some(first) = index.first(|_| true).map(|(id, _)| id.clone()) {
            index.take(&first);
            order.push(first);
        }
        order
    }

    #[test]
    fn what_is_due_first_is_first_and_then_what_came_first() {
        assert_eq!(order(filled(&[30, 10, 20, 10])), [id(1), id(3), id(2), id(0)]);
    }

    #[test]
    fn nobody_takes_a_message_twice() {
        let mut index = filled(&[1]);
        assert!(
            index.take(&id(0)).is_some() && index.take(&id(0)).is_none() && index.first(|_| true).is_none()
        );
        assert!(!index.make_due(&id(0), at(0)), "what is being tried cannot be hurried");
        index.put_back(&id(0), |record| record.due = at(5));
        assert_eq!(index.first(|_| true).unwrap().1.due, at(5));
    }

    #[test]
    fn a_message_removed_while_taken_does_not_come_back() {
        let mut index = filled(&[1]);
        index.take(&id(0));
        index.remove(&id(0));
        index.put_back(&id(0), |record| record.due = at(5));
        assert!(index.is_empty() && index.first(|_| true).is_none());
    }

    #[test]
    fn a_route_that_works_again_releases_what_it_held_in_its_old_order_and_no_more() {
        let mut index = filled(&[0, 1, 2, 900]);
        for n in [1, 0] {
            index.take(&id(n));
            index.put_back(&id(n), |record| (record.due, record.held) = (at(950), true));
        }
        index.release(at(100), |_| true);
        assert_eq!(order(index), [id(0), id(1), id(2), id(3)]);
        let mut index = filled(&[900]);
        index.release(at(100), |_| true);
        assert_eq!(index.first(|_| true).unwrap().1.due, at(900));
    }

    #[test]
    fn a_route_that_works_again_holds_nothing_whether_it_is_due_or_not() {
        let mut index = filled(&[0, 1]);
        for (n, due) in [(0, 50), (1, 950)] {
            index.take(&id(n));
            index.put_back(&id(n), |record| (record.due, record.held) = (at(due), true));
        }
        index.release(at(100), |_| true);
        assert!(index.iter().all(|(_, record)| !record.held));
        let due: Vec<_> = index.iter().map(|(_, record)| record.due).collect();
        assert_eq!(due, [at(50), at(1)], "what is due already keeps its place");
    }

    #[test]
    fn a_person_who_asks_for_all_asks_for_those_that_are_due_already_too() {
        let by_command =
            |index: &Index| index.iter().map(|(_, record)| record.by_command).collect::<Vec<_>>();
        let mut index = filled(&[50, 900, 0]);
        index.take(&id(2));
        index.make_all_due(at(100));
        assert_eq!(by_command(&index), [false, false, false], "a drain is no person");
        index.make_all_due_by_command(at(100));
        assert_eq!(by_command(&index), [true, true, false], "not what is being tried");
        assert_eq!(order(index), [id(1), id(0)]);
    }

    #[test]
    fn what_another_pod_tries_is_made_due_by_nothing_but_a_command_for_it() {
        let mut index = filled(&[900, 900]);
        index.insert(id(0), QueueRecord::new(at(0), at(10), 1).reserved(Some(at(300))));
        index.make_all_due(at(100));
        index.make_all_due_by_command(at(100));
        let dues = |index: &Index| index.iter().map(|(_, record)| record.due).collect::<Vec<_>>();
        assert_eq!(dues(&index), [at(300), at(1)]);
        assert_eq!(index.expired(at(299), Duration::ZERO, 10, |_| true), [id(1)], "nor is it given up");
        assert!(index.make_due(&id(0), at(100)));
        assert_eq!(index.first(|_| true).unwrap().0, &id(1));
        assert_eq!(dues(&index), [at(100), at(1)]);
        index.insert(id(0), QueueRecord::new(at(0), at(900), 1).reserved(Some(at(300))));
        index.make_all_due(at(300));
        assert_eq!(dues(&index), [at(0), at(1)], "from then on it is like any other");
    }

    #[test]
    fn what_was_left_to_another_pod_is_due_when_that_is_over() {
        let mut index = filled(&[900, 900, 900, 900]);
        for n in [0, 1, 3] {
            index.insert(id(n), QueueRecord::new(at(n), at(10), 1).reserved(Some(at(300))));
        }
        index.take(&id(0));
        index.end_reservations(at(100), |id| *id != self::id(3));
        assert_eq!(index.record(&id(1)).unwrap().due, at(1));
        assert!(!index.record(&id(1)).unwrap().is_reserved(at(100)));
        assert_eq!(index.record(&id(2)).unwrap().due, at(900), "not what waits for its own time");
        for n in [0, 3] {
            assert!(
                index.record(&id(n)).unwrap().is_reserved(at(100)),
                "{n}: taken by somebody, or not asked for"
            );
        }
    }

    #[test]
    fn the_end_of_a_message_is_counted_from_its_beginning() {
        let mut index = filled(&[100, 100, 100]);
        index.take(&id(0));
        assert_eq!(
            index.expired(at(61), Duration::from_secs(60), 10, |_| true),
            [id(1)],
            "not what is being tried"
        );
        assert_eq!(index.expired(at(100), Duration::from_secs(60), 1, |_| true).len(), 1);
        assert_eq!(index.oldest(at(100)), Duration::from_secs(100));
    }

    #[test]
    fn each_mailbox_has_an_order_of_its_own() {
        let mut index = filled(&[3, 1, 2]);
        let record = QueueRecord { mailbox: 1, held: true, ..QueueRecord::new(at(0), at(9), 1) };
        index.insert(id(8), record);
        index.insert(id(9), QueueRecord { mailbox: 2, ..record });
        assert_eq!(index.first(|_| true).map(|(id, _)| id.clone()), Some(id(1)));
        assert_eq!(index.first(|mailbox| mailbox > 0).map(|(id, _)| id.clone()), Some(id(8)));
        index.release(at(5), |mailbox| mailbox == 2);
        assert_eq!(index.first(|mailbox| mailbox > 0).map(|(id, _)| id.clone()), Some(id(9)));
        assert!(index.record(&id(8)).is_some_and(|record| record.held));
        assert_eq!(index.expired(at(100), Duration::ZERO, 10, |mailbox| mailbox == 1), [id(8)]);
        index.take(&id(8));
        index.forget_mailbox(1);
        assert!(index.due.values().flatten().all(|(_, waiting)| *waiting != id(8)), "it is taken still");
        index.put_back(&id(8), |record| record.due = at(0));
        assert_eq!(index.first(|mailbox| mailbox == 0).map(|(id, _)| id.clone()), Some(id(8)));
        assert!(index.first(|mailbox| mailbox == 1).is_none());
    }
}

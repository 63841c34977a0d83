//! What was sent from here, over the windows in which Microsoft counts: messages in a minute, recipients in a day.
//!
//! Pure, time is passed in; memory is bounded whatever is sent.

use std::collections::VecDeque;
use std::time::Duration;

use mailroute_route::control::Usage;

use crate::clock::Instant;

/// A sum over a sliding window, kept in slots.
#[derive(Debug)]
struct Window {
    slot: Duration,
    slots: usize,
    /// Start of a slot and its count, oldest first.
    counts: VecDeque<(Instant, u64)>,
}

impl Window {
    const fn new(slot: Duration, slots: usize) -> Self {
        Self { slot, slots, counts: VecDeque::new() }
    }

    fn add(&mut self, count: u64, now: Instant) {
        self.expire(now);
        match self.counts.back_mut() {
            Some((start, sum)) if now < *start + self.slot => *sum += count,
            _ => self.counts.push_back((now, count)),
        }
    }

    fn sum(&mut self, now: Instant) -> u64 {
        self.expire(now);
        self.counts.iter().map(|(_, count)| count).sum()
    }

    fn expire(&mut self, now: Instant) {
        let length = self.slot * u32::try_from(self.slots).unwrap_or(u32::MAX);
        while self.counts.front().is_some_and(|(start, _)| now >= *start + length) {
            self.counts.pop_front();
        }
    }
}

/// Counts since the start of the process.
#[derive(Debug)]
pub struct Counter {
    messages: Window,
    recipients: Window,
    last: Option<Instant>,
}

impl Default for Counter {
    fn default() -> Self {
        let (second, ten_minutes) = (Duration::from_secs(1), Duration::from_secs(600));
        Self { messages: Window::new(second, 60), recipients: Window::new(ten_minutes, 144), last: None }
    }
}

impl Counter {
    /// One message was accepted upstream for so many recipients.
    pub fn delivered(&mut self, recipients: u64, now: Instant) {
        self.messages.add(1, now);
        self.recipients.add(recipients, now);
        self.last = Some(now);
    }

    /// When a message was accepted upstream last.
    pub const fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The sums at `now`.
    pub fn usage(&mut self, now: Instant) -> Usage {
        Usage { messages_last_minute: self.messages.sum(now), recipients_last_24h: self.recipients.sum(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn messages_are_counted_for_a_minute_and_recipients_for_a_day() {
        let (mut counter, start) = (Counter::default(), clock::now());
        counter.delivered(3, start);
        counter.delivered(2, start + Duration::from_secs(30));
        let at = |counter: &mut Counter, seconds| counter.usage(start + Duration::from_secs(seconds));
        assert_eq!(at(&mut counter, 59), Usage { messages_last_minute: 2, recipients_last_24h: 5 });
        assert_eq!(at(&mut counter, 60), Usage { messages_last_minute: 1, recipients_last_24h: 5 });
        assert_eq!(at(&mut counter, 86_399), Usage { messages_last_minute: 0, recipients_last_24h: 5 });
        assert_eq!(at(&mut counter, 87_000), Usage::default());
        assert_eq!(counter.last(), Some(start + Duration::from_secs(30)));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut counter, start) = (Counter::default(), clock::now());
        for n in 0..100_000 {
            counter.delivered(1, start + Duration::from_millis(50 * n));
        }
        assert!(counter.messages.counts.len() <= 61 && counter.recipients.counts.len() <= 145);
    }
}

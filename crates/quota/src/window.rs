//! A sum over a sliding window, kept in slots.
//!
//! Memory is bounded whatever is counted, and rounding is always to the safe side: what was counted at `t` leaves at
//! `t` + length + one to two slots, never earlier. The spare slot allows for the difference to Microsoft's clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Amount;
use crate::timing::Timing;

/// Slots of a day that bounds what Microsoft counts: ten minutes each.
pub(crate) const DAY_SLOTS: u32 = 144;

/// Slots of an hour: a minute each, as long as a message that was taken may be on its way in a time slot.
pub(crate) const HOUR_SLOTS: u32 = 60;

/// What is counted of a mailbox: messages of the minute and of the hour, recipients of the day.
#[derive(Clone, Debug)]
pub struct UsageWindows {
    /// Messages of the minute.
    pub minute: Window,
    /// Messages of the hour.
    pub hour: Window,
    /// Recipients of the day.
    pub day: Window,
}

impl UsageWindows {
    /// Empty windows with this many slots in the minute and the day.
    pub fn new(timing: Timing, minute_slots: u32, day_slots: u32) -> Self {
        Self {
            minute: Window::new(timing.minute, minute_slots),
            hour: Window::new(timing.hour, HOUR_SLOTS),
            day: Window::new(timing.day, day_slots),
        }
    }

    /// Counts in all windows at `at`.
    pub fn add(&mut self, at: Duration, amount: Amount) {
        self.minute.add(at, amount.messages);
        self.add_beyond_minute(at, amount);
    }

    /// Counts in the longer windows alone.
    pub fn add_beyond_minute(&mut self, at: Duration, amount: Amount) {
        self.hour.add(at, amount.messages);
        self.day.add(at, amount.recipients);
    }

    /// Removes what has left the windows, so that old sums do not pile up. Returns whether nothing is left.
    pub fn expire(&mut self, now: Duration) -> bool {
        self.minute.sum(now) + self.hour.sum(now) + self.day.sum(now) == 0
    }
}

/// A sliding window. Times are since an epoch that the caller chooses and that stays the same.
#[derive(Clone, Debug)]
pub struct Window {
    length: Duration,
    slot: Duration,
    /// Number of a slot and its sum, oldest first, none empty.
    sums: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    /// An empty window of `length` in `slots` slots.
    pub fn new(length: Duration, slots: u32) -> Self {
        let slot = (length / slots.max(1)).max(Duration::from_nanos(1));
        Self { length, slot, sums: VecDeque::new(), total: 0 }
    }

    /// Counts at `at`, which may be a little in the past.
    pub fn add(&mut self, at: Duration, count: u64) {
        self.add_to(self.number(at), count);
    }

    /// Counts at `at`, for a clock that should not run backwards. A time before the newest slot counts in that one.
    pub fn add_forward(&mut self, at: Duration, count: u64) {
        let newest = self.sums.back().map_or(0, |(newest, _)| *newest);
        self.add_to(self.number(at).max(newest), count);
    }

    /// The sum at `now`.
    pub fn sum(&mut self, now: Duration) -> u64 {
        while let Some(&(number, sum)) = self.sums.front()
            && self.leaves(number) <= now
        {
            self.total -= sum;
            self.sums.pop_front();
        }
        self.total
    }

    /// Whether nothing was counted since the window was last found empty.
    pub const fn is_untouched(&self) -> bool {
        self.total == 0
    }

    /// When this much of what is counted now will have left. Nothing if less than that is counted.
    pub fn falls_by(&self, count: u64) -> Option<Duration> {
        let mut left = 0;
        self.sums.iter().find_map(|&(number, sum)| {
            left += sum;
            (left >= count).then(|| self.leaves(number))
        })
    }

    /// What is counted, with the last millisecond of each slot: counted again at those times, it leaves when it would have, also when
    /// they are stored as milliseconds, rounded up.
    pub fn counted(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let last = (self.slot / 2).min(Duration::from_millis(1));
        self.sums.iter().map(move |&(number, sum)| (self.start(number + 1) - last, sum))
    }

    fn add_to(&mut self, number: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.total += count;
        let place = self.sums.partition_point(|(slot, _)| *slot < number);
        match self.sums.get_mut(place) {
            Some((slot, sum)) if *slot == number => *sum += count,
            _ => self.sums.insert(place, (number, count)),
        }
    }

    fn number(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX - 2)
    }

    fn start(&self, number: u64) -> Duration {
        let nanos = u128::from(number) * self.slot.as_nanos();
        Duration::from_nanos_u128(nanos)
    }

    fn leaves(&self, number: u64) -> Duration {
        self.start(number + 2) + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_counted_leaves_after_the_length_and_at_most_two_slots() {
        let mut window = Window::new(60 * SECOND, 60);
        window.add(10 * SECOND + SECOND / 2, 3);
        assert_eq!(window.sum(70 * SECOND + SECOND / 2), 3);
        assert_eq!(window.falls_by(3), Some(72 * SECOND));
        assert_eq!(window.sum(72 * SECOND - Duration::from_nanos(1)), 3);
        assert_eq!(window.sum(72 * SECOND), 0);
    }

    #[test]
    fn what_is_reported_late_is_counted_where_it_belongs() {
        let mut window = Window::new(60 * SECOND, 60);
        window.add(20 * SECOND, 1);
        window.add(10 * SECOND, 2);
        window.add(10 * SECOND, 2);
        assert_eq!(window.falls_by(4), Some(72 * SECOND));
        assert_eq!(window.sum(75 * SECOND), 1);
    }

    #[test]
    fn the_moment_of_a_fall_is_that_of_the_last_slot_needed() {
        let mut window = Window::new(60 * SECOND, 60);
        for second in 0..5 {
            window.add(second * SECOND, 2);
        }
        assert_eq!(window.falls_by(1), Some(62 * SECOND));
        assert_eq!(window.falls_by(4), Some(63 * SECOND));
        assert_eq!(window.falls_by(10), Some(66 * SECOND));
        assert_eq!(window.falls_by(11), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::new(60 * SECOND, 512);
        for n in 0..100_000 {
            let now = Duration::from_millis(3 * n);
            window.add(now, 1);
            window.sum(now);
        }
        assert!(window.sums.len() <= 515, "{}", window.sums.len());
    }

    #[test]
    fn what_was_counted_counts_the_same_again() {
        let mut window = Window::new(60 * SECOND, 512);
        for n in 0..200 {
            window.add(Duration::from_millis(1_790_000_000_000 + 77 * n), n);
        }
        let mut again = Window::new(60 * SECOND, 512);
        window.counted().for_each(|(at, count)| again.add(at, count));
        assert_eq!(again.sums, window.sums);
    }

    #[test]
    fn a_time_that_runs_backwards_is_taken_as_the_newest() {
        let mut window = Window::new(60 * SECOND, 60);
        window.add_forward(100 * SECOND, 1);
        window.add_forward(10 * SECOND, 1);
        assert_eq!(window.sum(150 * SECOND), 2);
    }
}

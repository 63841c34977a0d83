//! A sum over a sliding window, kept in slots; every rounding is to the safe side.
//!
//! What was counted at `t` leaves at `t` + length + one to two slots, never earlier. Memory is bounded by the slots.

use std::collections::VecDeque;
use std::time::Duration;

/// A sliding window. Times are since an epoch that stays the same.
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
        if count == 0 {
            return;
        }
        self.total += count;
        let number = u64::try_from(at.as_nanos() / self.slot.as_nanos()).unwrap_or(u64::MAX - 2);
        let place = self.sums.partition_point(|(slot, _)| *slot < number);
        match self.sums.get_mut(place) {
            Some((slot, sum)) if *slot == number => *sum += count,
            _ => self.sums.insert(place, (number, count)),
        }
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

    /// When so much of what is counted now will have left. Nothing when less than that is counted.
    pub fn falls_by(&self, count: u64) -> Option<Duration> {
        let mut left = 0;
        self.sums.iter().find_map(|&(number, sum)| {
            left += sum;
            (left >= count).then(|| self.leaves(number))
        })
    }

    /// What is counted, with the last moment of each slot.
    pub fn counted(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.sums.iter().map(|&(number, sum)| (self.start(number + 1) - Duration::from_nanos(1), sum))
    }

    fn start(&self, number: u64) -> Duration {
        Duration::from_nanos_u128(u128::from(number) * self.slot.as_nanos())
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
        assert_eq!(window.sum(72 * SECOND), 0);
    }

    #[test]
    fn what_is_told_late_is_counted_where_it_belongs() {
        let mut window = Window::new(60 * SECOND, 60);
        window.add(20 * SECOND, 1);
        window.add(10 * SECOND, 2);
        window.add(10 * SECOND, 2);
        assert_eq!(window.falls_by(4), Some(72 * SECOND));
        assert_eq!(window.sum(75 * SECOND), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::new(60 * SECOND, 240);
        for n in 0..50_000 {
            let now = Duration::from_millis(7 * n);
            window.add(now, 1);
            window.sum(now);
        }
        assert!(window.sums.len() <= 243, "{}", window.sums.len());
    }
}

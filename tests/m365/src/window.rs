//! A window of time that slides, and how much was used in it.
//!
//! Pure: time is passed in. Windows do not start at the full minute.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// Longest window, about 29 000 years: far from the end of representable time.
const LONGEST: i64 = i64::MAX / 10_000;

/// What was used, and when.
#[derive(Debug, Default)]
pub struct Window {
    entries: VecDeque<(Timestamp, u64)>,
    sum: u64,
    peak: u64,
}

impl Window {
    /// Uses `amount` now, unless that makes more than `most` within so many milliseconds. With `most` 0 nothing is
    /// limited, and nothing counted.
    ///
    /// # Errors
    /// There is no room, and nothing was used; the time at which the oldest use leaves the window.
    pub fn spend(
        &mut self,
        amount: u64,
        most: u64,
        milliseconds: u64,
        now: Timestamp,
    ) -> Result<(), Timestamp> {
        if most == 0 {
            return Ok(());
        }
        let length = window(milliseconds);
        while let Some(&(at, spent)) = self.entries.front()
            && at + length <= now
        {
            self.sum -= spent;
            self.entries.pop_front();
        }
        let wanted = self.sum.saturating_add(amount);
        self.peak = self.peak.max(wanted);
        if wanted > most {
            return Err(self.entries.front().map_or(now, |&(oldest, _)| oldest + length));
        }
        self.sum = wanted;
        self.entries.push_back((now, amount));
        Ok(())
    }

    /// The most that anybody wanted to have used in the window, whether it fitted or not.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Forgets the peak; what was used stays.
    pub fn forget_peak(&mut self) {
        self.peak = 0;
    }

    /// Entries that are held in memory.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.entries.len()
    }
}

fn window(milliseconds: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(LONGEST).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn what_leaves_the_window_makes_room() {
        let mut window = Window::default();
        assert_eq!(window.spend(3, 5, 1000, at(0)), Ok(()));
        assert_eq!(window.spend(2, 5, 1000, at(400)), Ok(()));
        assert_eq!(window.spend(1, 5, 1000, at(999)), Err(at(1000)));
        assert_eq!(window.spend(3, 5, 1000, at(1000)), Ok(()));
        assert_eq!(window.peak(), 6);
    }

    #[test]
    fn no_limit_counts_nothing() {
        let mut window = Window::default();
        assert!((0..9).all(|_| window.spend(u64::MAX, 0, 1000, at(0)).is_ok()));
        assert_eq!((window.held(), window.peak()), (0, 0));
    }
}

//! Who may be sending without ever having been answered, and how much is kept free for them.
//!
//! A stranger's slice follows from its pod's uid, so what strangers may send around any moment is known, without a word from them.
//! Refuses to know who counts as one. Somebody who is not called a stranger any more is taken for one a while longer: what was
//! sent last has to leave the window.

use std::collections::BTreeMap;
use std::time::Duration;

use mailroute_limits::strangers::SLICES;

use super::Holder;

#[derive(Clone, Copy, Debug)]
struct Stranger {
    slice: u32,
    until: Duration,
    heard: bool,
}

/// What is kept free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Messages.
    pub messages: u64,
    /// Connections.
    pub connections: u64,
}

/// The strangers of one namespace of a mailbox.
#[derive(Clone, Debug, Default)]
pub struct Strangers {
    known: BTreeMap<Holder, Stranger>,
    /// How many in each slice.
    slices: [u64; SLICES as usize],
}

impl Strangers {
    /// Somebody may be one, and counts as one until then at least.
    pub fn expect(&mut self, who: Holder, slice: u32, until: Duration) {
        let slice = slice % SLICES;
        if self.known.insert(who, Stranger { slice, until, heard: false }).is_none() {
            self.slices[slice as usize] += 1;
        }
    }

    /// Somebody was heard, and told what was sent.
    pub fn heard(&mut self, who: Holder) {
        if let Some(stranger) = self.known.get_mut(&who) {
            stranger.heard = true;
        }
    }

    /// Drops those who are strangers no more. Gives those of them who were never heard.
    pub fn lapse(&mut self, now: Duration) -> Vec<Holder> {
        let gone: Vec<(Holder, Stranger)> = self.known.extract_if(.., |_, it| it.until <= now).collect();
        gone.iter().for_each(|(_, stranger)| self.slices[stranger.slice as usize] -= 1);
        gone.iter().filter(|(_, stranger)| !stranger.heard).map(|(holder, _)| *holder).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What they may send in any window that lies between two moments: a window meets at most two slices. And how many at a time.
    pub fn share(&self, from: Duration, to: Duration, slice: Duration) -> Reserve {
        if self.is_empty() {
            return Reserve::default();
        }
        let number = |at: Duration| at.as_nanos() / slice.as_nanos().max(1);
        let inside = |number: u128| self.slices[(number % u128::from(SLICES)) as usize];
        let (first, last) = (number(from), number(to));
        let pairs = (first..last).map(|number| inside(number) + inside(number + 1));
        let connections = (first..=last).map(inside).max().unwrap_or_default();
        Reserve { messages: pairs.max().unwrap_or(connections), connections }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn share(strangers: &Strangers, from: u32, to: u32) -> (u64, u64) {
        let share =
            strangers.share(16 * 1000 * MINUTE + from * MINUTE, 16 * 1000 * MINUTE + to * MINUTE, MINUTE);
        (share.messages, share.connections)
    }

    #[test]
    fn it_is_what_two_slices_next_to_each_other_hold() {
        let mut strangers = Strangers::default();
        for (who, slice) in [(1, 3), (2, 4), (3, 4), (4, 9), (5, 15), (6, 0)] {
            strangers.expect(Holder(who), slice, MINUTE);
        }
        assert_eq!(share(&strangers, 0, 2), (1, 1));
        assert_eq!(share(&strangers, 1, 4), (3, 2));
        assert_eq!(share(&strangers, 5, 8), (0, 0));
        assert_eq!(share(&strangers, 14, 17), (2, 1), "rounds follow one another");
        assert_eq!(share(&strangers, 9, 9), (1, 1));
    }

    #[test]
    fn who_lapses_is_told_once_if_it_was_never_heard() {
        let mut strangers = Strangers::default();
        strangers.expect(Holder(1), 3, MINUTE);
        strangers.expect(Holder(2), 3, MINUTE);
        strangers.expect(Holder(2), 3, 3 * MINUTE);
        strangers.heard(Holder(1));
        assert_eq!((strangers.lapse(MINUTE), share(&strangers, 3, 3)), (vec![], (1, 1)));
        assert_eq!((strangers.lapse(3 * MINUTE), strangers.len()), (vec![Holder(2)], 0));
        assert_eq!(share(&strangers, 3, 3), (0, 0));
    }
}

//! Sidecars that may be sending without ever having had an answer, and the reserve for them.
//!
//! The slot of an unregistered sidecar follows from its pod's uid, so what they may send around any moment is known without a
//! message from them. The caller decides which sidecars count. Each counts for a while after the last time that it
//! was found to, until what it sent last has left the window.

use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::SidecarId;
use crate::slots::UNREGISTERED_FRAME;

#[derive(Clone, Copy, Debug)]
struct UnregisteredSidecar {
    index: u32,
    until: Duration,
    heard: bool,
}

/// Messages and connections that are not leased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Messages.
    pub messages: u64,
    /// Connections.
    pub connections: u64,
}

/// The unregistered sidecars of one namespace of a mailbox.
#[derive(Clone, Debug, Default)]
pub struct UnregisteredSidecars {
    known: BTreeMap<SidecarId, UnregisteredSidecar>,
    /// How many have each slot of the frame.
    per_slot: [u64; UNREGISTERED_FRAME as usize],
}

impl UnregisteredSidecars {
    /// Counts a sidecar as unregistered until then at least.
    pub fn expect(&mut self, who: SidecarId, index: u32, until: Duration) {
        let index = index % UNREGISTERED_FRAME;
        if self.known.insert(who, UnregisteredSidecar { index, until, heard: false }).is_none() {
            self.per_slot[index as usize] += 1;
        }
    }

    /// Notes that a sidecar was heard and has reported what it sent.
    pub fn heard(&mut self, who: SidecarId) {
        if let Some(sidecar) = self.known.get_mut(&who) {
            sidecar.heard = true;
        }
    }

    /// Removes those that are no longer unregistered, and returns those of them that were never heard.
    pub fn expire(&mut self, now: Duration) -> Vec<SidecarId> {
        let gone: Vec<_> = self.known.extract_if(.., |_, sidecar| sidecar.until <= now).collect();
        gone.iter().for_each(|(_, sidecar)| self.per_slot[sidecar.index as usize] -= 1);
        gone.iter().filter(|(_, sidecar)| !sidecar.heard).map(|(who, _)| *who).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What they may send in any window between two moments, which meets at most two slots; and their connections at a time.
    pub fn reserve(&self, from: Duration, to: Duration, slot: Duration) -> Reserve {
        if self.is_empty() {
            return Reserve::default();
        }
        let number = |at: Duration| at.as_nanos() / slot.as_nanos().max(1);
        let inside = |number: u128| self.per_slot[(number % u128::from(UNREGISTERED_FRAME)) as usize];
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

    fn share(sidecars: &UnregisteredSidecars, from: u32, to: u32) -> (u64, u64) {
        let share =
            sidecars.reserve(16 * 1000 * MINUTE + from * MINUTE, 16 * 1000 * MINUTE + to * MINUTE, MINUTE);
        (share.messages, share.connections)
    }

    #[test]
    fn it_is_what_two_slots_next_to_each_other_hold() {
        let mut sidecars = UnregisteredSidecars::default();
        for (who, slot) in [(1, 3), (2, 4), (3, 4), (4, 9), (5, 15), (6, 0)] {
            sidecars.expect(SidecarId(who), slot, MINUTE);
        }
        assert_eq!(share(&sidecars, 0, 2), (1, 1));
        assert_eq!(share(&sidecars, 1, 4), (3, 2));
        assert_eq!(share(&sidecars, 5, 8), (0, 0));
        assert_eq!(share(&sidecars, 14, 17), (2, 1), "rounds follow one another");
        assert_eq!(share(&sidecars, 9, 9), (1, 1));
    }

    #[test]
    fn who_lapses_is_told_once_if_it_was_never_heard() {
        let mut sidecars = UnregisteredSidecars::default();
        sidecars.expect(SidecarId(1), 3, MINUTE);
        sidecars.expect(SidecarId(2), 3, MINUTE);
        sidecars.expect(SidecarId(2), 3, 3 * MINUTE);
        sidecars.heard(SidecarId(1));
        assert_eq!((sidecars.expire(MINUTE), share(&sidecars, 3, 3)), (vec![], (1, 1)));
        assert_eq!((sidecars.expire(3 * MINUTE), sidecars.len()), (vec![SidecarId(2)], 0));
        assert_eq!(share(&sidecars, 3, 3), (0, 0));
    }
}

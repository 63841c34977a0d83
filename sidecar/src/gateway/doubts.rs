//! Which gateway may have a message, since its answer was lost.
//!
//! Pure: time is passed in. Memory is bounded by `MAX_DOUBTS`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Instant;
use crate::message::envelope::QueueId;
use crate::queue::schedule::MAX_RESERVATION;

/// How long a message is offered to no other gateway than the one that may have it.
pub const DOUBT: Duration = Duration::from_secs(10);

/// How long it is offered to that one before the others.
const PREFERRED: Duration = MAX_RESERVATION;

/// Most messages of which that is remembered.
const MAX_DOUBTS: usize = 10_000;

/// Messages that a gateway may have.
#[derive(Debug, Default)]
pub(super) struct Doubts(HashMap<QueueId, Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    address: SocketAddr,
    since: Instant,
}

impl Doubt {
    fn has_lasted(&self, time: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= time
    }
}

impl Doubts {
    /// The gateway that may have the message; none when that was too long ago.
    pub fn of(&self, id: &QueueId, now: Instant) -> Option<SocketAddr> {
        self.since_less_than(DOUBT, id, now)
    }

    /// The gateway that is asked first, for it may have the message, also when that was some time ago.
    pub fn preferred(&self, id: &QueueId, now: Instant) -> Option<SocketAddr> {
        self.since_less_than(PREFERRED, id, now)
    }

    fn since_less_than(&self, time: Duration, id: &QueueId, now: Instant) -> Option<SocketAddr> {
        self.0.get(id).filter(|doubt| !doubt.has_lasted(time, now)).map(|doubt| doubt.address)
    }

    /// The gateway at `address` may have the message from now on, unless that is known for longer.
    pub fn add(&mut self, id: &QueueId, address: SocketAddr, now: Instant) {
        self.0.retain(|_, doubt| !doubt.has_lasted(PREFERRED, now));
        if self.0.get(id).is_some_and(|doubt| doubt.address == address) {
            return;
        }
        if self.0.len() >= MAX_DOUBTS {
            self.0.retain(|_, doubt| !doubt.has_lasted(DOUBT, now));
        }
        if self.0.len() < MAX_DOUBTS {
            self.0.insert(id.clone(), Doubt { address, since: now });
        }
    }

    /// It is known who has the message.
    pub fn settle(&mut self, id: &QueueId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::clock;

    fn id(n: u64) -> QueueId {
        QueueId::new(Timestamp::UNIX_EPOCH, n)
    }

    fn address(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 9026).into()
    }

    #[test]
    fn a_doubt_lasts_until_it_is_settled_or_for_ten_seconds() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        doubts.add(&id(1), address(1), start);
        doubts.add(&id(2), address(2), start);
        doubts.settle(&id(2));
        let just_before = start + DOUBT - Duration::from_millis(1);
        assert_eq!(doubts.of(&id(1), just_before), Some(address(1)));
        assert_eq!(doubts.of(&id(2), just_before), None);
        assert_eq!(doubts.of(&id(1), start + DOUBT), None);
    }

    #[test]
    fn after_that_the_same_gateway_is_asked_first_for_as_long_as_it_leaves_the_message_alone() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        doubts.add(&id(1), address(1), start);
        doubts.add(&id(2), address(1), start);
        doubts.settle(&id(2));
        assert_eq!(doubts.preferred(&id(1), start + 2 * DOUBT), Some(address(1)));
        assert_eq!(doubts.preferred(&id(2), start + 2 * DOUBT), None);
        assert_eq!(doubts.preferred(&id(1), start + PREFERRED), None);
    }

    #[test]
    fn one_that_never_answers_does_not_keep_a_message_by_being_asked_again() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        doubts.add(&id(1), address(1), start);
        doubts.add(&id(1), address(1), start + DOUBT / 2);
        assert_eq!(doubts.of(&id(1), start + DOUBT), None);
    }

    #[test]
    fn a_new_doubt_takes_the_place_of_an_old_one() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        doubts.add(&id(1), address(1), start);
        doubts.add(&id(1), address(2), start + DOUBT);
        assert_eq!(doubts.of(&id(1), start + DOUBT), Some(address(2)));
    }

    #[test]
    fn those_that_are_over_take_no_room() {
        let (mut doubts, start) = (Doubts::default(), clock::now());
        for n in 0..MAX_DOUBTS as u64 {
            doubts.add(&id(n), address(1), start);
        }
        doubts.add(&id(1 << 30), address(2), start);
        assert_eq!(doubts.of(&id(1 << 30), start), None, "as many as are remembered");
        doubts.add(&id(1 << 30), address(2), start + DOUBT);
        assert_eq!(doubts.0.len(), 1);
    }
}

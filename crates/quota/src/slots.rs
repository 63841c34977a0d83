//! Time slots: how sidecars without contact share a limit by the clock. The crate's head explains the scheme.
//!
//! Both ends use this file: the server to assign slots and to know what may be sent in them, the client to find its own.

use std::time::Duration;

use crate::RouteLimits;
use crate::timing::{Timing, millis};
use crate::wire::{SlotAssignment, TimeSlots};

/// Slots in the frame of unregistered sidecars, which send one message in each frame.
pub const UNREGISTERED_FRAME: u32 = 16;

/// Minutes after its start at which an unregistered sidecar uses its first slot.
pub const UNREGISTERED_AFTER_MINUTES: u32 = 10;

/// Most recipients of an unregistered sidecar in a day.
pub const UNREGISTERED_RECIPIENTS: u32 = 100;

/// A slot that the sidecar may use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSlot {
    /// Its number since the Unix epoch.
    pub number: u64,
    /// When every message in it is aborted.
    pub cut_off: Duration,
}

impl TimeSlots {
    /// Slots with room at both ends for clocks that differ by [`Timing::clock_skew`], so that messages of neighbours do not overlap.
    /// A slot is as long as the window of messages, so that no window meets more than two.
    pub fn new(
        assignment: SlotAssignment,
        messages: u32,
        recipients: u32,
        after: Duration,
        timing: Timing,
    ) -> Self {
        let (minute, skew) = (timing.minute, timing.clock_skew());
        Self {
            index: assignment.index,
            of: assignment.of,
            slot_millis: millis(minute).max(1),
            messages,
            begin_millis: millis(2 * skew),
            last_millis: millis(minute / 2),
            cut_millis: millis(minute - 2 * skew),
            after_millis: millis(after),
            recipients,
            messages_per_hour: None,
        }
    }

    /// The slots of a sidecar that never had an answer. None with a limit of messages a minute so small that nothing can be reserved,
    /// nor with a limit of messages an hour: a few such sidecars would use it up.
    pub fn of_unregistered(uid: &str, limits: RouteLimits, timing: Timing) -> Option<Self> {
        if limits.messages.is_some_and(|messages| messages < 4) || limits.messages_per_hour.is_some() {
            return None;
        }
        let assignment = SlotAssignment { index: unregistered_index(uid), of: UNREGISTERED_FRAME };
        let after = UNREGISTERED_AFTER_MINUTES * timing.minute;
        Some(Self::new(assignment, 1, UNREGISTERED_RECIPIENTS, after, timing))
    }

    /// Which slots these are.
    pub const fn assignment(&self) -> SlotAssignment {
        SlotAssignment { index: self.index, of: self.of }
    }

    /// The slot of this sidecar in which a message may begin now; nothing in other sidecars' slots and near the ends of its own.
    pub fn open(&self, now: Duration) -> Option<OpenSlot> {
        let length = u128::from(self.slot_millis.max(1));
        let number = u64::try_from(now.as_millis() / length).ok()?;
        let within = u64::try_from(now.as_millis() % length).ok()?;
        let is_own = number % u64::from(self.of.max(1)) == u64::from(self.index);
        let may_begin = within >= self.begin_millis && within <= self.last_millis;
        let cut_off = now + Duration::from_millis(self.cut_millis.saturating_sub(within));
        (is_own && may_begin).then_some(OpenSlot { number, cut_off })
    }

    /// When the next slot of this sidecar opens.
    pub fn next(&self, now: Duration) -> Duration {
        let (length, of) = (u128::from(self.slot_millis.max(1)), u128::from(self.of.max(1)));
        let (frame, begin) = (length * of, length * u128::from(self.index) + u128::from(self.begin_millis));
        let millis = now.as_millis();
        let next = begin + frame * (millis.saturating_sub(begin) / frame + 1);
        let due = if begin > millis { begin } else { next };
        Duration::from_millis(u64::try_from(due).unwrap_or(u64::MAX))
    }
}

/// The slot of an unregistered pod, below [`UNREGISTERED_FRAME`]. Several pods may have the same.
pub fn unregistered_index(uid: &str) -> u32 {
    // FNV-1a. The API server chooses uids, so nobody gains by looking for one.
    let mix = |hash: u32, octet: u8| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193);
    let hash = uid.bytes().fold(0x811c_9dc5, mix);
    (hash ^ (hash >> 16)) % UNREGISTERED_FRAME
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6c9e8e0a-1f7b-4b62-9d0e-000000000001";

    #[test]
    fn pods_are_spread_over_all_slots() {
        let mut pods = [0; UNREGISTERED_FRAME as usize];
        for n in 0..1600 {
            pods[unregistered_index(&format!("6c9e8e0a-1f7b-4b62-9d0e-{n:012x}")) as usize] += 1;
        }
        assert!(pods.iter().all(|count| (60..=140).contains(count)), "{pods:?}");
    }

    #[test]
    fn the_slot_of_a_pod_is_the_same_in_every_release() {
        assert_eq!(unregistered_index(UID), 6);
    }

    #[test]
    fn an_unregistered_sidecar_uses_the_slot_that_the_server_expects() {
        let limits = |messages| RouteLimits { messages: Some(messages), ..RouteLimits::NONE };
        let slots = |messages| TimeSlots::of_unregistered(UID, limits(messages), Timing::default());
        assert_eq!(slots(30).unwrap().assignment(), SlotAssignment { index: 6, of: UNREGISTERED_FRAME });
        assert_eq!(slots(3), None);
        let hourly = RouteLimits { messages_per_hour: Some(1000), ..limits(30) };
        assert_eq!(TimeSlots::of_unregistered(UID, hourly, Timing::default()), None);
    }

    #[test]
    fn what_was_leased_before_the_reserve_has_left_the_window_at_the_first_slot() {
        let timing = Timing::default();
        let reserved = timing.silent_after() + timing.scan_interval();
        assert!(timing.slots_after() > reserved + timing.cut_off() + timing.minute);
        let unregistered = timing.unregistered_after() + timing.idle_interval();
        let first_slot = UNREGISTERED_AFTER_MINUTES * timing.minute;
        assert!(first_slot > unregistered + timing.cut_off() + timing.minute + 2 * timing.clock_skew());
        assert!(timing.lease_valid() < timing.cut_off(), "a lease ends before its holder counts as lost");
        assert!(
            timing.idle_interval() + timing.persist_interval() < timing.silent_after(),
            "one missed exchange is not silence"
        );
    }
}

//! The limits of each mailbox, shared by all sidecars that send as it: fairly among namespaces first, among pods second.
//!
//! ```text
//!  claim ─► Ledger::hear ─► Ledger::decide ─► a lease, or when to come again
//!            what was used     │        ▲
//!            who waits         ▼        │ written
//!                         NeedsWrite ─► Record
//! ```
//!
//! * [`terms`]: all lengths of time, and how they hang together.
//! * [`mailroute_limits::window`], [`mailroute_limits::restraint`], [`mod@line`], [`turns`], [`strangers`]: what was counted, less after too
//!   much, who is next, who may send alone, and who may without being told.
//! * [`share`]: one namespace of a mailbox. [`ledger`]: one mailbox. [`record`]: what outlives a leader.
//!
//! Pure: time is passed in, nothing is read or written. The promise is about Microsoft's counters: in no window do all sidecars
//! together send more than the limit, whichever of them crash or are cut off, whoever leads, and whatever is lost on the way.
//! It rests on these:
//!
//! * What is out counts like what was used until it is known to be unused. A lease is for one connection and for messages that
//!   are begun within [`terms::Terms::valid`]; what is under way without contact is cut off after [`terms::Terms::cut`].
//! * Nothing is given out that is not written down before, by name: a new leader knows whom it has to hear before it may count
//!   on anything being free.
//! * While a sidecar may be out of contact a part is set aside, of which those who reach nobody take turns by the clock: those who
//!   were told as they were told, and strangers, who never were, as their pod's uid says.
//!
//! What a claim says is believed within bounds, as the namespaces of a cluster do not trust each other: nothing counts for more
//! than was granted, and what a namespace says about itself (its limits, that Exchange found it too much, that its pods are out
//! of contact) takes from that namespace's share. So the promise holds among sidecars that say the truth; where several namespaces
//! share a mailbox, it leaves out sidecars that nobody can reach and that are more than their namespace's share has room for.

pub mod ledger;
pub mod line;
pub mod mailboxes;
pub mod record;
pub mod share;
pub mod strangers;
pub mod terms;
pub mod turns;

use std::sync::Arc;

pub use mailroute_limits::Amount;

/// Name of a namespace, whose pods share what is theirs of a mailbox.
pub type Namespace = Arc<str>;

/// A sidecar: a number made from its pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

impl Holder {
    /// The sidecar of the pod with this uid.
    pub fn of(uid: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, uid.as_bytes());
        let first = digest.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        Self(u64::from_be_bytes(first))
    }
}

/// The limits of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages in any minute.
    pub messages: u32,
    /// Recipients in any day.
    pub recipients: u32,
    /// Connections at a time.
    pub connections: u32,
}

impl Limits {
    /// What Exchange Online has for a mailbox that nobody set otherwise. Source: Microsoft Learn, "Exchange Online limits".
    pub const PUBLISHED: Self = Self { messages: 30, recipients: 10_000, connections: 3 };

    /// The limits of a mailbox, from what each namespace says that they are: what all say; and where they differ, Exchange's
    /// published ones, but no more than the greatest and no less than the smallest that was said. So no namespace can take the
    /// mailbox from the others by naming a small limit, nor have them exceed it by naming a great one. None when nobody says.
    pub fn agreed(said: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let (least, most) = (said.clone().reduce(Self::least)?, said.reduce(Self::greatest)?);
        Some(Self::PUBLISHED.least(most).greatest(least))
    }

    /// The greater of each.
    #[must_use]
    pub fn greatest(self, other: Self) -> Self {
        Self {
            messages: self.messages.max(other.messages),
            recipients: self.recipients.max(other.recipients),
            connections: self.connections.max(other.connections),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            recipients: self.recipients.min(other.recipients),
            connections: self.connections.min(other.connections),
        }
    }

    /// Messages in one slice of a sidecar that owns every `of`th: about its fair part, and at least one, of what is left to turns,
    /// which is a third of the limit in each slice. None where that would leave nothing to others.
    pub fn in_turn(self, of: u32) -> u64 {
        if self.connections < 2 || self.messages < 4 {
            return 0;
        }
        u64::from(self.messages / 3 / (of / 2).max(1)).max(1)
    }

    /// The most that two slices next to each other hold, which is what a window can meet.
    pub const fn most_in_turns(self) -> u64 {
        2 * (self.messages / 3) as u64
    }

    /// Recipients of a day that are always set aside for turns.
    pub fn reserved_recipients(self) -> u64 {
        if self.in_turn(1) == 0 { 0 } else { u64::from(self.recipients / 20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed<const N: usize>(said: [u32; N]) -> Option<u32> {
        let limits = |messages| Limits { messages, ..Limits::PUBLISHED };
        Limits::agreed(said.into_iter().map(limits)).map(|limits| limits.messages)
    }

    #[test]
    fn no_namespace_sets_the_limit_of_the_others() {
        assert_eq!(agreed([]), None);
        assert_eq!((agreed([5]), agreed([5000])), (Some(5), Some(5000)), "one namespace is believed");
        assert_eq!((agreed([30, 1]), agreed([30, 5000])), (Some(30), Some(30)));
        assert_eq!(
            (agreed([5000, 1]), agreed([5000, 3000]), agreed([5, 7])),
            (Some(30), Some(3000), Some(7))
        );
    }
}

//! The limits of a mailbox, and who shares them.

use std::sync::Arc;

/// Name of a Kubernetes namespace. Its pods share the namespace's part of a mailbox.
pub type Namespace = Arc<str>;

/// A sidecar, as a number that the caller derives from its pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidecarId(pub u64);

/// The limits of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Messages in any minute.
    pub messages: u32,
    /// Recipients in any day.
    pub recipients: u32,
    /// Connections at a time.
    pub connections: u32,
}

impl MailboxLimits {
    /// Exchange Online's limits of a mailbox. Source: Microsoft Learn, "Exchange Online limits".
    pub const PUBLISHED: Self = Self { messages: 30, recipients: 10_000, connections: 3 };

    /// The limits of a mailbox, from what each namespace's routes name. All agree: those. They differ: Exchange's published
    /// limits, but no more than the greatest and no less than the smallest that is named. So no namespace can take the mailbox
    /// from the others with a small limit, nor make them exceed it with a great one. None without any.
    pub fn agreed(named: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let (least, most) = (named.clone().reduce(Self::least)?, named.reduce(Self::greatest)?);
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

    /// Messages in one time slot of a sidecar that owns every `of`th: about its equal share, and at least one, of a third of the
    /// limit. Zero where that would leave nothing to leases.
    pub fn messages_per_slot(self, of: u32) -> u64 {
        if self.connections < 2 || self.messages < 4 {
            return 0;
        }
        u64::from(self.messages / 3 / (of / 2).max(1)).max(1)
    }

    /// The most messages in two neighbouring slots. A window meets no more.
    pub const fn most_in_slots(self) -> u64 {
        2 * (self.messages / 3) as u64
    }

    /// Recipients of a day that are always kept for time slots.
    pub fn slot_recipients(self) -> u64 {
        if self.messages_per_slot(1) == 0 { 0 } else { u64::from(self.recipients / 20) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed<const N: usize>(named: [u32; N]) -> Option<u32> {
        let limits = |messages| MailboxLimits { messages, ..MailboxLimits::PUBLISHED };
        MailboxLimits::agreed(named.into_iter().map(limits)).map(|limits| limits.messages)
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

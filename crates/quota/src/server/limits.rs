//! The limits of a mailbox, and who shares them.

use std::sync::Arc;

use crate::Amount;

/// Name of a Kubernetes namespace. Its pods share the namespace's part of a mailbox.
pub type Namespace = Arc<str>;

/// A sidecar, as a number that the caller derives from its pod's uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SidecarId(pub u64);

/// In place of a limit of [`MailboxLimits`]: there is none.
pub const NO_LIMIT: u32 = u32::MAX;

/// The limits of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MailboxLimits {
    /// Messages in any minute.
    pub messages: u32,
    /// Messages in any hour; [`NO_LIMIT`] in Exchange Online.
    pub messages_per_hour: u32,
    /// Recipients in any day.
    pub recipients: u32,
    /// Connections at a time.
    pub connections: u32,
}

impl MailboxLimits {
    /// Exchange Online's limits of a mailbox. Source: Microsoft Learn, "Exchange Online limits".
    pub const PUBLISHED: Self =
        Self { messages: 30, messages_per_hour: NO_LIMIT, recipients: 10_000, connections: 3 };

    /// The least of everything, while no route is known.
    pub const LEAST: Self = Self { messages: 1, messages_per_hour: 1, recipients: 1, connections: 1 };

    /// Communication Services' limit of messages an hour. Source: Microsoft Learn, "Service limits for Azure Communication Services".
    const PUBLISHED_PER_HOUR: u32 = 100;

    /// The limits of a mailbox, from what each namespace's routes name. All agree: those. They differ: Exchange's published
    /// limits, but no more than the greatest and no less than the smallest that is named. So no namespace can take the mailbox
    /// from the others with a small limit, nor make them exceed it with a great one. A limit of the hour counts only where all
    /// name one. None without any.
    pub fn agreed(named: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let (least, most) = (named.clone().reduce(Self::least)?, named.reduce(Self::greatest)?);
        let mut published = Self::PUBLISHED;
        if most.messages_per_hour < NO_LIMIT {
            published.messages_per_hour = Self::PUBLISHED_PER_HOUR;
        }
        Some(published.least(most).greatest(least))
    }

    /// The greater of each.
    #[must_use]
    pub fn greatest(self, other: Self) -> Self {
        Self {
            messages: self.messages.max(other.messages),
            messages_per_hour: self.messages_per_hour.max(other.messages_per_hour),
            recipients: self.recipients.max(other.recipients),
            connections: self.connections.max(other.connections),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            messages_per_hour: self.messages_per_hour.min(other.messages_per_hour),
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

    /// Messages in any hour and recipients in any day. No limit is one that nobody reaches.
    pub fn beyond_minute(self) -> Amount {
        Amount { messages: self.messages_per_hour.into(), recipients: self.recipients.into() }
    }

    /// What is always kept for time slots: a tenth of an hour's messages, a twentieth of a day's recipients. A reserve that begins
    /// when sidecars fall silent, as in the minute, would come too late.
    pub fn kept_for_slots(self) -> Amount {
        if self.messages_per_slot(1) == 0 {
            return Amount::NOTHING;
        }
        Amount {
            messages: u64::from(self.messages_per_hour / 10),
            recipients: u64::from(self.recipients / 20),
        }
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

    #[test]
    fn a_limit_of_the_hour_counts_where_all_name_one() {
        let agreed = |named: [u32; 2]| {
            let limits = |messages_per_hour| MailboxLimits { messages_per_hour, ..MailboxLimits::PUBLISHED };
            MailboxLimits::agreed(named.into_iter().map(limits)).unwrap().messages_per_hour
        };
        assert_eq!((agreed([100, 100]), agreed([500, 1]), agreed([500, 300])), (100, 100, 300));
        assert_eq!(agreed([NO_LIMIT, 1]), NO_LIMIT, "nobody slows a mailbox of Exchange Online down");
    }
}

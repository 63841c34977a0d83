//! What is to happen in a simulated day, and what is to go wrong in it.

use mailroute_quota::server::limits::MailboxLimits;

/// What is to happen in a day.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub sidecars: usize,
    /// How many of them are in another namespace than the rest.
    pub elsewhere: usize,
    pub length: u64,
    pub limits: MailboxLimits,
    pub day: u64,
    /// Messages of a burst, and the time between two.
    pub burst: (u64, u64),
    /// Most recipients of a message.
    pub recipients: u64,
    /// What goes wrong.
    pub failures: Failures,
}

/// What goes wrong in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// Changes of leader, each hour.
    pub falls: u64,
    /// Processes that are killed, each hour, and as many pods that are replaced by others.
    pub crashes: u64,
    /// Whether it hits those that are just sending.
    pub at_work: bool,
    /// Sidecars that lose contact, in all.
    pub partitions: u64,
    /// Whether those are of new pods.
    pub newborn: bool,
    /// One message in so many takes minutes.
    pub slow: u64,
    /// One message between the two in so many is lost.
    pub lost: u64,
}

impl Failures {
    /// None at all.
    pub const NONE: Self = Self {
        falls: 0,
        crashes: 0,
        at_work: false,
        partitions: 0,
        newborn: false,
        slow: u64::MAX,
        lost: u64::MAX,
    };

    /// The usual failures for so many sidecars in so many hours.
    pub const fn usual(sidecars: u64, hours: u64) -> Self {
        let partitions = if hours * sidecars / 400 > 3 { hours * sidecars / 400 } else { 3 };
        Self {
            falls: 1,
            crashes: sidecars / 12,
            at_work: false,
            partitions,
            newborn: false,
            slow: 300,
            lost: 2000,
        }
    }
}

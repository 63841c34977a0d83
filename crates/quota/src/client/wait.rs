//! Why something cannot be sent now, and when to ask again.

use std::time::Duration;

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The earliest time at which asking again can help, unless a charge is settled unused or limits change before.
    pub until: Duration,
    /// What it waits for.
    pub why: WaitReason,
}

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// Messages of a burst are spread out.
    Pace,
    /// The minute's limit is used up.
    Minute,
    /// The hour's limit is used up.
    Hour,
    /// Microsoft throttled the mailbox.
    Restraint,
    /// The day's recipients are used up.
    Day,
    /// All sidecars of the mailbox share its limits, and others are first.
    Lease,
}

impl WaitReason {
    /// Every value.
    pub const ALL: [Self; 6] =
        [Self::Pace, Self::Minute, Self::Hour, Self::Restraint, Self::Day, Self::Lease];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pace => "pace",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Restraint => "restraint",
            Self::Day => "day",
            Self::Lease => "lease",
        }
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Pace => "messages are spread evenly over the minute",
            Self::Minute => "this minute's message limit is used up",
            Self::Hour => "this hour's message limit is used up",
            Self::Restraint => "Microsoft 365 throttled the mailbox; sending is slowed for now",
            Self::Day => "the 24-hour recipient limit is used up",
            Self::Lease => "the pod waits for its share of the mailbox's limits",
        }
    }
}

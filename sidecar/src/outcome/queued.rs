//! The queue in numbers: why messages enter it, how they leave it, what it holds.

use mailroute_route::control;

/// Why a message is kept rather than delivered while the application waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueingCause {
    /// The route says so.
    Mode,
    /// It has more recipients than one transaction may have.
    Split,
    /// The mailbox may not send more now.
    Limits,
    /// The route is known not to work.
    Fault,
    /// The upstream said "not now", or could not be reached.
    Refused,
    /// The upstream takes long.
    Slow,
    /// The process is about to end.
    Stopping,
}

impl QueueingCause {
    /// Every value.
    pub const ALL: [Self; 7] =
        [Self::Mode, Self::Split, Self::Limits, Self::Fault, Self::Refused, Self::Slow, Self::Stopping];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Split => "split",
            Self::Limits => "limits",
            Self::Fault => "fault",
            Self::Refused => "refused",
            Self::Slow => "slow",
            Self::Stopping => "stopping",
        }
    }
}

/// How a message left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueExit {
    /// Delivered to every recipient.
    Delivered,
    /// Given up for some recipients: a dead letter.
    DeadLetter,
    /// A person dropped it.
    Dropped,
    /// A gateway has it.
    HandedOver,
}

impl QueueExit {
    /// The name as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::DeadLetter => "dead_letter",
            Self::Dropped => "dropped",
            Self::HandedOver => "handed_over",
        }
    }
}

/// How an attempt to hand a message over to a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOverOutcome {
    /// The gateway has it.
    HandedOver,
    /// No gateway could be reached.
    Unreachable,
    /// No gateway can store it now.
    Deferred,
    /// A gateway refuses it for good.
    Refused,
    /// It cannot be read here.
    Failed,
}

impl HandOverOutcome {
    /// Every value.
    pub const ALL: [Self; 5] =
        [Self::HandedOver, Self::Unreachable, Self::Deferred, Self::Refused, Self::Failed];

    /// The name as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HandedOver => "handed_over",
            Self::Unreachable => "unreachable",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// How a gateway answered a message that was handed over to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOverOutcome {
    /// Stored.
    Stored,
    /// Here already, or gone already.
    Known,
    /// There is no room.
    Full,
    /// The disk refuses, or the same message is coming in already.
    Failed,
    /// It is no valid message.
    Invalid,
}

impl TakeOverOutcome {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Stored, Self::Known, Self::Full, Self::Failed, Self::Invalid];

    /// The name as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Known => "known",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
        }
    }
}

/// The queue in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Messages that wait or are being tried.
    pub messages: u64,
    /// Age of the oldest, seconds.
    pub oldest_seconds: u64,
    /// Messages given up after a 250 and kept.
    pub dead_letters: u64,
    /// Files that could not be read again, set aside.
    pub corrupt: u64,
    /// Octets on disk, all of these together.
    pub bytes: u64,
    /// How many there may be.
    pub max_bytes: u64,
}

impl From<QueueFigures> for control::Queue {
    fn from(figures: QueueFigures) -> Self {
        let QueueFigures { messages, oldest_seconds, dead_letters, .. } = figures;
        Self { messages, oldest_seconds, dead_letters }
    }
}

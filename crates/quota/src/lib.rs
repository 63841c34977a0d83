//! Sharing the sending limits of a Microsoft 365 mailbox among many sidecars: the whole protocol, both ends, as values.
//!
//! Microsoft 365 limits each *mailbox*: messages in any minute, with Communication Services in any hour as well, recipients in any
//! 24 hours, connections at a time. Any number
//! of pods may send as one mailbox. The operator's leader keeps a ledger for each mailbox ([`server`]) and leases small amounts
//! to sidecars ([`client`]); a sidecar sends only what it holds a lease for. No code here reads a clock, a file or a socket:
//! callers pass the time in, carry the messages ([`wire`]) and store what has to survive a restart.
//!
//! ```text
//!  sidecar: client                                             operator: server
//!  request ─► no lease: demand ──────────── Claim ───────────► Ledger::claim    what was used, who waits
//!     │                                                        Ledger::decide ─► NeedsWrite ─► Ledger::record is stored
//!     ▼                                                            │◄──────────── Ledger::persisted ◄──┘
//!  lease held ◄──────────────────────────── Allotment ◄────────────┘
//!     └─► charge ─► message sent ─► settle ─► lease ended, named in each Claim until an Allotment confirms it
//! ```
//!
//! **Promise.** In no window of Microsoft's do all sidecars together exceed the limit, whichever of them crash or lose contact,
//! whichever replica leads, and whatever message is lost. One exception: several namespaces share the mailbox, and more sidecars
//! of one are out of reach than the reserve of their namespace covers.
//!
//! # How it works
//!
//! **Leases.** A lease allows some messages over one connection. They have to begin within ten seconds
//! ([`Timing::lease_valid`]). A lease counts as used until its sidecar reports what it used, or until it cannot be in use any
//! more: a sidecar that loses contact aborts what it is sending after a minute ([`Timing::cut_off`]). Sidecars count these
//! times from when they sent the claim, the server from when it answered, so the server always waits longer.
//!
//! **Persist, then grant.** The ledger grants only what a stored record already names, by sidecar. A new leader reads the record and
//! assumes that everything in it was granted, until it hears from those sidecars or a lease can no longer be in use.
//!
//! **Fairness.** Sidecars without a lease wait in a queue. The namespace that uses least goes first (dominant resource fairness),
//! then the sidecar that has waited longest. Of the hour's messages and the day's
//! recipients, half of an equal share is kept for each namespace.
//!
//! **Trust.** Namespaces do not trust each other. A claim counts for at most what was granted, and what a namespace says of itself
//! (its limits, that Microsoft throttled it, that its pods were out of contact) comes out of its own share.
//!
//! # Without contact: time slots and the reserve
//!
//! A sidecar cannot tell whether it alone is cut off or the operator is down, so all sidecars may be sending without a lease at
//! once. They share the limit by time division: time since the Unix epoch is divided into slots of one minute, and no two sidecars
//! own the same slot.
//!
//! * *Assignment.* A sidecar owns one slot in each frame of `of` slots ([`wire::SlotAssignment`]); `of` is a power of two and at
//!   least the number of sidecars. When more sidecars come, an owner is offered the same index in a frame twice as long.
//!   The freed half stays reserved for it until it acknowledges ([`server::slot_table`]).
//! * *Size.* All slots together carry a third of the minute's limit, and at least one message each; the recipients in them are
//!   a twentieth of the day's ([`server::limits`]). A window of one minute meets at most two slots, so it holds at most two
//!   thirds of the limit. Messages begin and end well inside a slot, so connections of neighbours do not overlap.
//! * *Start.* A sidecar uses its slot once it has had no answer for about three and a half minutes ([`Timing::slots_after`]).
//!   After one minute of silence ([`Timing::silent_after`]) the server takes what slots may use out of what it grants: the
//!   **reserve** ([`server::reserve`]). Every lease from before that has then left the window. The reserve ends when the last
//!   message of a slot has left the window.
//! * *Unregistered sidecars* have never had an answer, for example behind a NetworkPolicy, so nobody could assign them a slot.
//!   Their slot is a hash of the pod's uid, in a frame of 16 ([`slots::unregistered_index`]): the server watches pods and knows it
//!   too. They start ten minutes after the pod and send one message in each frame. The server reserves for the pods of which
//!   it has heard nothing for six minutes ([`server::unregistered`]).
//! * *Hour.* A reserve that begins when sidecars fall silent would come an hour too late. Where the hour is limited, a tenth of it is
//!   always kept for time slots, and unregistered sidecars, which nobody counts, have none.
//!
//! # Where to read
//!
//! [`wire`] (the messages), [`timing`] (all lengths of time), [`window`] (sliding sums), [`throttle`] (less after Microsoft found it
//! too much), [`slots`] (time slots); [`server`], whose entry is [`server::Ledger`]; [`client`], whose entry is [`client::SidecarQuota`].
//! The integration test `simulation` runs days of a thousand sidecars against exact counters.

pub mod client;
pub mod server;
pub mod slots;
pub mod throttle;
pub mod timing;
pub mod window;
pub mod wire;

use serde::{Deserialize, Serialize};

pub use timing::Timing;

/// How much is asked for, granted or used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Messages.
    pub messages: u64,
    /// Recipients of all messages together.
    pub recipients: u64,
}

impl Amount {
    /// No messages: the upstream did not see any.
    pub const NOTHING: Self = Self { messages: 0, recipients: 0 };

    /// One message to this many recipients.
    pub const fn message(recipients: u64) -> Self {
        Self { messages: 1, recipients }
    }

    /// The sum.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, recipients: self.recipients + other.recipients }
    }

    /// Whether neither number is greater than the other's.
    pub const fn within(self, other: Self) -> bool {
        self.messages <= other.messages && self.recipients <= other.recipients
    }

    /// The smaller of each number.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            recipients: self.recipients.min(other.recipients),
        }
    }

    /// The difference of each number, at least zero.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            recipients: self.recipients.saturating_sub(other.recipients),
        }
    }
}

/// The limits that a route names. An absent one is not known, and does not limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteLimits {
    /// Messages in any minute.
    pub messages: Option<u32>,
    /// Messages in any hour.
    pub messages_per_hour: Option<u32>,
    /// Recipients in any day.
    pub recipients: Option<u32>,
    /// Connections at a time.
    pub connections: u32,
}

impl RouteLimits {
    /// No limits, over one connection.
    pub const NONE: Self = Self { messages: None, messages_per_hour: None, recipients: None, connections: 1 };
}

/// How much of a limit is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utilization {
    /// Used, or granted and not known to be unused.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

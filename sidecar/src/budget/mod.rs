//! What the mailbox may still send, as tasks of this process share it.
//!
//! Every decision is [`mailroute_quota::client`]'s. Here is what it leaves to its caller: the clock, the tasks that wait, the disk.
//!
//! * [`limiter`]: requests, and permits that settle themselves when they are dropped.
//! * [`journal`], [`saved_leases`]: what survives a restart, as files.
//!
//! Knows nothing of mail, SMTP and its callers.

pub mod journal;
pub mod limiter;
pub mod saved_leases;

pub use mailroute_quota::Amount;
pub use mailroute_quota::client::wait::WaitReason;
pub use mailroute_quota::wire::Throttled;
use mailroute_route::condition::Reason;

/// The reason of a condition to show for a wait. Smoothing a burst is no problem to show.
pub const fn condition_reason(why: WaitReason) -> Option<Reason> {
    match why {
        WaitReason::Pace | WaitReason::Minute | WaitReason::Hour | WaitReason::Lease => None,
        WaitReason::Restraint => Some(Reason::RateExceeded),
        WaitReason::Day => Some(Reason::DailyQuotaExceeded),
    }
}

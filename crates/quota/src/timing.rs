//! Every length of time in the protocol, derived from the windows in which Microsoft counts.
//!
//! They belong together: the promise depends on how they compare, and tests shorten all of them by shortening the windows.

use std::time::Duration;

/// The windows, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The window of messages.
    pub minute: Duration,
    /// The longer window of messages.
    pub hour: Duration,
    /// The window of recipients.
    pub day: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let hour = Duration::from_secs(60 * 60);
        Self { minute: Duration::from_secs(60), hour, day: 24 * hour }
    }
}

impl Timing {
    /// How long after the claim for its lease a message may begin. Short, as the message is already waiting.
    pub fn lease_valid(self) -> Duration {
        self.minute / 6
    }

    /// How long after its last exchange a sidecar aborts what it is sending. Until then a sidecar without contact may be sending.
    pub const fn cut_off(self) -> Duration {
        self.minute
    }

    /// How long sending one message may take. A sidecar allows less: 150 MiB at the slowest rate that it accepts. A lease that
    /// is in use for longer counts as used, and its connection as free.
    pub const fn longest_lease(self) -> Duration {
        self.minute.saturating_mul(120)
    }

    /// How long after its last exchange the server assumes that a sidecar may use its time slots.
    pub const fn silent_after(self) -> Duration {
        self.minute
    }

    /// How often the server looks for silent sidecars.
    pub fn scan_interval(self) -> Duration {
        self.minute / 12
    }

    /// How far clocks may differ, and what rounding may add.
    pub fn clock_skew(self) -> Duration {
        self.minute / 30
    }

    /// How long after its last exchange a sidecar uses its first time slot. By then the server has reserved what the slots need, and
    /// everything that it leased before has left the window.
    pub fn slots_after(self) -> Duration {
        self.silent_after() + self.scan_interval() + self.cut_off() + self.minute + 2 * self.clock_skew()
    }

    /// How long after its pod was created, or was last heard, an unregistered sidecar counts as about to send. It uses its first
    /// slot some minutes later, when everything leased before the reserve has left the window.
    pub const fn unregistered_after(self) -> Duration {
        self.minute.saturating_mul(6)
    }

    /// How long a sidecar counts as unregistered after the last time that it was found to be.
    pub fn unregistered_for(self) -> Duration {
        self.idle_interval() + self.cut_off() + self.minute + 2 * self.clock_skew()
    }

    /// How often the first in the wait queue ask.
    pub fn poll_interval(self) -> Duration {
        self.minute / 60
    }

    /// How often all other sidecars ask.
    pub fn idle_interval(self) -> Duration {
        self.minute / 2
    }

    /// How long a stored record allows grants, and how old news becomes before it is stored.
    pub fn persist_interval(self) -> Duration {
        self.minute / 6
    }

    /// How long a route's limits count after its last sidecar was heard.
    pub const fn routes_kept(self) -> Duration {
        self.minute.saturating_mul(10)
    }
}

/// Milliseconds, for the wire.
pub(crate) fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

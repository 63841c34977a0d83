//! Every length of time in the sharing of a mailbox's limits, derived from the windows in which Microsoft counts.
//!
//! They belong together: what makes the sum safe is how they compare, and tests shorten them all by shortening the windows.

use std::time::Duration;

/// The windows, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The window of messages.
    pub minute: Duration,
    /// The window of recipients.
    pub day: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { minute: Duration::from_secs(60), day: Duration::from_secs(24 * 60 * 60) }
    }
}

impl Terms {
    /// How long a message may be begun after the lease for it was asked for: it waits already, so not long.
    pub fn valid(self) -> Duration {
        self.minute / 6
    }

    /// How long after its last exchange a sidecar cuts off what is under way. Until then a lost one may be sending.
    pub const fn cut(self) -> Duration {
        self.minute
    }

    /// How long a message may be under way. The longest that a sidecar gives one is less: 150 MiB at its slowest. A lease that is
    /// said to be in use for longer counts as used, and its connection as free.
    pub const fn longest(self) -> Duration {
        self.minute.saturating_mul(120)
    }

    /// How long after its last exchange a sidecar may be taking turns alone, as far as the leader knows.
    pub const fn silent(self) -> Duration {
        self.minute
    }

    /// How often it is looked who is silent.
    pub fn look(self) -> Duration {
        self.minute / 12
    }

    /// How far clocks may differ, and what rounding may add.
    pub fn skew(self) -> Duration {
        self.minute / 30
    }

    /// How long after its last exchange a sidecar takes the first turn. By then the leader has set aside what turns need, and
    /// what was leased before that has left every window.
    pub fn alone_after(self) -> Duration {
        self.silent() + self.look() + self.cut() + self.minute + 2 * self.skew()
    }

    /// How long after its pod was made, or it was heard last, a sidecar that was never answered may be about to send. It takes its
    /// first turn some minutes later: what was leased before it is looked who is silent has left every window by then.
    pub const fn estranged(self) -> Duration {
        self.minute.saturating_mul(6)
    }

    /// How long somebody counts as a stranger after that was last thought.
    pub fn lingers(self) -> Duration {
        self.idle() + self.cut() + self.minute + 2 * self.skew()
    }

    /// How often the first in the line ask.
    pub fn poll(self) -> Duration {
        self.minute / 60
    }

    /// How often everybody else does.
    pub fn idle(self) -> Duration {
        self.minute / 2
    }

    /// How long what is written down allows for, and how old news becomes before it is written down.
    pub fn ahead(self) -> Duration {
        self.minute / 6
    }

    /// How long a route counts after its last sidecar was heard.
    pub const fn remembered(self) -> Duration {
        self.minute.saturating_mul(10)
    }
}

#[cfg(test)]
mod tests {
    use mailroute_limits::strangers;

    use super::*;

    #[test]
    fn what_was_leased_before_the_reserve_was_set_aside_has_left_the_window_at_the_first_turn() {
        let terms = Terms::default();
        let set_aside = terms.silent() + terms.look();
        assert!(terms.alone_after() > set_aside + terms.cut() + terms.minute);
        let stranger_is_known = terms.estranged() + terms.idle();
        let first_turn = strangers::AFTER * terms.minute;
        assert!(first_turn > stranger_is_known + terms.cut() + terms.minute + 2 * terms.skew());
        assert!(terms.valid() < terms.cut(), "a lease is over before its holder counts as lost");
        assert!(terms.idle() + terms.ahead() < terms.silent(), "one missed exchange is not silence");
    }
}

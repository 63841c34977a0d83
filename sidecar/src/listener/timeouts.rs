//! When to give up on a client that is slow or silent.
//!
//! Owns the deadlines; time is passed in. A command has to be complete in time, however its octets drip in. A message has
//! to be complete in time from its MAIL on. A session that is kept open without mail, as pools of connections do, is
//! ended as politely as a silent one, and never in the middle of a message that began in time.

use tokio::time::Instant;

use super::SessionLimits;
use crate::smtp::answer::Answer;
use crate::smtp::session::Session;

/// How much sooner a client has to go that has not logged in.
const STRANGER: u32 = 5;

/// The deadlines of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionTimeouts {
    limits: SessionLimits,
    /// Commands seen when `command` was set.
    commands: u64,
    command: Instant,
    /// Transactions begun when `message` was set.
    transactions: u64,
    message: Instant,
    login: Instant,
    /// Since when the client has said nothing.
    quiet: Instant,
}

/// What a session has done, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionProgress {
    /// Commands received.
    pub commands: u64,
    /// Transactions begun.
    pub transactions: u64,
    /// A message is coming in.
    pub in_data: bool,
    /// Nobody has logged in who has to.
    pub is_stranger: bool,
}

impl SessionProgress {
    pub(super) fn of(session: &Session) -> Self {
        let (commands, transactions) = (session.commands(), session.transactions());
        Self { commands, transactions, in_data: session.is_in_data(), is_stranger: session.is_stranger() }
    }
}

impl SessionTimeouts {
    /// With a client that has just connected.
    pub(super) fn new(limits: SessionLimits, now: Instant) -> Self {
        let (command, message, login) = (now + limits.command, now + limits.message, now + limits.login);
        Self { limits, commands: 0, command, transactions: 0, message, login, quiet: now }
    }

    /// When to give up on the client, and what to tell it then.
    pub(super) fn deadline(&mut self, progress: SessionProgress, now: Instant) -> (Instant, Answer) {
        if progress.commands != self.commands {
            self.commands = progress.commands;
            (self.command, self.quiet) = (now + self.limits.command, now);
        }
        if progress.transactions != self.transactions {
            self.transactions = progress.transactions;
            self.message = now + self.limits.message;
        }
        let quiet = if progress.in_data { now + self.limits.data } else { self.command };
        let message = if progress.is_stranger && self.login < self.message {
            (self.login, Answer::LoginOverdue)
        } else {
            (self.message, Answer::Overdue)
        };
        if quiet < message.0 { (quiet, Answer::Idle) } else { message }
    }

    /// When a client that is between two messages has to go, as the process is about to end.
    pub(super) fn leave(&self, progress: SessionProgress) -> Instant {
        self.quiet + if progress.is_stranger { self.limits.leave / STRANGER } else { self.limits.leave }
    }

    /// A message was answered: all times begin anew, also after a long wait for the answer.
    pub(super) fn answered(&mut self, now: Instant) {
        (self.command, self.message) = (now + self.limits.command, now + self.limits.message);
        self.quiet = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn at(commands: u64, transactions: u64, in_data: bool) -> SessionProgress {
        SessionProgress { commands, transactions, in_data, is_stranger: false }
    }

    #[test]
    fn octets_that_drip_in_do_not_extend_a_commands_time() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        let expected = (start + minutes(5), Answer::Idle);
        assert_eq!(timeouts.deadline(at(0, 0, false), start + minutes(4)), expected);
        let next = timeouts.deadline(at(1, 0, false), start + minutes(4));
        assert_eq!(next, (start + minutes(9), Answer::Idle));
    }

    #[test]
    fn a_session_that_only_lives_is_ended() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        for noop in 1..7 {
            timeouts.deadline(at(noop, 0, false), start + minutes(4) * u32::try_from(noop).unwrap());
        }
        let last = timeouts.deadline(at(7, 0, false), start + minutes(28));
        assert_eq!(last, (start + minutes(30), Answer::Overdue));
    }

    #[test]
    fn a_pooled_session_has_the_whole_time_for_its_next_message() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        let late = start + minutes(29);
        assert_eq!(timeouts.deadline(at(9, 1, false), late), (late + minutes(5), Answer::Idle));
        let data = late + minutes(2);
        assert_eq!(timeouts.deadline(at(11, 1, true), data), (data + minutes(3), Answer::Idle));
        let end = late + minutes(28);
        assert_eq!(timeouts.deadline(at(11, 1, true), end), (late + minutes(30), Answer::Overdue));
    }

    #[test]
    fn a_stranger_has_a_minute_to_log_in_whatever_it_says() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        let stranger =
            |commands| SessionProgress { commands, is_stranger: true, ..SessionProgress::default() };
        for commands in 0..3 {
            let at = start + Duration::from_secs(15) * u32::try_from(commands).unwrap();
            assert_eq!(timeouts.deadline(stranger(commands), at), (start + minutes(1), Answer::LoginOverdue));
        }
        let logged_in = start + Duration::from_secs(50);
        assert_eq!(timeouts.deadline(at(4, 0, false), logged_in), (logged_in + minutes(5), Answer::Idle));
    }

    #[test]
    fn at_the_end_a_client_has_a_few_seconds_for_its_next_message_and_a_stranger_one_to_log_in() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        let stranger = SessionProgress { is_stranger: true, ..SessionProgress::default() };
        assert_eq!(timeouts.leave(stranger), start + Duration::from_secs(1));
        assert_eq!(timeouts.leave(at(0, 0, false)), start + Duration::from_secs(5));
        let later = start + minutes(1);
        timeouts.deadline(at(4, 1, false), later);
        assert_eq!(timeouts.leave(at(4, 1, false)), later + Duration::from_secs(5));
        timeouts.answered(later + minutes(1));
        assert_eq!(timeouts.leave(at(4, 1, false)), later + minutes(1) + Duration::from_secs(5));
    }

    #[test]
    fn after_an_answer_all_times_begin_anew() {
        let start = Instant::now();
        let mut timeouts = SessionTimeouts::new(SessionLimits::default(), start);
        timeouts.deadline(at(4, 1, true), start);
        timeouts.answered(start + minutes(29));
        let next = timeouts.deadline(at(4, 1, false), start + minutes(31));
        assert_eq!(next, (start + minutes(34), Answer::Idle));
    }
}

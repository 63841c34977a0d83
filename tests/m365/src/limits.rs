//! The counters behind Microsoft's per-mailbox limits: messages a minute, recipients a day, submitting connections, and
//! the bar after continuous errors.
//!
//! Pure: time is passed in, nothing is read from a clock. Windows slide; they do not start at the full minute. Keys are
//! mailbox addresses in lower case. It refuses to know replies.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::config::Limits;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What every mailbox has used.
#[derive(Debug, Default)]
pub struct Usage {
    mailboxes: HashMap<String, MailboxUsage>,
}

#[derive(Debug, Default)]
struct MailboxUsage {
    messages: VecDeque<Timestamp>,
    recipients: VecDeque<(Timestamp, usize)>,
    recipients_in_window: usize,
    submitting: HashSet<u64>,
    errors: VecDeque<Timestamp>,
    barred_until: Option<Timestamp>,
}

impl Usage {
    /// Counts a message that begins now. `Err` is the time at which the minute has room again.
    ///
    /// # Errors
    /// The rate is used up; nothing was counted.
    pub fn start_message(&mut self, mailbox: &str, limits: &Limits, now: Timestamp) -> Result<(), Timestamp> {
        let messages = &mut self.of(mailbox).messages;
        while messages.front().is_some_and(|&at| at + MINUTE <= now) {
            messages.pop_front();
        }
        if messages.len() >= limits.messages_per_minute {
            return Err(messages.front().map_or(now, |&oldest| oldest + MINUTE));
        }
        messages.push_back(now);
        Ok(())
    }

    /// Counts the recipients of an accepted message, unless they do not fit into the day. Says whether they did.
    pub fn spend_recipients(&mut self, mailbox: &str, count: usize, limits: &Limits, now: Timestamp) -> bool {
        let usage = self.of(mailbox);
        while let Some(&(at, spent)) = usage.recipients.front()
            && at + DAY <= now
        {
            usage.recipients_in_window -= spent;
            usage.recipients.pop_front();
        }
        if usage.recipients_in_window + count > limits.recipients_per_day {
            return false;
        }
        usage.recipients_in_window += count;
        usage.recipients.push_back((now, count));
        true
    }

    /// Takes a place among the submitting connections, or keeps the one it has. Says whether it has one.
    pub fn enter(&mut self, mailbox: &str, connection: u64, limits: &Limits) -> bool {
        let submitting = &mut self.of(mailbox).submitting;
        if submitting.contains(&connection) {
            return true;
        }
        submitting.len() < limits.submitting_connections && submitting.insert(connection)
    }

    /// Gives up the place of a connection.
    pub fn leave(&mut self, mailbox: &str, connection: u64) {
        self.of(mailbox).submitting.remove(&connection);
    }

    /// Counts a SendAsDenied answer; too many within an hour bar the mailbox.
    pub fn record_error(&mut self, mailbox: &str, limits: &Limits, now: Timestamp) {
        let usage = self.of(mailbox);
        usage.errors.push_back(now);
        while usage.errors.front().is_some_and(|&at| at + HOUR <= now) {
            usage.errors.pop_front();
        }
        if usage.errors.len() >= limits.continuous_errors {
            usage.errors.clear();
            let barred = i64::try_from(limits.barred_seconds).unwrap_or(i64::MAX / 1000);
            usage.barred_until = now.checked_add(SignedDuration::from_secs(barred)).ok();
        }
    }

    /// Whether the mailbox is barred from submission.
    #[must_use]
    pub fn is_barred(&self, mailbox: &str, now: Timestamp) -> bool {
        self.mailboxes
            .get(&mailbox.to_ascii_lowercase())
            .and_then(|usage| usage.barred_until)
            .is_some_and(|until| now < until)
    }

    fn of(&mut self, mailbox: &str) -> &mut MailboxUsage {
        self.mailboxes.entry(mailbox.to_ascii_lowercase()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: &str = "noreply@contoso.com";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_thirty_first_message_in_a_minute_is_too_many() {
        let (mut usage, limits) = (Usage::default(), Limits::default());
        for second in 0..30 {
            assert_eq!(usage.start_message(BOX, &limits, at(second)), Ok(()));
        }
        assert_eq!(usage.start_message(BOX, &limits, at(30)), Err(at(60)));
        assert_eq!(usage.start_message(BOX, &limits, at(59)), Err(at(60)));
        assert_eq!(usage.start_message(BOX, &limits, at(60)), Ok(()));
        assert_eq!(usage.start_message(BOX, &limits, at(60)), Err(at(61)));
    }

    #[test]
    fn no_minute_of_a_busy_day_has_more_than_thirty() {
        let (mut usage, limits) = (Usage::default(), Limits::default());
        let accepted: Vec<i64> = (0..86_400)
            .step_by(7)
            .filter(|&t| usage.start_message(BOX, &limits, at(t / 3)).is_ok())
            .collect();
        for start in &accepted {
            let within = accepted.iter().filter(|&t| t / 3 >= start / 3 && t / 3 < start / 3 + 60).count();
            assert!(within <= 30, "{within} from {start}");
        }
        assert!(accepted.len() > 30);
    }

    #[test]
    fn mailboxes_do_not_share_a_rate_but_spelling_does_not_make_two() {
        let (mut usage, limits) = (Usage::default(), Limits { messages_per_minute: 1, ..Limits::default() });
        assert!(usage.start_message(BOX, &limits, at(0)).is_ok());
        assert!(usage.start_message("NoReply@Contoso.com", &limits, at(1)).is_err());
        assert!(usage.start_message("other@contoso.com", &limits, at(1)).is_ok());
    }

    #[test]
    fn recipients_come_back_after_a_day() {
        let (mut usage, limits) = (Usage::default(), Limits::default());
        assert!(usage.spend_recipients(BOX, 9_999, &limits, at(0)));
        assert!(usage.spend_recipients(BOX, 1, &limits, at(10)));
        assert!(!usage.spend_recipients(BOX, 1, &limits, at(86_399)));
        assert!(usage.spend_recipients(BOX, 9_999, &limits, at(86_400)));
        assert!(!usage.spend_recipients(BOX, 1, &limits, at(86_401)));
        assert!(usage.spend_recipients(BOX, 1, &limits, at(86_410)));
    }

    #[test]
    fn the_fourth_connection_waits_for_a_place() {
        let (mut usage, limits) = (Usage::default(), Limits::default());
        assert!((1..=3).all(|connection| usage.enter(BOX, connection, &limits)));
        assert!(!usage.enter(BOX, 4, &limits));
        assert!(usage.enter(BOX, 2, &limits), "a place is kept");
        usage.leave(BOX, 1);
        assert!(usage.enter(BOX, 4, &limits));
    }

    #[test]
    fn continuous_errors_bar_the_mailbox_for_a_time() {
        let limits = Limits { continuous_errors: 3, barred_seconds: 100, ..Limits::default() };
        let mut usage = Usage::default();
        usage.record_error(BOX, &limits, at(0));
        usage.record_error(BOX, &limits, at(3600));
        usage.record_error(BOX, &limits, at(3601));
        assert!(!usage.is_barred(BOX, at(3602)), "the first is over an hour old");
        usage.record_error(BOX, &limits, at(3602));
        assert!(usage.is_barred(BOX, at(3701)));
        assert!(!usage.is_barred(BOX, at(3702)));
    }
}

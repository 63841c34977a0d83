//! The counters behind Microsoft's limits. Of a mailbox: messages a minute, recipients a day, submitting connections, and
//! the bar after continuous errors. Of a tenant: external recipients. Of an application: requests at Graph.
//!
//! Pure: time is passed in, nothing is read from a clock. Keys are in lower case. The peaks count what clients tried, also when it was refused. It refuses to know
//! replies.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{config::Limits, window::Window};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What every mailbox has used.
#[derive(Debug, Default)]
pub struct Usage {
    mailboxes: HashMap<String, MailboxUsage>,
    shared: HashMap<(Counter, String), Window>,
    requests: HashMap<String, Requests>,
}

/// What is counted of others than a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// External recipients of a tenant in a day.
    TenantRecipients,
    /// External recipients in a day of a tenant's `*.onmicrosoft.com` senders.
    OnmicrosoftRecipients,
    /// Requests at Graph of an application for a mailbox.
    GraphRequests,
    /// Bytes sent to Graph by an application for a mailbox.
    GraphUpload,
    /// Messages of a Communication Services resource in a minute.
    ServiceMinute,
    /// Messages of a Communication Services resource in an hour.
    ServiceHour,
}

/// Requests under way.
#[derive(Debug, Default)]
struct Requests {
    now: usize,
    peak: usize,
}

/// The most that clients asked of a mailbox at any time, within its limits or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peak {
    /// Messages in a minute that slides; one that was refused for the rate counts.
    pub messages_in_minute: usize,
    /// Recipients in a day that slides; those of a message that was refused for the quota count.
    pub recipients_in_day: usize,
    /// Connections that were submitting at once; one that was answered 432 counts.
    pub submitting_connections: usize,
}

#[derive(Debug, Default)]
struct MailboxUsage {
    messages: Window,
    recipients: Window,
    submitting: HashSet<u64>,
    submitting_peak: usize,
    errors: VecDeque<Timestamp>,
    barred_until: Option<Timestamp>,
}

impl Usage {
    /// Counts a message that begins now. `Err` is the time at which the minute has room again.
    ///
    /// # Errors
    /// The rate is used up; nothing was counted.
    pub fn start_message(&mut self, mailbox: &str, limits: &Limits, now: Timestamp) -> Result<(), Timestamp> {
        let most = limits.messages_per_minute as u64;
        self.of(mailbox).messages.spend(1, most, limits.minute_milliseconds, now)
    }

    /// Counts the recipients of an accepted message, unless they do not fit into the day. Says whether they did.
    pub fn spend_recipients(&mut self, mailbox: &str, count: usize, limits: &Limits, now: Timestamp) -> bool {
        let most = limits.recipients_per_day as u64;
        self.of(mailbox).recipients.spend(count as u64, most, limits.day_milliseconds, now).is_ok()
    }

    /// Counts something that is not a mailbox's, unless it does not fit.
    ///
    /// # Errors
    /// See [`Window::spend`].
    pub fn spend(
        &mut self,
        (counter, key): (Counter, &str),
        amount: u64,
        (most, milliseconds): (u64, u64),
        now: Timestamp,
    ) -> Result<(), Timestamp> {
        let window = self.shared.entry((counter, key.to_ascii_lowercase())).or_default();
        window.spend(amount, most, milliseconds, now)
    }

    /// Takes a place among so many requests under way of `key`; 0 is no limit. Says whether it has one.
    pub fn begin_request(&mut self, key: &str, most: usize) -> bool {
        let requests = self.requests.entry(key.to_ascii_lowercase()).or_default();
        requests.peak = requests.peak.max(requests.now + 1);
        let room = most == 0 || requests.now < most;
        requests.now += usize::from(room);
        room
    }

    /// Gives up the place of a request.
    pub fn end_request(&mut self, key: &str) {
        if let Some(requests) = self.requests.get_mut(&key.to_ascii_lowercase()) {
            requests.now = requests.now.saturating_sub(1);
        }
    }

    /// The most requests that were under way at once, by whom they are counted for.
    pub fn request_peaks(&self) -> impl Iterator<Item = (&str, usize)> {
        self.requests.iter().map(|(key, requests)| (key.as_str(), requests.peak))
    }

    /// Takes a place among the submitting connections, or keeps the one it has. Says whether it has one.
    pub fn enter(&mut self, mailbox: &str, connection: u64, limits: &Limits) -> bool {
        let usage = self.of(mailbox);
        let submitting = &mut usage.submitting;
        if submitting.contains(&connection) {
            return true;
        }
        usage.submitting_peak = usage.submitting_peak.max(submitting.len() + 1);
        let room = limits.submitting_connections == 0 || submitting.len() < limits.submitting_connections;
        room && submitting.insert(connection)
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

    /// The peaks of a mailbox; none when it was never used.
    #[must_use]
    pub fn peak(&self, mailbox: &str) -> Peak {
        self.mailboxes.get(&mailbox.to_ascii_lowercase()).map(MailboxUsage::peak).unwrap_or_default()
    }

    /// Every mailbox that was used, with its peaks, in no order.
    pub fn peaks(&self) -> impl Iterator<Item = (&str, Peak)> {
        self.mailboxes.iter().map(|(mailbox, usage)| (mailbox.as_str(), usage.peak()))
    }

    /// Forgets the peaks; what counts against the limits stays.
    pub fn forget_peaks(&mut self) {
        for usage in self.mailboxes.values_mut() {
            usage.messages.forget_peak();
            usage.recipients.forget_peak();
            usage.submitting_peak = 0;
        }
        self.requests.values_mut().for_each(|requests| requests.peak = 0);
    }

    fn of(&mut self, mailbox: &str) -> &mut MailboxUsage {
        self.mailboxes.entry(mailbox.to_ascii_lowercase()).or_default()
    }
}

impl MailboxUsage {
    fn peak(&self) -> Peak {
        let count = |window: &Window| usize::try_from(window.peak()).unwrap_or(usize::MAX);
        Peak {
            messages_in_minute: count(&self.messages),
            recipients_in_day: count(&self.recipients),
            submitting_connections: self.submitting_peak,
        }
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
    fn a_limit_of_none_costs_no_memory() {
        let limits = Limits {
            messages_per_minute: 0,
            recipients_per_day: 0,
            submitting_connections: 0,
            ..Limits::default()
        };
        let mut usage = Usage::default();
        for connection in 0..100 {
            assert_eq!(usage.start_message(BOX, &limits, at(0)), Ok(()));
            assert!(usage.spend_recipients(BOX, 1_000, &limits, at(0)));
            assert!(usage.enter(BOX, connection, &limits));
        }
        assert_eq!(usage.of(BOX).messages.held() + usage.of(BOX).recipients.held(), 0);
    }

    #[test]
    fn minute_and_day_may_be_short() {
        let limits = Limits {
            messages_per_minute: 1,
            minute_milliseconds: 50,
            recipients_per_day: 1,
            day_milliseconds: 200,
            ..Limits::default()
        };
        let after = |milliseconds| at(0) + SignedDuration::from_millis(milliseconds);
        let mut usage = Usage::default();
        assert_eq!(usage.start_message(BOX, &limits, at(0)), Ok(()));
        assert_eq!(usage.start_message(BOX, &limits, after(49)), Err(after(50)));
        assert_eq!(usage.start_message(BOX, &limits, after(50)), Ok(()));
        assert!(usage.spend_recipients(BOX, 1, &limits, at(0)));
        assert!(!usage.spend_recipients(BOX, 1, &limits, after(199)));
        assert!(usage.spend_recipients(BOX, 1, &limits, after(200)));
    }

    #[test]
    fn peaks_count_what_was_tried() {
        let limits = Limits {
            messages_per_minute: 2,
            recipients_per_day: 5,
            submitting_connections: 1,
            ..Limits::default()
        };
        let mut usage = Usage::default();
        assert_eq!(usage.peak(BOX), Peak::default());
        for second in [0, 1, 2, 100] {
            assert_eq!(usage.start_message(BOX, &limits, at(second)).is_ok(), second != 2);
        }
        usage.spend_recipients(BOX, 4, &limits, at(0));
        usage.spend_recipients(BOX, 4, &limits, at(1));
        usage.enter(BOX, 1, &limits);
        usage.enter(BOX, 2, &limits);
        let peak = Peak { messages_in_minute: 3, recipients_in_day: 8, submitting_connections: 2 };
        assert_eq!(usage.peak("NoReply@contoso.com"), peak);
        usage.forget_peaks();
        assert_eq!(usage.peak(BOX), Peak::default());
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

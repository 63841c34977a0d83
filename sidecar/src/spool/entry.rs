//! What is kept of a message besides its octets: the part that never changes, and how far it has come.
//!
//! Plain data. Owns what a fresh message, a settled recipient and a second chance are. Refuses to know where either part
//! is kept ([`super::format`]) and when a message is due: that is for the queue to decide.
//!
//! Invariant: [`Progress::statuses`] has one status for each recipient of the envelope, in its order.

use std::fmt;

use jiff::Timestamp;
use mailroute_route::condition::Reason;
use mailroute_route::text::shortened;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::message::envelope::Envelope;

/// The part of a kept message that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who sends what to whom.
    pub envelope: Envelope,
    /// Where it came from.
    pub kind: Kind,
    /// When it was taken, for its age.
    pub accepted: Timestamp,
}

/// Where a kept message came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// From an application.
    #[default]
    Message,
    /// Made here, about another message. Never causes a third.
    Notification,
}

/// The part of a kept message that changes with every attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Attempts made so far that count against its age or its tries.
    pub attempts: u32,
    /// Not to be tried before.
    pub next: Timestamp,
    /// Since when it is tried, when that is not since it was taken: a person asked for it to be tried anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Another pod is trying it: nobody else does before this time, whatever makes the queue due, unless a person asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Timestamp>,
    /// What has become of each recipient, in the envelope's order.
    #[serde(rename = "fates")]
    pub statuses: Vec<RecipientStatus>,
    /// What went wrong last, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<DeliveryProblem>,
}

/// What has become of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecipientStatus {
    /// Still to be delivered to.
    Waiting,
    /// The upstream has taken the message for it.
    Delivered,
    /// Given up, and why.
    Failed(DeliveryProblem),
}

/// Recipients of a message by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusCounts {
    /// Still to be delivered to.
    pub waiting: usize,
    /// The upstream has taken the message for them.
    pub delivered: usize,
    /// Given up.
    pub failed: usize,
}

/// Something that stood in the way. Free of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryProblem {
    /// When it was met.
    pub at: Timestamp,
    /// Name of the outcome, as in metrics and logs.
    pub outcome: String,
    /// The reason, when it is known to be about more than this message.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    pub reason: Option<Reason>,
    /// What was met, in words. Only the first [`MAX_TEXT_BYTES`] are kept.
    #[serde(serialize_with = "clipped")]
    pub text: String,
    /// Whether `text` is the upstream's own reply, in one line.
    #[serde(default)]
    pub replied: bool,
    /// The upstream's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Octets of a [`DeliveryProblem::text`] that are written down. An SMTP reply line has 512 (RFC 5321 §4.5.3.1.5).
pub const MAX_TEXT_BYTES: usize = 512;

impl Entry {
    /// A message from an application, taken at `accepted`.
    pub const fn message(envelope: Envelope, accepted: Timestamp) -> Self {
        Self { envelope, kind: Kind::Message, accepted }
    }
}

impl Progress {
    /// How a message begins: due at once, for everybody.
    pub fn fresh(entry: &Entry) -> Self {
        let statuses = vec![RecipientStatus::Waiting; entry.envelope.recipients.len()];
        Self { attempts: 0, next: entry.accepted, since: None, reserved_until: None, statuses, last: None }
    }

    /// A second chance for a message that was given up: due at `now`, for everybody who did not get it, with its time
    /// anew. What went wrong last stays, so that it can still be seen.
    #[must_use]
    pub fn again(mut self, now: Timestamp) -> Self {
        (self.attempts, self.next, self.since, self.reserved_until) = (0, now, Some(now), None);
        for status in &mut self.statuses {
            if matches!(status, RecipientStatus::Failed(_)) {
                *status = RecipientStatus::Waiting;
            }
        }
        self
    }

    /// The progress of a message that two pods have tried, with what the `other` has found out since: nobody who is settled waits
    /// again, and a delivery counts whoever made it. Who says how far a message has come does not try it any more.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        for (status, theirs) in self.statuses.iter_mut().zip(other.statuses) {
            if *status == RecipientStatus::Waiting || theirs == RecipientStatus::Delivered {
                *status = theirs;
            }
        }
        (self.attempts, self.next) = (self.attempts.max(other.attempts), other.next);
        self.reserved_until = None;
        self.last = other.last.or(self.last);
        self
    }

    /// How many recipients have which status.
    pub fn counts(&self) -> StatusCounts {
        let mut counts = StatusCounts::default();
        for status in &self.statuses {
            *match status {
                RecipientStatus::Waiting => &mut counts.waiting,
                RecipientStatus::Delivered => &mut counts.delivered,
                RecipientStatus::Failed(_) => &mut counts.failed,
            } += 1;
        }
        counts
    }

    /// Whether the message was given up for a recipient.
    pub fn has_failed(&self) -> bool {
        self.statuses.iter().any(|status| matches!(status, RecipientStatus::Failed(_)))
    }

    /// Recipients still to be delivered to.
    pub fn waiting(&self) -> usize {
        self.statuses.iter().filter(|status| **status == RecipientStatus::Waiting).count()
    }

    /// Whether a recipient was settled. To forget that would be a duplicate or a second report.
    pub fn is_settled(&self) -> bool {
        self.waiting() < self.statuses.len()
    }
}

impl StatusCounts {
    /// All recipients.
    pub const fn total(&self) -> usize {
        self.waiting + self.delivered + self.failed
    }
}

impl fmt::Display for StatusCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waiting, delivered, failed } = self;
        write!(f, "{waiting} waiting, {delivered} delivered, {failed} failed")
    }
}

/// A reason that only another version knows is no cause to forget who has got the message.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Reason>, D::Error> {
    let name: Option<String> = Deserialize::deserialize(from)?;
    Ok(name.and_then(|name| Reason::ALL.iter().copied().find(|reason| reason.as_str() == name)))
}

fn clipped<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&shortened(text, MAX_TEXT_BYTES))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::envelope::{Address, BodyType, QueueId, ReversePath};

    pub(in crate::spool) fn sample(second: i64, recipients: &[&str]) -> Entry {
        let accepted = Timestamp::from_second(second).unwrap();
        let envelope = Envelope {
            id: QueueId::new(accepted, 7),
            message_id: "<1@contoso.com>".into(),
            client_name: "app".into(),
            reverse_path: ReversePath::Address(Address::parse("noreply@contoso.com").unwrap()),
            recipients: recipients.iter().map(|to| Address::parse(to).unwrap()).collect(),
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
            archive: None,
            mailbox: None,
        };
        Entry { envelope, kind: Kind::Message, accepted }
    }

    pub(in crate::spool) fn trouble(text: &str) -> DeliveryProblem {
        DeliveryProblem {
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            outcome: "reject_recipient".into(),
            reason: Some(Reason::SendAsDenied),
            text: text.into(),
            replied: true,
            host: Some("FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM".into()),
        }
    }

    #[test]
    fn a_fresh_message_is_due_when_it_was_accepted() {
        let entry = sample(1_800_000_000, &["a@b.example", "c@d.example"]);
        let fresh = Progress::fresh(&entry);
        assert_eq!((fresh.next, fresh.waiting(), fresh.is_settled()), (entry.accepted, 2, false));
    }

    #[test]
    fn a_second_chance_is_for_those_who_did_not_get_it() {
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        let statuses = vec![
            RecipientStatus::Delivered,
            RecipientStatus::Failed(trouble("550 5.1.1 unknown")),
            RecipientStatus::Waiting,
        ];
        let (next, last) = (Timestamp::MIN, Some(trouble("last")));
        let given_up =
            Progress { attempts: 40, next, since: None, reserved_until: Some(now), statuses, last };
        let again = given_up.again(now);
        assert_eq!(
            again.statuses,
            [RecipientStatus::Delivered, RecipientStatus::Waiting, RecipientStatus::Waiting]
        );
        assert_eq!(
            (again.attempts, again.next, again.since, again.reserved_until),
            (0, now, Some(now), None)
        );
        assert_eq!(again.last, Some(trouble("last")));
    }

    #[test]
    fn what_two_pods_have_found_out_is_joined_and_nobody_who_is_settled_waits_again() {
        use RecipientStatus::{Delivered, Failed, Waiting};
        let failed = || Failed(trouble("550 5.1.1 unknown"));
        let entry = sample(1, &["a@b.example"; 6]);
        let of = |statuses: [RecipientStatus; 6], attempts| Progress {
            statuses: statuses.into(),
            attempts,
            ..Progress::fresh(&entry)
        };
        let ours = of([Waiting, Waiting, Delivered, Delivered, failed(), failed()], 3);
        let theirs = of([Delivered, failed(), Waiting, failed(), Waiting, Delivered], 2);
        let joined = ours.joined(theirs);
        assert_eq!(joined.statuses, [Delivered, failed(), Delivered, Delivered, failed(), Delivered]);
        assert_eq!(joined.attempts, 3);
    }
}

//! What is told of a kept message.
//!
//! Plain functions of what the spool and the queue know. Refuses to know how it looks and how it got here.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::envelope::QueueId;
use crate::queue::{Obstacle, QueuePlace};
use crate::spool::{DeliveryProblem, Entry, Glance, Kind, Progress, RecipientStatus, Shelf, SpoolError};

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Waits for its own time.
    Waiting,
    /// Waits for the route to work again, or for the mailbox's limits.
    Held,
    /// Is being tried now.
    Trying,
    /// Was given up.
    Dead,
}

impl State {
    /// The word that people read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Trying => "trying",
            Self::Dead => "dead",
        }
    }

    /// As the queue has it.
    pub const fn of_place(place: QueuePlace, held: bool) -> Self {
        match place {
            QueuePlace::Waiting if held => Self::Held,
            QueuePlace::Waiting => Self::Waiting,
            QueuePlace::Trying => Self::Trying,
            QueuePlace::Dead => Self::Dead,
        }
    }

    /// As far as can be told from the disk alone.
    pub const fn of_shelf(shelf: Shelf) -> Self {
        match shelf {
            Shelf::Queue => Self::Waiting,
            Shelf::Dead => Self::Dead,
        }
    }
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which message.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// When it is tried next, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What it waits for, when that is not its own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Obstacle>,
    /// What is known of it. Nothing when its file cannot be read.
    #[serde(flatten)]
    pub about: Option<About>,
    /// Why its file cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// What is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// When it was taken.
    pub accepted: Timestamp,
    /// Where it came from.
    pub kind: Kind,
    /// Attempts made so far that count.
    pub attempts: u32,
    /// Octets of the message.
    pub bytes: u64,
    /// The Message-ID, by which a person looks for it.
    #[serde(default)]
    pub message_id: String,
    /// The reverse path; empty for a notification.
    pub from: String,
    /// How its recipients fare.
    pub to: Counts,
    /// What stands in the way, if anything was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<DeliveryProblem>,
}

/// Recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Still to be delivered to.
    pub waiting: usize,
    /// The upstream has taken the message for them.
    pub delivered: usize,
    /// Given up.
    pub failed: usize,
}

/// One message in full, but for its octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// What a list says of it.
    #[serde(flatten)]
    pub row: Row,
    /// What the application called itself.
    pub client: String,
    /// Its recipients, in the order given.
    pub recipients: Vec<Recipient>,
    /// Its header; what is not UTF-8 is replaced.
    pub header: String,
}

/// A recipient, and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The address.
    pub address: String,
    /// What has become of it.
    pub fate: RecipientStatus,
}

/// The line for a message.
pub fn row(id: &QueueId, state: State, next: Option<Timestamp>, glance: &Glance) -> Row {
    let Glance { entry, progress, bytes, .. } = glance;
    let about = Some(about(entry, progress, *bytes));
    Row { id: id.to_string(), state, next, waits_for: None, about, unreadable: None }
}

/// The line for a message whose file cannot be read.
pub fn unreadable(id: &QueueId, state: State, next: Option<Timestamp>, error: &SpoolError) -> Row {
    let unreadable = Some(sentence(error));
    Row { id: id.to_string(), state, next, waits_for: None, about: None, unreadable }
}

/// An error and its cause.
pub(super) fn sentence(error: &SpoolError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// A message in full.
pub fn message(row: Row, entry: &Entry, progress: &Progress, header: &[u8]) -> Message {
    let pairs = entry.envelope.recipients.iter().zip(&progress.statuses);
    Message {
        row,
        client: entry.envelope.client_name.clone(),
        recipients: pairs
            .map(|(address, fate)| Recipient { address: address.as_str().into(), fate: fate.clone() })
            .collect(),
        header: String::from_utf8_lossy(header).into_owned(),
    }
}

fn about(entry: &Entry, progress: &Progress, bytes: u64) -> About {
    let count = |is: fn(&RecipientStatus) -> bool| progress.statuses.iter().filter(|fate| is(fate)).count();
    About {
        accepted: entry.accepted,
        kind: entry.kind,
        attempts: progress.attempts,
        bytes,
        message_id: entry.envelope.message_id.clone(),
        from: entry.envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        to: Counts {
            waiting: progress.waiting(),
            delivered: count(|fate| *fate == RecipientStatus::Delivered),
            failed: count(|fate| matches!(fate, RecipientStatus::Failed(_))),
        },
        trouble: trouble(progress).cloned(),
    }
}

/// What a person should know first: why some were given up, or else what was met last.
fn trouble(progress: &Progress) -> Option<&DeliveryProblem> {
    let failed = progress.statuses.iter().find_map(|fate| match fate {
        RecipientStatus::Failed(trouble) => Some(trouble),
        _ => None,
    });
    failed.or(progress.last.as_ref())
}

//! What is said over the socket: one line of JSON with a [`Request`], one line with an [`Answer`]. Behind
//! [`Answer::Content`] follow the octets of a message.
//!
//! Plain data. Both ends are the same program, so there are no versions; what is not known is refused.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::listing::{Message, Row};
use crate::message::envelope::QueueId;
use crate::queue::Obstacle;

/// Longest request: the most ids there may be, each with quotes and comma.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024;

/// Longest answer: a message with a thousand recipients, each with the longest address and a reason for its failure,
/// takes less than a third of it.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Messages in one page of a list.
pub const PAGE: usize = 500;

/// What a person wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// A page of a list.
    List {
        /// Of what.
        part: Part,
        /// Only what stands behind this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Id>,
    },
    /// What keeps every message from being tried.
    Obstacle,
    /// One message.
    Show(Id),
    /// One message's octets.
    Export(Id),
    /// To try messages now.
    Retry(Chosen),
    /// To forget messages, but not more than `most` of them.
    Drop {
        /// Which.
        chosen: Chosen,
        /// How many are meant at most; any number when it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        most: Option<usize>,
    },
}

/// A part of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// What waits or is being tried.
    Waiting,
    /// What was given up.
    Dead,
}

/// Which messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Chosen {
    /// These.
    Ids(Vec<Id>),
    /// All that wait.
    Waiting,
    /// All that were given up.
    Dead,
    /// All whose files were set aside.
    Corrupt,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Request::List`].
    Page(Page),
    /// To [`Request::Obstacle`].
    Obstacle(Option<Obstacle>),
    /// To [`Request::Show`].
    Message(Box<Message>),
    /// To [`Request::Export`]: so many octets follow.
    Content(u64),
    /// To [`Request::Retry`] and [`Request::Drop`].
    Changed(Changed),
    /// It cannot be done, and why.
    Refused(String),
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// When the page was made: ages are counted from here.
    pub now: Timestamp,
    /// The messages.
    pub rows: Vec<Row>,
    /// Where the next page begins; nothing when this is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Id>,
    /// Files that were set aside, in the last page of what was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrupt: Vec<String>,
}

/// What was changed, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// How many messages were tried or forgotten as asked for.
    pub done: usize,
    /// Why others were not: one sentence for each, with its id.
    pub failed: Vec<String>,
    /// What keeps those that are to be tried now from being tried at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Obstacle>,
}

/// A queue id as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub QueueId);

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        QueueId::parse(&text).map(Self).ok_or("not a queue id")
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0.as_str().to_owned()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value as the line that is sent.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    // Only maps with odd keys and failing `Serialize` impls can fail, and there are none here.
    let mut line = serde_json::to_vec(value).expect("plain data serialises");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::queue::MAX_IDS;

    fn id(number: u64) -> Id {
        Id(QueueId::new(Timestamp::UNIX_EPOCH, number))
    }

    #[test]
    fn a_request_is_one_line_and_is_read_again() {
        for request in [
            Request::List { part: Part::Dead, after: Some(id(3)) },
            Request::Show(id(1)),
            Request::Retry(Chosen::Waiting),
            Request::Retry(Chosen::Corrupt),
            Request::Drop { chosen: Chosen::Ids(vec![id(1), id(2)]), most: Some(1) },
        ] {
            let line = line(&request);
            assert_eq!(line.iter().filter(|&&octet| octet == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), request);
        }
    }

    #[test]
    fn the_longest_request_fits() {
        let chosen = Chosen::Ids((0..MAX_IDS as u64).map(id).collect());
        assert!(line(&Request::Drop { chosen, most: Some(MAX_IDS) }).len() <= MAX_REQUEST_BYTES);
    }

    #[test]
    fn an_id_that_is_a_path_is_no_request() {
        for line in [r#"{"show":"../../etc/passwd"}"#, r#"{"show":""}"#, r#"{"retry":{"ids":["x"]}}"#] {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
    }
}

//! How a kept message is written down: two files that a person can read with `cat`.
//!
//! `<id>` never changes: a frame that describes the message, an empty line, the message as it is.
//!
//! ```text
//! mailroute-message 1 236 6f0c2a11
//! {"id":"…","kind":"message","accepted":"2026-11-03T09:12:44Z","from":"noreply@contoso.com","to":[…],"bytes":…,"crc32":"…"}
//!
//! Received: …
//! ```
//!
//! `<id>.state` is replaced as a whole after every attempt, and absent before the first: a frame with attempts, next
//! attempt, the status of each recipient and the last problem.
//!
//! Pure. Owns the names on disk, and keeps serde out of [`crate::message::envelope`]. Fields that are not known are ignored, as
//! a message must not wait for a program to be upgraded again; what an old reader would misread raises the version of
//! [`super::frame`].

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind, Progress};
use super::frame::{self, FormatError};
use crate::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};

const MESSAGE: &str = "mailroute-message";
const STATE: &str = "mailroute-state";

/// All in front of the message in an entry's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the message is.
    pub entry: Entry,
    /// Octets of the message.
    pub bytes: u64,
    /// CRC-32 of the message.
    pub crc32: u32,
    /// Octets of the head, the empty line included.
    pub len: usize,
}

/// What goes in front of a message of `bytes` octets in its file.
///
/// # Errors
/// When the envelope is too large to be read again.
pub fn encode_entry(entry: &Entry, bytes: u64, crc32: u32) -> Result<Vec<u8>, FormatError> {
    let mut head = Vec::new();
    frame::push(&mut head, MESSAGE, &json(&EntryRecord::new(entry, bytes, crc32))?)?;
    head.push(b'\n');
    Ok(head)
}

/// The head of an entry's file, from its beginning.
///
/// # Errors
/// When there is no whole and sensible one. [`FormatError::CutOff`] says how much more to read.
pub fn parse_entry(octets: &[u8]) -> Result<Head, FormatError> {
    let (json, end) = frame::parse(octets, MESSAGE)?;
    match octets.get(end) {
        Some(b'\n') => {}
        Some(_) => return Err(senseless("no empty line in front of the message")),
        None => return Err(FormatError::CutOff { needed: end + 1 }),
    }
    let record: EntryRecord<'_> = serde_json::from_slice(json).map_err(senseless)?;
    let crc32 = u32::from_str_radix(&record.crc32, 16).map_err(senseless)?;
    Ok(Head { bytes: record.bytes, crc32, len: end + 1, entry: record.into_entry()? })
}

/// The file with a message's progress.
///
/// # Errors
/// When it would be too large to be read again.
pub fn encode_progress(progress: &Progress) -> Result<Vec<u8>, FormatError> {
    let mut state = Vec::new();
    frame::push(&mut state, STATE, &json(progress)?)?;
    Ok(state)
}

/// The progress of a message with so many recipients.
///
/// # Errors
/// When the file is not whole or makes no sense.
pub fn parse_progress(octets: &[u8], recipients: usize) -> Result<Progress, FormatError> {
    let (json, end) = frame::parse(octets, STATE)?;
    let progress: Progress = serde_json::from_slice(json).map_err(senseless)?;
    if progress.statuses.len() != recipients || end != octets.len() {
        return Err(senseless("fates of other recipients"));
    }
    Ok(progress)
}

fn json(record: &impl Serialize) -> Result<Vec<u8>, FormatError> {
    serde_json::to_vec(record).map_err(senseless)
}

fn senseless(error: impl std::fmt::Display) -> FormatError {
    FormatError::Senseless(error.to_string())
}

/// An [`Entry`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryRecord<'a> {
    id: Cow<'a, str>,
    kind: Kind,
    accepted: Timestamp,
    /// Absent: the null reverse path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    to: Vec<Cow<'a, str>>,
    /// The one of them that gets the archive copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<Cow<'a, str>>,
    /// The mailbox that sends it, where the route has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mailbox: Option<Cow<'a, str>>,
    message_id: Cow<'a, str>,
    client_name: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_default")]
    eight_bit_mime: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    smtp_utf8: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    announced_size: Option<u64>,
    bytes: u64,
    crc32: Cow<'a, str>,
}

fn is_default(flag: &bool) -> bool {
    !*flag
}

impl<'a> EntryRecord<'a> {
    fn new(entry: &'a Entry, bytes: u64, crc32: u32) -> Self {
        let Entry { envelope, kind, accepted } = entry;
        Self {
            id: envelope.id.as_str().into(),
            kind: *kind,
            accepted: *accepted,
            from: envelope.reverse_path.address().map(|from| from.as_str().into()),
            to: envelope.recipients.iter().map(|to| to.as_str().into()).collect(),
            archive: envelope.archive.as_ref().map(|archive| archive.as_str().into()),
            mailbox: envelope.mailbox.as_ref().map(|mailbox| mailbox.as_str().into()),
            message_id: envelope.message_id.as_str().into(),
            client_name: envelope.client_name.as_str().into(),
            eight_bit_mime: envelope.body == BodyType::EightBitMime,
            smtp_utf8: envelope.smtp_utf8,
            announced_size: envelope.size,
            bytes,
            crc32: format!("{crc32:08x}").into(),
        }
    }

    fn into_entry(self) -> Result<Entry, FormatError> {
        if self.to.is_empty() {
            return Err(senseless("no recipients"));
        }
        let envelope = Envelope {
            id: QueueId::parse(&self.id).ok_or_else(|| senseless("not an id"))?,
            message_id: self.message_id.into_owned(),
            client_name: self.client_name.into_owned(),
            reverse_path: match self.from {
                None => ReversePath::Null,
                Some(from) => ReversePath::Address(Address::parse(&from).map_err(senseless)?),
            },
            recipients: self
                .to
                .iter()
                .map(|to| Address::parse(to).map_err(senseless))
                .collect::<Result<_, _>>()?,
            archive: self.archive.map(|to| Address::parse(&to).map_err(senseless)).transpose()?,
            mailbox: self.mailbox.map(|from| Address::parse(&from).map_err(senseless)).transpose()?,
            body: if self.eight_bit_mime { BodyType::EightBitMime } else { BodyType::SevenBit },
            smtp_utf8: self.smtp_utf8,
            size: self.announced_size,
        };
        Ok(Entry { envelope, kind: self.kind, accepted: self.accepted })
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;

//! A message's header section on its way through: looked at, and its `From` judged.
//!
//! Owns what is needed to stamp a message at its end: which fields are there, who `From` names, and how many hops the
//! message has behind it. Takes out what the stamp puts in anew: a `From` that is to be rewritten or names nothing at all,
//! and the line that mail folders put in front of messages. Everything else passes through octet for octet, and behind the
//! empty line nothing is looked at. Refuses to judge whether any other field is well formed.
//!
//! Memory: one shortened line, and `From`.
//!
//! Where readers disagree: a line that is no field ends the header for some and not for others. When there are rules on
//! `From`, one that could be read behind such a line is refused.

use super::answer::Answer;
use super::senders::{Judgement, Senders};

/// Most octets of a line that are looked at. Enough for every field name and for any Message-ID that RFC 5322 §2.1.1
/// lets into one line.
const MAX_LOOKED_AT: usize = 1000;

/// Most octets of a header section: what Exchange takes by default (MaxHeaderSize).
pub const MAX_HEADER_BYTES: u64 = 256 * 1024;

/// Most octets of a `From` field.
pub const MAX_FROM_BYTES: usize = 16 * 1024;

/// What the header section holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// A `Date` field.
    pub date: bool,
    /// The value of the first `Message-ID` field, unfolded, without surrounding space and control characters.
    pub message_id: Option<String>,
    /// The number of `Received` fields: hops so far.
    pub received: u32,
    /// Who is named in `From`.
    pub from: From,
    /// A `Reply-To` field.
    pub reply_to: bool,
    /// The message begins with text that is no header field. A header put in front of it needs an empty line between.
    pub missing: bool,
}

/// What became of `From`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// There was none, or none with a value. One has to be added.
    #[default]
    Absent,
    /// There is one, and it was passed on.
    Kept,
    /// It was taken out. Another one has to be put in.
    Removed {
        /// Its value, up to and including the line end.
        value: Vec<u8>,
    },
}

/// Passes a header section on: decoded octets, with CR LF line ends only.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    found: Headers,
    at: Place,
    len: u64,
    /// The current line, as far as it was received and is looked at.
    line: Vec<u8>,
    /// What becomes of the rest of a line that is longer than is looked at.
    rest_of_line: Option<Part>,
    /// The `From` field that may still go on.
    from: Option<Vec<u8>>,
    refused: Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Field,
    MessageId,
    From,
    /// Behind a line that is no field: text for us, header for others.
    Unclear,
    Body,
}

/// Where the octets of a line go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Message,
    From,
    Nowhere,
}

/// What was met that a message is refused for.
#[derive(Clone, Debug, Default)]
struct Refused {
    several_from: bool,
    long_from: bool,
    unclear_from: bool,
    sender: Option<String>,
}

impl Pass {
    /// Takes the next octets and appends what passes to `message`.
    pub fn pass(&mut self, octets: &[u8], message: &mut Vec<u8>, senders: &Senders) {
        let mut rest = octets;
        while self.at != Place::Body && !rest.is_empty() {
            let len = rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, behind) = rest.split_at(len);
            self.len = self.len.saturating_add(len as u64);
            self.piece(piece, message, senders);
            rest = behind;
        }
        message.extend_from_slice(rest);
    }

    /// The message is at its end: what is held back goes where it belongs.
    pub fn end(&mut self, message: &mut Vec<u8>, senders: &Senders) {
        if !self.line.is_empty() {
            self.begin_line(message, senders);
        }
        self.close_from(message, senders);
    }

    /// Whether all that follows is the body, which passes as it is.
    pub fn is_through(&self) -> bool {
        self.at == Place::Body
    }

    /// What was found so far.
    pub fn headers(&self) -> &Headers {
        &self.found
    }

    /// Takes what was found.
    pub fn finish(self) -> Headers {
        self.found
    }

    /// Why the message is refused for its header, if it is.
    pub fn refusal(&self) -> Option<Answer> {
        let Refused { several_from, long_from, unclear_from, sender } = &self.refused;
        match () {
            () if self.len > MAX_HEADER_BYTES => Some(Answer::HeaderTooLarge),
            () if self.found.received > super::transaction::MAX_HOPS => Some(Answer::MailLoop),
            () if *long_from => Some(Answer::FromTooLong),
            () if *several_from => Some(Answer::SeveralFrom),
            () if *unclear_from => Some(Answer::NoFieldInHeader),
            () => sender.as_ref().map(|_| Answer::SenderNotAllowed),
        }
    }

    /// Who is not allowed, and who is: what belongs to [`Answer::SenderNotAllowed`].
    pub fn foreign_sender(&self) -> Option<&str> {
        self.refused.sender.as_deref()
    }

    /// All or some octets of one line, the last of them perhaps its end.
    fn piece(&mut self, piece: &[u8], message: &mut Vec<u8>, senders: &Senders) {
        let ends = piece.ends_with(b"\n");
        if let Some(part) = self.rest_of_line {
            self.put(part, piece, message);
            self.rest_of_line = Some(part).filter(|_| !ends);
            return;
        }
        if ends && self.line.is_empty() && piece.len() <= MAX_LOOKED_AT {
            let part = self.line(piece, message, senders);
            return self.put(part, piece, message);
        }
        let (front, behind) = piece.split_at(piece.len().min(MAX_LOOKED_AT - self.line.len()));
        self.line.extend_from_slice(front);
        if self.line.ends_with(b"\n") || self.line.len() == MAX_LOOKED_AT {
            let part = self.begin_line(message, senders);
            self.put(part, behind, message);
            self.rest_of_line = Some(part).filter(|_| !ends);
        }
    }

    /// Judges and passes the line that was gathered.
    fn begin_line(&mut self, message: &mut Vec<u8>, senders: &Senders) -> Part {
        let line = std::mem::take(&mut self.line);
        let part = self.line(&line, message, senders);
        self.put(part, &line, message);
        self.line = line;
        self.line.clear();
        part
    }

    fn put(&mut self, part: Part, octets: &[u8], message: &mut Vec<u8>) {
        match (part, &mut self.from) {
            (Part::Message, _) => message.extend_from_slice(octets),
            (Part::From, Some(from)) => {
                let room = MAX_FROM_BYTES.saturating_sub(from.len());
                self.refused.long_from |= octets.len() > room;
                from.extend_from_slice(&octets[..octets.len().min(room)]);
            }
            (Part::From, None) | (Part::Nowhere, _) => {}
        }
    }

    /// Judges a line by its front, and says where it goes.
    fn line(&mut self, line: &[u8], message: &mut Vec<u8>, senders: &Senders) -> Part {
        let is_empty = line == b"\r\n";
        if self.at == Place::Unclear && !is_empty {
            self.refused.unclear_from |= could_be_from(line);
            return Part::Message;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return self.continuation(line);
        }
        self.close_from(message, senders);
        if is_empty {
            self.at = Place::Body;
        } else if let Some((name, value)) = split_field(line) {
            return self.field(name, value);
        } else if self.at == Place::Start && is_mbox_line(line) {
            return Part::Nowhere;
        } else {
            self.found.missing |= self.at == Place::Start;
            let unclear = self.at != Place::Start && senders.restrict_authors();
            self.refused.unclear_from |= unclear && could_be_from(line);
            self.at = if unclear { Place::Unclear } else { Place::Body };
        }
        Part::Message
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Part {
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        self.at = Place::Field;
        if is("from") {
            self.from = Some(Vec::new());
            self.at = Place::From;
            return Part::From;
        }
        if is("received") {
            self.found.received = self.found.received.saturating_add(1);
        } else if is("message-id") && self.found.message_id.is_none() {
            self.found.message_id = Some(value_text(value));
            self.at = Place::MessageId;
        }
        self.found.date |= is("date");
        self.found.reply_to |= is("reply-to");
        Part::Message
    }

    /// A folded line belongs to the field before it; at the very beginning there is none.
    fn continuation(&mut self, line: &[u8]) -> Part {
        match (self.at, &mut self.found.message_id) {
            (Place::Start, _) => {
                self.found.missing = true;
                self.at = Place::Body;
            }
            (Place::MessageId, Some(value)) if value.len() < MAX_LOOKED_AT => {
                value.push_str(&value_text(line))
            }
            (Place::From, _) => return Part::From,
            _ => {}
        }
        Part::Message
    }

    /// The `From` field is complete: it passes, or it does not.
    fn close_from(&mut self, message: &mut Vec<u8>, senders: &Senders) {
        let Some(field) = self.from.take() else { return };
        let colon = field.iter().position(|&b| b == b':').map_or(field.len(), |at| at + 1);
        let value = &field[colon..];
        if value.trim_ascii().is_empty() {
            return;
        }
        if self.found.from != From::Absent {
            self.refused.several_from = true;
            return;
        }
        self.found.from = match senders.judge_authors(value) {
            Judgement::Rewrite => From::Removed { value: value.to_vec() },
            judgement => {
                if let Judgement::Refused(who) = judgement {
                    self.refused.sender = Some(who);
                }
                message.extend_from_slice(&field);
                From::Kept
            }
        };
    }
}

/// Name and value of a field (RFC 5322 §2.2). Space before the colon is obsolete, and met.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, &line[colon + 1..]))
}

/// Whether any reader could find the name of a `From` field anywhere in a line, or there is more of it than is looked at.
/// Some readers skip white space in the middle of a name.
fn could_be_from(line: &[u8]) -> bool {
    let ends_in_name = |front: &[u8]| {
        let mut octets = front.iter().rev().filter(|octet| !octet.is_ascii_whitespace());
        b"morf".iter().all(|letter| octets.next().is_some_and(|octet| octet.eq_ignore_ascii_case(letter)))
    };
    let mut colons = line.iter().enumerate().filter(|&(_, &octet)| octet == b':');
    !line.ends_with(b"\n") || colons.any(|(at, _)| ends_in_name(&line[..at]))
}

/// The line that mail folders put between messages. Some senders leave it in front of the header.
fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

fn value_text(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.trim_ascii());
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;

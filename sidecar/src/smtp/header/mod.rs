//! A message's header section on its way through the sidecar.
//!
//! Owns what is needed to stamp a message at its end: which fields are there, who `From` and `Sender` name, and how many hops
//! the message has behind it. Takes out what the stamp puts in anew (a `From` or `Sender` that is to be rewritten, a `From` that
//! names nothing at all), the byte order mark in front of a header, and the line that mail folders put in front of messages. If
//! asked to, it writes raw UTF-8 as encoded words, takes out fields by the route's rules on names, and gives `To` and `Cc` other
//! names. Everything else passes octet for octet, and nothing is looked at after the empty line. Does not judge whether any other field is well formed.
//!
//! * here: where the header is, which fields it has, and what passes when.
//! * `line`: what one line is. `authors`: whether `From` and `Sender` pass. [`rules`]: names that the route removes or sets;
//!   [`signature`]: which names signatures cover. `held`: what waits until that is known.
//!
//! Memory: one shortened line and one field; behind a field that was changed, [`MAX_HELD_BYTES`] twice.
//!
//! Where readers disagree: a line that is no field ends the header for some and not for others. What is found behind one is
//! not added a second time. When there are rules on senders, a `From` or `Sender` there is judged like any other, and one that
//! only some readers would find is refused.
//!
//! Signatures: a `DKIM-Signature` covers fields above and below it, so once there is one, nothing is encoded, and no field that it
//! names is taken out by a rule.

mod authors;
mod held;
mod line;
pub mod rules;
pub mod signature;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::authors::Refused;
pub use self::authors::{From, Sender};
use self::held::{Changed, Held};
use self::line::{
    could_be_author, is_blank, is_common, is_mbox_line, split_field, value_text, without_front,
};
use self::rules::{FieldFate, FieldRules};
use super::answer::Answer;
use super::recipients::{ORIGINAL_HEADER, ORIGINAL_TO};
use super::senders::Senders;

/// Most octets of a line that are looked at. Enough for every field name and for any Message-ID that RFC 5322 §2.1.1
/// lets into one line.
const MAX_LOOKED_AT: usize = 1000;

/// Most octets of a header section: what Exchange takes by default (MaxHeaderSize).
pub const MAX_HEADER_BYTES: u64 = 256 * 1024;

/// Most octets of a `From` or `Sender` field. Of another field, more than are encoded.
pub const MAX_FROM_BYTES: usize = 16 * 1024;

/// Most octets that wait behind a changed field for a signature, which would make it stay as it was.
pub const MAX_HELD_BYTES: usize = 16 * 1024;

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
    /// What became of `Sender`.
    pub sender: Sender,
    /// A `Reply-To` field.
    pub reply_to: bool,
    /// The message begins with text that is no header field. A header put in front of it needs an empty line between.
    pub missing: bool,
    /// Fields whose raw UTF-8 was written as encoded words.
    pub encoded: u32,
    /// Whether raw UTF-8 in a field that is put in front has to be encoded too.
    pub encodes: bool,
    /// What became of the fields of each of the route's rules.
    pub fates: Vec<FieldFate>,
}

/// Passes a header section on: decoded octets, with CR LF line ends only.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Raw UTF-8 is to be encoded.
    encode: bool,
    /// The route redirects recipients of the message, whom the stamp names.
    redirected: bool,
    /// `To` and `Cc` may not name recipients.
    renames: bool,
    /// Names that the route removes or sets.
    rules: Arc<FieldRules>,
    found: Headers,
    at: Place,
    len: u64,
    /// The current line, as far as it was received and is looked at.
    line: Vec<u8>,
    /// What becomes of the rest of a line that is longer than is looked at.
    rest_of_line: Option<Part>,
    /// The field that may still go on.
    field: Vec<u8>,
    /// The field is too long to be held back, and passes.
    is_long: bool,
    /// Behind a line that is no field: text for some readers, header for us and others.
    unclear: bool,
    /// There is a `DKIM-Signature`.
    signed: bool,
    held: Option<Held>,
    refused: Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// Behind a first line that is no field, and not folded: a header only if a common field ([`is_common`]) comes before an empty line.
    OddStart,
    Field,
    MessageId,
    From,
    Sender,
    /// In a field that passes without being held back.
    Passing,
    /// In a field that the stamp puts in anew.
    Dropped,
    /// In a field that this rule removes.
    Removed(usize),
    /// In a field that says which fields are not removed.
    Signature,
    Body,
}

/// Where the octets of a line go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Message,
    Field,
    Nowhere,
}

impl Pass {
    /// A pass that writes raw UTF-8 as encoded words, or not.
    pub fn new(encode: bool) -> Self {
        Self { encode, ..Self::default() }
    }

    /// The same for a message whose recipients the route redirects. Where `renames`, `To` and `Cc` pass under other names, because
    /// the upstream would send to whom they name.
    #[must_use]
    pub fn redirected(self, renames: bool) -> Self {
        Self { redirected: true, renames, ..self }
    }

    /// The same with rules on fields by name.
    #[must_use]
    pub fn ruled(mut self, rules: Arc<FieldRules>) -> Self {
        self.found.fates = vec![FieldFate::default(); rules.len()];
        Self { rules, ..self }
    }

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
        if self.at == Place::OddStart {
            self.text();
        }
        self.end_header(message, senders);
    }

    /// Whether all that follows is the body, which passes as it is.
    pub fn is_through(&self) -> bool {
        self.at == Place::Body
    }

    /// What was found so far.
    pub fn headers(&self) -> &Headers {
        &self.found
    }

    /// Ends with what was found.
    pub fn finish(self) -> Headers {
        let reply_to = self.rules.position(b"reply-to").and_then(|rule| self.found.fates.get(rule));
        let reply_to = self.found.reply_to || reply_to.is_some_and(|fate| fate.kept);
        Headers { encodes: self.encode, reply_to, ..self.found }
    }

    /// Why the message is refused for its header, if it is.
    pub fn refusal(&self) -> Option<Answer> {
        let Refused { several_from, long_from, unclear_from, sender } = &self.refused;
        // What turns out to be text is not judged as a header.
        let is_header = self.at != Place::OddStart;
        match () {
            () if self.len > MAX_HEADER_BYTES && is_header => Some(Answer::HeaderTooLarge),
            () if self.found.received > super::transaction::MAX_HOPS => Some(Answer::MailLoop),
            () if *long_from => Some(Answer::FromTooLong),
            () if *several_from => Some(Answer::SeveralFrom),
            () if *unclear_from && is_header => Some(Answer::NoFieldInHeader),
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
            let line = if self.at == Place::Start { without_front(piece) } else { piece };
            let part = self.line(line, message, senders);
            return self.put(part, line, message);
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
        let text = if self.at == Place::Start { without_front(&line) } else { &line };
        let part = self.line(text, message, senders);
        self.put(part, text, message);
        self.line = line;
        self.line.clear();
        part
    }

    fn put(&mut self, part: Part, octets: &[u8], message: &mut Vec<u8>) {
        match part {
            Part::Message => self.emit(octets, message),
            Part::Nowhere => {}
            Part::Field if self.is_long && self.at == Place::Dropped => {}
            Part::Field if self.is_long => self.emit(octets, message),
            Part::Field => {
                let room = MAX_FROM_BYTES - self.field.len();
                if octets.len() > room && !matches!(self.at, Place::From | Place::Sender) {
                    return self.outgrown(octets, message);
                }
                self.refused.long_from |= octets.len() > room;
                self.field.extend_from_slice(&octets[..octets.len().min(room)]);
            }
        }
    }

    /// Passes octets on, behind those that are held back.
    fn emit(&mut self, octets: &[u8], message: &mut Vec<u8>) {
        match &mut self.held {
            None => message.extend_from_slice(octets),
            Some(held) => {
                held.push(octets);
                if held.is_full() {
                    self.release(message);
                }
            }
        }
    }

    /// Judges a line by its front, and says where it goes.
    fn line(&mut self, line: &[u8], message: &mut Vec<u8>, senders: &Senders) -> Part {
        let (is_empty, field) = (line == b"\r\n", split_field(line));
        let is_author = field.is_some_and(|(name, _)| author_field(name).is_some());
        if self.unclear && senders.restrict_authors() && !is_author {
            self.refused.unclear_from |= could_be_author(line);
        }
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if is_folded && !matches!(self.at, Place::Start | Place::OddStart) {
            return self.continuation(line);
        }
        match (self.at, field) {
            _ if is_empty => {
                if self.at == Place::OddStart {
                    self.text();
                }
                self.end_header(message, senders);
            }
            (Place::OddStart, field) if !field.is_some_and(|(name, _)| is_common(name)) => {
                if self.len > MAX_HEADER_BYTES {
                    self.text();
                    self.end_header(message, senders);
                }
            }
            (_, Some((name, value))) => {
                self.close_field(message, senders);
                return self.field(name, value, senders, message);
            }
            (Place::Start, None) if line.is_empty() || is_mbox_line(line) || is_blank(line) => {
                return Part::Nowhere;
            }
            (Place::Start, None) if is_folded => {
                self.text();
                self.end_header(message, senders);
            }
            (place, None) => {
                // What is held back waits on: some readers find a signature behind such a line.
                self.close_field(message, senders);
                self.unclear = true;
                self.refused.unclear_from |= senders.restrict_authors() && could_be_author(line);
                self.at = if place == Place::Start { Place::OddStart } else { Place::Passing };
            }
        }
        Part::Message
    }

    /// The odd first line turns out to be text, and there is no header.
    fn text(&mut self) {
        self.found.missing = true;
        self.refused.unclear_from = false;
        self.len = 0;
    }

    fn end_header(&mut self, message: &mut Vec<u8>, senders: &Senders) {
        self.close_field(message, senders);
        self.release(message);
        self.at = Place::Body;
    }

    fn field(&mut self, name: &[u8], value: &[u8], senders: &Senders, message: &mut Vec<u8>) -> Part {
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        let rule = self.rules.position(name);
        self.is_long = false;
        self.at = match author_field(name) {
            Some(place) if senders.restrict_authors() => place,
            Some(Place::From) if !self.unclear => Place::From,
            None if self.redirected && is(ORIGINAL_TO) => Place::Dropped,
            None if !self.rules.is_empty() && signature::is_signature(name) => Place::Signature,
            None if rule.is_some() => rule.map_or(Place::Passing, Place::Removed),
            _ if self.encode && !self.signed && !self.unclear => Place::Field,
            _ => Place::Passing,
        };
        if is("received") {
            self.found.received = self.found.received.saturating_add(1);
        } else if is("message-id") && self.found.message_id.is_none() {
            self.found.message_id = Some(value_text(value));
            self.at = Place::MessageId;
        } else if is("dkim-signature") {
            self.signed = true;
            if self.rules.is_empty() {
                self.release(message);
            }
        } else if is("from") && self.at != Place::From {
            self.found.from = From::Kept;
        }
        self.found.date |= is("date");
        self.found.reply_to |= is("reply-to") && rule.is_none();
        if self.renames && (is("to") || is("cc")) {
            self.put(self.part(), ORIGINAL_HEADER.as_bytes(), message);
        }
        self.part()
    }

    /// Where the octets of the current field go.
    fn part(&self) -> Part {
        match self.at {
            Place::From | Place::Sender | Place::Field | Place::Removed(_) | Place::Signature => Part::Field,
            Place::Dropped => Part::Nowhere,
            Place::Start | Place::OddStart | Place::MessageId | Place::Passing | Place::Body => Part::Message,
        }
    }

    /// A folded line belongs to the field before it.
    fn continuation(&mut self, line: &[u8]) -> Part {
        if let (Place::MessageId, Some(value)) = (self.at, &mut self.found.message_id)
            && value.len() < MAX_LOOKED_AT
        {
            value.push_str(&value_text(line));
        }
        self.part()
    }

    /// The field that was held back is complete: it passes, or it does not.
    fn close_field(&mut self, message: &mut Vec<u8>, senders: &Senders) {
        if self.field.is_empty() {
            return;
        }
        let field = std::mem::take(&mut self.field);
        let passes = match self.at {
            Place::From => self.passes_from(&field, senders),
            Place::Sender => self.passes_sender(&field, senders),
            Place::Removed(rule) => {
                self.hold(&field, Changed::Removed(rule), message);
                false
            }
            Place::Signature => {
                self.learn_signature(&field);
                self.emit(&field, message);
                false
            }
            _ => true,
        };
        if passes {
            self.pass_field(&field, message);
        }
        self.field = field;
        self.field.clear();
    }
}

/// Whether a field names who a message is from.
fn author_field(name: &[u8]) -> Option<Place> {
    match () {
        () if name.eq_ignore_ascii_case(b"from") => Some(Place::From),
        () if name.eq_ignore_ascii_case(b"sender") => Some(Place::Sender),
        () => None,
    }
}

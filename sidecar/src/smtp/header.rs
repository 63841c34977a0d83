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
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return self.continuation(line);
        }
        self.close_from(message, senders);
        if line == b"\r\n" {
            self.at = Place::Body;
        } else if let Some((name, value)) = split_field(line) {
            return self.field(name, value);
        } else if self.at == Place::Start && is_mbox_line(line) {
            return Part::Nowhere;
        } else {
            self.found.missing |= self.at == Place::Start;
            let unclear = self.at != Place::Start && senders.restrict_authors();
            self.at = if unclear { Place::Unclear } else { Place::Body };
        }
        Part::Message
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Part {
        let is = |field: &str| name.eq_ignore_ascii_case(field.as_bytes());
        if self.at == Place::Unclear {
            self.refused.unclear_from |= is("from");
            return Part::Message;
        }
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

/// The line that mail folders put between messages. Some senders leave it in front of the header.
fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

fn value_text(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.trim_ascii());
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::OnViolation;

    use super::*;

    /// What passed, and what was found; the same in any cut.
    fn passed(message: &str, senders: &Senders) -> (String, Pass) {
        let in_pieces_of = |step| {
            let (mut pass, mut out) = (Pass::default(), Vec::new());
            message.as_bytes().chunks(step).for_each(|piece| pass.pass(piece, &mut out, senders));
            pass.end(&mut out, senders);
            (String::from_utf8(out).unwrap(), pass)
        };
        let (out, whole) = in_pieces_of(message.len().max(1));
        for step in [1, 2, 7, 999, 1000] {
            let (same, pieces) = in_pieces_of(step);
            assert!(
                same == out && pieces.found == whole.found && pieces.refusal() == whole.refusal(),
                "{message:.80}"
            );
        }
        (out, whole)
    }

    fn headers(message: &str) -> Headers {
        passed(message, &Senders::default()).1.finish()
    }

    /// Only the mailbox may be named.
    fn strict(on_violation: OnViolation) -> Senders {
        let mailbox = Some("noreply@contoso.com".into());
        Senders { mailbox, allow: Some(vec![]), domains: None, on_violation }
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let found = headers("dAtE: now\r\nMESSAGE-ID : <a@b> \r\n\r\n");
        assert_eq!((found.date, found.message_id.as_deref()), (true, Some("<a@b>")));
    }

    #[test]
    fn a_folded_message_id_is_joined() {
        assert_eq!(
            headers("Message-ID:\r\n <long@example>\r\n\r\n").message_id.as_deref(),
            Some("<long@example>")
        );
    }

    #[test]
    fn similar_names_are_other_fields() {
        let found = headers(
            "X-Date: x\r\nDates: x\r\nResent-Message-ID: <x>\r\nSubject: Date: x\r\n Date: folded\r\n\r\n",
        );
        assert_eq!(found, Headers::default());
    }

    #[test]
    fn the_body_is_not_looked_at() {
        assert_eq!(headers("Subject: x\r\n\r\nDate: in the body\r\nReceived: x\r\n"), Headers::default());
        assert_eq!(headers("Subject: x\r\nno field\r\nDate: in the body\r\n"), Headers::default());
    }

    #[test]
    fn hops_are_counted() {
        assert_eq!(headers(&format!("{}\r\n", "Received: from x\r\n by y\r\n".repeat(31))).received, 31);
    }

    #[test]
    fn text_without_header_is_seen() {
        for message in ["hello\r\n", " folded\r\n", "http //x: y\r\n", ": x\r\n"] {
            assert!(headers(message).missing, "{message:?}");
        }
        for message in ["", "\r\nhello\r\n", "A: b\r\nhello\r\n", "From a@b Mon Jan 1\r\nDate: x\r\n"] {
            assert!(!headers(message).missing, "{message:?}");
        }
        assert!(headers("From a@b Mon Jan 1\r\nDate: x\r\n").date);
    }

    #[test]
    fn a_long_line_costs_bounded_memory() {
        for start in [&b"X: "[..], b"From: ", b"from\t: a@b,\r\n "] {
            let (mut pass, mut out) = (Pass::default(), Vec::new());
            for piece in std::iter::once(start).chain(std::iter::repeat_n(&[b'x'; 1000][..], 1000)) {
                out.clear();
                pass.pass(piece, &mut out, &Senders::default());
            }
            let held = pass.line.capacity() + pass.from.as_ref().map_or(0, Vec::capacity);
            assert!(held <= 2 * MAX_FROM_BYTES + 2 * MAX_LOOKED_AT, "{held}");
            assert_eq!(pass.refusal(), Some(Answer::HeaderTooLarge));
        }
    }

    #[test]
    fn everything_passes_as_it_is() {
        for message in [
            "",
            "\r\nFrom: x\r\n",
            "From: a@b\r\n",
            "frOM :\r\n Some\r\n\tOne <a@b>\r\nSubject: x\r\n y\r\n\r\nFrom: c@d\r\n",
            "A: b\r\nno field\r\nFrom: x\r\nFrom: y\r\n",
            "hello\r\nFrom: x\r\n",
            "Fromage: x\r\nfrom",
        ] {
            let (out, pass) = passed(message, &Senders::default());
            assert_eq!((out.as_str(), pass.refusal()), (message, None));
        }
        let long = format!("From: {} <a@b>\r\nSubject: {}\r\n\r\nx", "n ".repeat(5000), "s".repeat(5000));
        assert_eq!(passed(&long, &Senders::default()).0, long);
    }

    #[test]
    fn the_line_of_a_mail_folder_and_an_empty_from_go() {
        let (out, pass) = passed(
            "From a@b Mon Jan 1\r\n>From c\r\nFrom: \r\n \r\nDate: x\r\n\r\nFrom b\r\n",
            &Senders::default(),
        );
        assert_eq!(out, "Date: x\r\n\r\nFrom b\r\n");
        assert_eq!((pass.headers().from.clone(), pass.headers().date), (From::Absent, true));
    }

    #[test]
    fn a_line_of_spaces_does_not_end_the_header() {
        let (_, pass) = passed("Subject: x\r\n \r\nFrom: c@d\r\n\r\n", &strict(OnViolation::Reject));
        assert_eq!(pass.refusal(), Some(Answer::SenderNotAllowed));
    }

    #[test]
    fn a_foreign_from_is_refused_or_taken_out() {
        let message = "Subject: x\r\nFrom: Shop\r\n <c@d>\r\nReply-To: e@f\r\n\r\nbody\r\n";
        let (out, pass) = passed(message, &strict(OnViolation::Reject));
        assert_eq!((out.as_str(), pass.refusal()), (message, Some(Answer::SenderNotAllowed)));
        assert_eq!(pass.foreign_sender(), Some("c@d; allowed: noreply@contoso.com"));
        let (out, pass) = passed(message, &strict(OnViolation::Rewrite));
        assert_eq!(out, "Subject: x\r\nReply-To: e@f\r\n\r\nbody\r\n");
        let found = pass.finish();
        assert_eq!(found.from, From::Removed { value: b" Shop\r\n <c@d>\r\n".to_vec() });
        assert!(found.reply_to);
    }

    #[test]
    fn one_from_is_enough() {
        let several = "From: a@b\r\nSubject: x\r\nFROM: a@b\r\n\r\n";
        assert_eq!(passed(several, &Senders::default()).1.refusal(), Some(Answer::SeveralFrom));
        let split = "From: noreply@contoso.com\r\nno field\r\nFrom: c@d\r\n\r\n";
        for on_violation in [OnViolation::Reject, OnViolation::Rewrite] {
            let (out, pass) = passed(split, &strict(on_violation));
            assert_eq!((out.as_str(), pass.refusal()), (split, Some(Answer::NoFieldInHeader)));
        }
        let body = "From: noreply@contoso.com\r\nno field\r\n\r\nFrom: c@d\r\n";
        assert_eq!(passed(body, &strict(OnViolation::Reject)).1.refusal(), None);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let from = |len: usize| format!("From: {}\r\n\r\n", "x".repeat(len - "From: \r\n".len()));
        assert_eq!(passed(&from(MAX_FROM_BYTES), &Senders::default()).1.refusal(), None);
        assert_eq!(
            passed(&from(MAX_FROM_BYTES + 1), &Senders::default()).1.refusal(),
            Some(Answer::FromTooLong)
        );
        let field = format!("X: {}\r\n", "y".repeat(1019));
        assert_eq!(passed(&format!("{}\r\n", field.repeat(255)), &Senders::default()).1.refusal(), None);
        let refusal = passed(&format!("{}\r\n", field.repeat(256)), &Senders::default()).1.refusal();
        assert_eq!(refusal, Some(Answer::HeaderTooLarge));
    }

    #[test]
    fn an_endless_message_id_costs_bounded_memory() {
        let found = headers(&format!("Message-ID: <\r\n{}\r\n", " abcdefgh\r\n".repeat(10_000)));
        assert!(found.message_id.unwrap().len() <= 2 * MAX_LOOKED_AT);
    }
}

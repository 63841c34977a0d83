//! Looks at a message's header section as it streams by.
//!
//! Owns the few facts that are needed before the end of the message is stamped and passed on: whether `Date` and
//! `Message-ID` are there, and how many hops the message has behind it. Refuses to change anything, to judge whether
//! a field is well formed, and to hold more than one shortened line in memory.

/// Most octets of a line that are looked at. Enough for every field name and for any Message-ID that RFC 5322 §2.1.1
/// lets into one line.
const MAX_LOOKED_AT: usize = 1000;

/// What the header section holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// A `Date` field.
    pub date: bool,
    /// The value of the first `Message-ID` field, unfolded, without surrounding space and control characters.
    pub message_id: Option<String>,
    /// The number of `Received` fields: hops so far.
    pub received: u32,
    /// The message begins with text that is no header field. A header put in front of it needs an empty line between.
    pub missing: bool,
}

/// Scans decoded octets: CR LF line ends only.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    found: Headers,
    line: Vec<u8>,
    at: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    Field,
    MessageId,
    Body,
}

impl Scanner {
    /// Looks at the next octets.
    pub fn scan(&mut self, octets: &[u8]) {
        for piece in octets.split_inclusive(|&b| b == b'\n') {
            if self.at == Place::Body {
                return;
            }
            let room = MAX_LOOKED_AT.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.at = self.end_line();
                self.line.clear();
            }
        }
    }

    /// What was found so far.
    pub fn headers(&self) -> &Headers {
        &self.found
    }

    /// Takes what was found.
    pub fn finish(self) -> Headers {
        self.found
    }

    fn end_line(&mut self) -> Place {
        let line = self.line.trim_ascii_end();
        if line.is_empty() {
            return Place::Body;
        }
        if self.line.starts_with(b" ") || self.line.starts_with(b"\t") {
            return self.continuation();
        }
        let Some((name, value)) = split_field(line) else {
            self.found.missing |= self.at == Place::Start && !is_mbox_line(line);
            return if self.at == Place::Start && is_mbox_line(line) { Place::Field } else { Place::Body };
        };
        match name.to_ascii_lowercase().as_slice() {
            b"date" => self.found.date = true,
            b"received" => self.found.received = self.found.received.saturating_add(1),
            b"message-id" if self.found.message_id.is_none() => {
                self.found.message_id = Some(value_text(value));
                return Place::MessageId;
            }
            _ => {}
        }
        Place::Field
    }

    /// A folded line belongs to the field before it; at the very beginning there is none.
    fn continuation(&mut self) -> Place {
        match (self.at, &mut self.found.message_id) {
            (Place::Start, _) => {
                self.found.missing = true;
                Place::Body
            }
            (Place::MessageId, Some(value)) if value.len() < MAX_LOOKED_AT => {
                value.push_str(&value_text(&self.line));
                Place::MessageId
            }
            (at, _) => at,
        }
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
    use super::*;

    fn headers(message: &str) -> Headers {
        let mut whole = Scanner::default();
        whole.scan(message.as_bytes());
        let mut pieces = Scanner::default();
        for octet in message.as_bytes().chunks(1) {
            pieces.scan(octet);
        }
        assert_eq!(whole.headers(), pieces.headers());
        whole.finish()
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
        let mut scanner = Scanner::default();
        for _ in 0..1000 {
            scanner.scan(&[b'x'; 1000]);
        }
        assert!(scanner.line.capacity() <= 2 * MAX_LOOKED_AT);
    }

    #[test]
    fn an_endless_message_id_costs_bounded_memory() {
        let found = headers(&format!("Message-ID: <\r\n{}\r\n", " abcdefgh\r\n".repeat(10_000)));
        assert!(found.message_id.unwrap().len() <= 2 * MAX_LOOKED_AT);
    }
}

//! A reply of an SMTP server, read and printed: ours to the application, Microsoft's to us.
//!
//! Owns the form of replies (RFC 5321 §4.2) and of enhanced status codes (RFC 3463, RFC 2034). Refuses to know what a
//! code means for a message.
//!
//! Invariants: printing never lets a text break out of its line, whatever it holds; reading is bounded by
//! [`MAX_REPLY_LINES`] of [`MAX_REPLY_LINE`] octets whatever a peer sends; what was printed is read back the same.

use std::fmt;

/// One reply, possibly of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status code, if it has one; printed on every line.
    pub enhanced: Option<EnhancedCode>,
    /// The texts, without codes. Empty is the same as one empty text.
    pub lines: Vec<String>,
}

/// `class.subject.detail` of RFC 3463.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedCode {
    /// 2 (done), 4 (try again) or 5 (never).
    pub class: u8,
    /// What it is about: address, mailbox, system, network, protocol, content, policy.
    pub subject: u16,
    /// The case within the subject.
    pub detail: u16,
}

/// Longest line of a reply that is read, octets without its end. RFC 5321 §4.5.3.1.5 has 512; Exchange's refusals with
/// diagnostics have been seen at three times that.
pub const MAX_REPLY_LINE: usize = 4096;

/// Most lines of a reply that is read.
pub const MAX_REPLY_LINES: usize = 64;

/// Most octets of one printed line, CR LF included (RFC 5321 §4.5.3.1.5).
const MAX_LINE_BYTES: usize = 512;

/// Why octets are not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599, followed by a space, a hyphen or its end.
    #[error("a line of the reply does not begin with a reply code")]
    NoCode,
    /// Two lines have different codes.
    #[error("the lines of the reply have different codes")]
    MixedCodes,
    /// More than [`MAX_REPLY_LINE`] octets in a line, or more than [`MAX_REPLY_LINES`].
    #[error(
        "the reply has a line of more than {MAX_REPLY_LINE} octets, or more than {MAX_REPLY_LINES} lines"
    )]
    TooLong,
}

impl Reply {
    /// A reply of one line.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }

    /// Reads the reply at the front of `input`: it and the octets it took, or `None` while its end is missing. Line
    /// ends may lack their CR, as some servers' do; undecodable and control characters become `?` and a space.
    ///
    /// # Errors
    /// When `input` does not begin with a reply, and cannot by any continuation.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, ReplyError> {
        let mut reader = ReplyReader::default();
        let taken = reader.read(input)?;
        Ok(reader.reply().map(|reply| (reply, taken)))
    }

    /// Whether the command was carried out (2yz) or is to be continued (3yz).
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// Whether the same command will never succeed (5yz).
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The texts in one line.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }

    /// The enhanced code is taken off the texts when the first one has it and it fits the code (RFC 2034 §4).
    fn from_texts(code: u16, texts: Vec<String>) -> Self {
        let enhanced = texts.first().and_then(|text| EnhancedCode::split(text)).map(|(enhanced, _)| enhanced);
        let enhanced = enhanced.filter(|enhanced| u16::from(enhanced.class) == code / 100);
        let strip = |text: String| match EnhancedCode::split(&text) {
            Some((own, rest)) if Some(own) == enhanced => rest.to_owned(),
            _ => text,
        };
        Self { code, enhanced, lines: texts.into_iter().map(strip).collect() }
    }
}

/// Reads one reply as its octets come in, and looks at each of them once.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: Option<u16>,
    texts: Vec<String>,
    /// Octets of the unfinished line in which there is no line end.
    searched: usize,
    is_complete: bool,
}

impl ReplyReader {
    /// Takes the reply's lines off the front of `input`, up to its last one, and says how many octets that are. The others
    /// have to be at the front of the next `input`.
    ///
    /// # Errors
    /// As [`Reply::parse`].
    pub fn read(&mut self, input: &[u8]) -> Result<usize, ReplyError> {
        let mut at = 0;
        while !self.is_complete {
            let searched = at + self.searched;
            let Some(end) = input[searched..].iter().position(|&b| b == b'\n') else { break };
            let line = &input[at..searched + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (at, self.searched) = (searched + end + 1, 0);
            if line.len() > MAX_REPLY_LINE || self.texts.len() == MAX_REPLY_LINES {
                return Err(ReplyError::TooLong);
            }
            let line = ReplyLine::parse(line)?;
            if *self.code.get_or_insert(line.code) != line.code {
                return Err(ReplyError::MixedCodes);
            }
            self.texts.push(line.text);
            self.is_complete = line.is_last;
        }
        if !self.is_complete {
            self.searched = input.len() - at;
            // One more octet may be the CR.
            if self.searched > MAX_REPLY_LINE + 1 {
                return Err(ReplyError::TooLong);
            }
        }
        Ok(at)
    }

    /// The reply, once its last line was read; the next octets are another one's.
    pub fn reply(&mut self) -> Option<Reply> {
        let Self { code: Some(code), texts, is_complete: true, .. } = self else { return None };
        let reply = Reply::from_texts(*code, std::mem::take(texts));
        *self = Self::default();
        Some(reply)
    }
}

/// One line of a reply.
struct ReplyLine {
    code: u16,
    is_last: bool,
    text: String,
}

impl ReplyLine {
    fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        let digits =
            line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(ReplyError::NoCode)?;
        let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let is_last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::NoCode),
        };
        if !(200..600).contains(&code) {
            return Err(ReplyError::NoCode);
        }
        let text = printable(&String::from_utf8_lossy(line.get(4..).unwrap_or_default()));
        Ok(Self { code, is_last, text })
    }
}

/// The same text with everything that could end a line or move a terminal's cursor made harmless.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\u{fffd}' {
                '?'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// As on the wire, every line ending in CR LF. A text that is too long for its line is cut.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enhanced = self.enhanced.map(|enhanced| format!("{enhanced} ")).unwrap_or_default();
        let room = MAX_LINE_BYTES - "250-".len() - enhanced.len() - "\r\n".len();
        let texts = if self.lines.is_empty() { &[String::new()] } else { self.lines.as_slice() };
        for (at, text) in texts.iter().enumerate() {
            let mark = if at + 1 < texts.len() { '-' } else { ' ' };
            let text = printable(text);
            write!(f, "{}{mark}{enhanced}{}\r\n", self.code, cut(&text, room))?;
        }
        Ok(())
    }
}

/// The longest front of `text` that has at most `room` octets.
fn cut(text: &str, room: usize) -> &str {
    &text[..text.floor_char_boundary(room)]
}

impl EnhancedCode {
    /// `class.subject.detail`.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Splits a text into the enhanced code it begins with and the rest. Nothing when it does not begin with one.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.split('.').map(parse_number);
        let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if numbers.next().is_some() || ![2, 4, 5].contains(&class) {
            return None;
        }
        Some((Self { class: u8::try_from(class).ok()?, subject, detail }, rest))
    }
}

/// One to three digits without a leading zero (RFC 3463 §2).
fn parse_number(text: &str) -> Option<u16> {
    let plain = text.len() <= 3
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(input: &str) -> Reply {
        let (reply, taken) = Reply::parse(input.as_bytes()).unwrap().expect("complete");
        assert_eq!(taken, input.len());
        reply
    }

    #[test]
    fn a_reply_that_comes_octet_by_octet_is_looked_at_once() {
        let lines = |mark: char| format!("250{mark}{}\r\n", "x".repeat(MAX_REPLY_LINE - 4));
        let said = lines('-').repeat(MAX_REPLY_LINES - 1) + &lines(' ') + "2";
        let (mut reader, mut buffer, mut replies) = (ReplyReader::default(), Vec::new(), Vec::new());
        // To look at all of them each time would take minutes.
        for octet in said.bytes() {
            buffer.push(octet);
            let taken = reader.read(&buffer).unwrap();
            buffer.drain(..taken);
            replies.extend(reader.reply());
        }
        assert_eq!(buffer, b"2", "this one is another reply's");
        assert_eq!(replies.iter().map(|reply| reply.lines.len()).collect::<Vec<_>>(), [MAX_REPLY_LINES]);
    }

    #[test]
    fn a_line_with_an_enhanced_code_is_taken_apart() {
        let reply = parsed("535 5.7.3 Authentication unsuccessful [X.PROD.OUTLOOK.COM]\r\n");
        assert_eq!(reply.code, 535);
        assert_eq!(reply.enhanced, Some(EnhancedCode::new(5, 7, 3)));
        assert_eq!(reply.lines, ["Authentication unsuccessful [X.PROD.OUTLOOK.COM]"]);
    }

    #[test]
    fn several_lines_share_code_and_enhanced_code() {
        let reply = parsed("550-5.1.1 no such user\r\n550 5.1.1 really\r\n");
        assert_eq!(
            (reply.enhanced, reply.lines),
            (Some(EnhancedCode::new(5, 1, 1)), vec!["no such user".into(), "really".into()])
        );
    }

    #[test]
    fn a_number_of_another_class_is_text() {
        let reply = parsed("250 5.1.1 is not ours\r\n");
        assert_eq!((reply.enhanced, reply.text()), (None, "5.1.1 is not ours".into()));
    }

    #[test]
    fn a_version_number_is_text() {
        assert_eq!(parsed("220 2.10.04 ready\r\n").enhanced, None);
        assert_eq!(parsed("220 2.1.0.4 ready\r\n").enhanced, None);
    }

    #[test]
    fn a_code_alone_is_a_reply() {
        assert_eq!(parsed("354\r\n"), Reply { code: 354, enhanced: None, lines: vec![String::new()] });
    }

    #[test]
    fn only_the_first_reply_is_taken() {
        let (reply, taken) = Reply::parse(b"250 one\r\n250 two\r\n").unwrap().unwrap();
        assert_eq!((reply.text(), taken), ("one".into(), 9));
    }

    #[test]
    fn an_unfinished_reply_asks_for_more() {
        for input in ["", "2", "250", "250 o", "250-one\r\n", "250-one\r\n250"] {
            assert_eq!(Reply::parse(input.as_bytes()), Ok(None), "{input:?}");
        }
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        for input in ["\r\n", "hello\r\n", "99 x\r\n", "100 x\r\n", "600 x\r\n", "2500\r\n", "25\u{0} x\r\n"]
        {
            assert_eq!(Reply::parse(input.as_bytes()), Err(ReplyError::NoCode), "{input:?}");
        }
        assert_eq!(Reply::parse(b"250-a\r\n251 b\r\n"), Err(ReplyError::MixedCodes));
    }

    #[test]
    fn an_endless_reply_is_given_up() {
        assert_eq!(Reply::parse(&[b'2'; MAX_REPLY_LINE + 2]), Err(ReplyError::TooLong));
        assert_eq!(Reply::parse("250-x\r\n".repeat(10_000).as_bytes()), Err(ReplyError::TooLong));
    }

    #[test]
    fn a_text_cannot_end_its_line() {
        let reply = Reply::new(451, EnhancedCode::new(4, 3, 0), "a\r\n250 b\u{1b}[0m");
        assert_eq!(reply.to_string(), "451 4.3.0 a  250 b [0m\r\n");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let line = Reply::new(451, EnhancedCode::new(4, 3, 0), "é".repeat(400)).to_string();
        assert!(line.len() <= MAX_LINE_BYTES && line.len() > MAX_LINE_BYTES - 4 && line.ends_with("é\r\n"));
    }
}

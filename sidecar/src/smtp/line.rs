//! Finds command lines in a stream of octets, before anything is read from them.
//!
//! Owns the rule that a line ends in CR LF and holds no other control character but a tab. Whatever could make two
//! readers see different lines is not repaired: it ends the session.

use super::answer::Answer;

/// Longest command line in octets, with its CR LF. RFC 5321 §4.5.3.1.4 has 512, and each extension adds some; this
/// is more than the sum of those offered, with the longest address.
pub const MAX_COMMAND_LINE: usize = 2048;

/// Longest line with credentials that are verified, with its CR LF: what RFC 4954 §4 asks for, and room for the token of a
/// ServiceAccount.
pub const MAX_CREDENTIALS_LINE: usize = 12288;

/// Gathers the octets of one line at a time.
#[derive(Debug, Default)]
pub struct LineReader {
    line: Vec<u8>,
}

/// What [`LineReader::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Framed {
    /// All input is used and the line has no end yet.
    Unfinished,
    /// A line, without its CR LF.
    Complete(Vec<u8>),
    /// Not a line of SMTP. The reader must not be used again.
    Broken(Answer),
}

impl LineReader {
    /// Takes octets from the front of `input`, up to the end of the first line.
    pub fn take(&mut self, input: &mut &[u8]) -> Framed {
        self.take_longer(input, |_| false)
    }

    /// The same; a line for which `is_longer` may have [`MAX_CREDENTIALS_LINE`]. Asked with the octets that are there when the line gets
    /// longer than a command.
    pub fn take_longer(&mut self, input: &mut &[u8], is_longer: impl Fn(&[u8]) -> bool) -> Framed {
        while let Some((&octet, rest)) = input.split_first() {
            *input = rest;
            match (self.line.last() == Some(&b'\r'), octet) {
                (true, b'\n') => {
                    self.line.pop();
                    return Framed::Complete(std::mem::take(&mut self.line));
                }
                (true, _) | (false, b'\n') => return Framed::Broken(Answer::BareLineEnd),
                (false, b'\r' | b'\t') => {}
                (false, _) if octet.is_ascii_control() => return Framed::Broken(Answer::ControlCharacter),
                (false, _) => {}
            }
            // The LF is still to come.
            let len = self.line.len() + 1;
            if len >= MAX_COMMAND_LINE && (len >= MAX_CREDENTIALS_LINE || !is_longer(&self.line)) {
                return Framed::Broken(Answer::LineTooLong);
            }
            self.line.push(octet);
        }
        Framed::Unfinished
    }

    /// Whether nothing of a line was received yet.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(mut input: &[u8]) -> Framed {
        LineReader::default().take(&mut input)
    }

    #[test]
    fn lines_come_one_by_one() {
        let (mut reader, mut input) = (LineReader::default(), b"NOOP\r\n\r\nQU".as_slice());
        assert_eq!(reader.take(&mut input), Framed::Complete(b"NOOP".to_vec()));
        assert_eq!(reader.take(&mut input), Framed::Complete(Vec::new()));
        assert_eq!(reader.take(&mut input), Framed::Unfinished);
        assert!(!reader.is_empty());
        assert_eq!(reader.take(&mut b"IT\r\n".as_slice()), Framed::Complete(b"QUIT".to_vec()));
    }

    #[test]
    fn a_line_end_alone_breaks_the_session() {
        for input in ["NOOP\n", "\n", "NO\rOP\r\n", "NOOP\r\r\n"] {
            assert_eq!(first(input.as_bytes()), Framed::Broken(Answer::BareLineEnd), "{input:?}");
        }
    }

    #[test]
    fn control_characters_break_the_session_at_once() {
        for input in ["\0", "\u{16}\u{3}\u{1}", "NOOP\u{7f}", "\u{1b}[A"] {
            assert_eq!(first(input.as_bytes()), Framed::Broken(Answer::ControlCharacter), "{input:?}");
        }
    }

    #[test]
    fn a_line_has_room_for_what_is_allowed_and_not_more() {
        let line = |len: usize| [vec![b'x'; len], b"\r\n".to_vec()].concat();
        assert!(matches!(first(&line(MAX_COMMAND_LINE - 2)), Framed::Complete(_)));
        assert_eq!(first(&line(MAX_COMMAND_LINE - 1)), Framed::Broken(Answer::LineTooLong));
    }

    #[test]
    fn credentials_may_be_longer() {
        let take = |len: usize| {
            let line = [vec![b'x'; len], b"\r\n".to_vec()].concat();
            LineReader::default().take_longer(&mut line.as_slice(), |front| front.starts_with(b"x"))
        };
        assert!(matches!(take(MAX_CREDENTIALS_LINE - 2), Framed::Complete(_)));
        assert_eq!(take(MAX_CREDENTIALS_LINE - 1), Framed::Broken(Answer::LineTooLong));
    }
}

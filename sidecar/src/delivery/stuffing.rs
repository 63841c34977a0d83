//! Dot-stuffing (RFC 5321 §4.5.2): a message as it goes over the wire after DATA.
//!
//! Pure, in pieces of any size. Takes lines that end in CR LF only, as [`crate::body::Body`] promises.

/// Doubles the dots at line starts, and ends the data.
#[derive(Debug)]
pub struct Stuffer {
    /// The last two octets, since a line end may lie across pieces.
    last: [u8; 2],
}

impl Default for Stuffer {
    /// The start of the data is the start of a line.
    fn default() -> Self {
        Self { last: *b"\r\n" }
    }
}

impl Stuffer {
    /// Appends `piece` to `out`, stuffed.
    pub fn stuff(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len() + piece.len() / 64);
        let mut copied = 0;
        for (at, &byte) in piece.iter().enumerate() {
            if byte == b'.' && self.last == *b"\r\n" {
                out.extend_from_slice(&piece[copied..at]);
                out.push(b'.');
                copied = at;
            }
            self.last = [self.last[1], byte];
        }
        out.extend_from_slice(&piece[copied..]);
    }

    /// Appends what ends the data: a line end if the last line has none, and the lone dot.
    pub fn end(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuffed(message: &[u8], step: usize) -> Vec<u8> {
        let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
        message.chunks(step.max(1)).for_each(|piece| stuffer.stuff(piece, &mut out));
        stuffer.end(&mut out);
        out
    }

    #[test]
    fn dots_at_line_starts_are_doubled() {
        assert_eq!(stuffed(b".a\r\nb.\r\n..\r\n", 99), b"..a\r\nb.\r\n...\r\n.\r\n");
    }

    #[test]
    fn a_line_end_is_added_only_when_missing() {
        assert_eq!(stuffed(b"a\r\n", 99), b"a\r\n.\r\n");
        assert_eq!(stuffed(b"a", 99), b"a\r\n.\r\n");
        assert_eq!(stuffed(b"", 99), b".\r\n");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[.\r\na]{0,60}", step in 1_usize..9) {
            prop_assert_eq!(stuffed(text.as_bytes(), step), stuffed(text.as_bytes(), 99));
        }

        #[test]
        fn only_the_end_is_a_lone_dot(lines in prop::collection::vec("[.a]{0,4}", 0..12)) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let wire = String::from_utf8(stuffed(message.as_bytes(), 3)).unwrap();
            let inner = wire.strip_suffix(".\r\n").unwrap();
            let back: String = inner
                .split_inclusive("\r\n")
                .map(|line| { assert_ne!(line, ".\r\n"); line.strip_prefix('.').unwrap_or(line) })
                .collect();
            prop_assert_eq!(back, message);
        }
    }
}

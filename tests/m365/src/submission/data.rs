//! The message on the wire: its strict end, its dots, and what must not be in it.
//!
//! Only CR LF dot CR LF ends a message (RFC 5321 section 4.1.1.4); every bare CR or LF is noted and kept, so that no
//! other sequence can be taken for an end. Pure and bounded: past the limit bytes are counted but not kept.

/// Reads a message piece by piece.
#[derive(Clone, Debug)]
pub struct DataReader {
    content: Content,
    position: Position,
    keep: usize,
}

/// A message as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The bytes after dot-unstuffing, as far as they were kept.
    pub bytes: Vec<u8>,
    /// Length of all bytes, kept or not.
    pub length: usize,
    /// A LF without CR was seen.
    pub bare_lf: bool,
    /// A CR without LF was seen.
    pub bare_cr: bool,
    /// A NUL was seen.
    pub nul: bool,
    /// A byte above 127 was seen.
    pub eight_bit: bool,
    /// A line began with a dot that was not doubled.
    pub not_stuffed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// After CR LF, or at the start.
    LineStart,
    /// In a line.
    Line,
    /// After CR.
    Cr,
    /// After a dot at the start of a line.
    Dot,
    /// After dot and CR at the start of a line.
    DotCr,
}

impl DataReader {
    /// A reader that keeps at most `keep` bytes.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { content: Content::default(), position: Position::LineStart, keep }
    }

    /// Reads from `input`. Gives the number of bytes used and, at the end, the message.
    pub fn read(&mut self, input: &[u8]) -> (usize, Option<Content>) {
        let mut used = 0;
        while used < input.len() {
            if self.position == Position::Line {
                let run = input[used..].iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0));
                let run = run.unwrap_or(input.len() - used);
                self.content.push(&input[used..used + run], self.keep);
                used += run;
                if used == input.len() {
                    break;
                }
            }
            let ended = self.step(input[used]);
            used += 1;
            if ended {
                return (used, Some(std::mem::take(&mut self.content)));
            }
        }
        (used, None)
    }

    fn step(&mut self, byte: u8) -> bool {
        match (self.position, byte) {
            (Position::LineStart, b'.') => self.position = Position::Dot,
            (Position::Dot, b'\r') => self.position = Position::DotCr,
            (Position::DotCr, b'\n') => return true,
            (Position::Cr, b'\n') => {
                self.content.push(b"\r\n", self.keep);
                self.position = Position::LineStart;
            }
            (Position::Dot, _) => {
                self.content.not_stuffed |= byte != b'.';
                self.ordinary(byte);
            }
            (Position::Cr | Position::DotCr, _) => {
                self.content.bare_cr = true;
                self.content.push(b"\r", self.keep);
                self.ordinary(byte);
            }
            (Position::LineStart | Position::Line, _) => self.ordinary(byte),
        }
        false
    }

    fn ordinary(&mut self, byte: u8) {
        self.position = if byte == b'\r' { Position::Cr } else { Position::Line };
        if byte == b'\r' {
            return;
        }
        self.content.bare_lf |= byte == b'\n';
        self.content.push(&[byte], self.keep);
    }
}

impl Content {
    /// Takes a chunk of BDAT; its bytes are looked at as those of DATA, line ends included.
    pub fn push_chunk(&mut self, chunk: &[u8], keep: usize) {
        for (index, &byte) in chunk.iter().enumerate() {
            let before = if index > 0 { Some(chunk[index - 1]) } else { self.bytes.last().copied() };
            self.bare_lf |= byte == b'\n' && before != Some(b'\r');
            self.bare_cr |= before == Some(b'\r') && byte != b'\n';
        }
        self.push(chunk, keep);
    }

    fn push(&mut self, bytes: &[u8], keep: usize) {
        self.length += bytes.len();
        self.nul |= bytes.contains(&0);
        self.eight_bit |= !bytes.is_ascii();
        let room = keep.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `input` whole, and again byte by byte; both must agree.
    fn read(input: &[u8]) -> (usize, Option<Content>) {
        let whole = DataReader::new(1000).read(input);
        let mut reader = DataReader::new(1000);
        let mut pieces = (0, None);
        for byte in input {
            let (used, content) = reader.read(&[*byte]);
            pieces.0 += used;
            if content.is_some() {
                pieces.1 = content;
                break;
            }
        }
        assert_eq!(whole, pieces);
        whole
    }

    fn content(input: &[u8]) -> Content {
        let (used, content) = read(input);
        assert_eq!(used, input.len());
        content.unwrap()
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        assert_eq!(content(b".\r\n"), Content::default());
    }

    #[test]
    fn dot_on_first_line_is_unstuffed() {
        let content = content(b"..a\r\n...\r\n.\r\n");
        assert_eq!(content.bytes, b".a\r\n..\r\n");
        assert!(!content.not_stuffed);
    }

    #[test]
    fn a_lone_dot_before_text_is_noted() {
        let content = content(b".a\r\n.\r\n");
        assert_eq!(content.bytes, b"a\r\n");
        assert!(content.not_stuffed);
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        for smuggled in [
            &b"a\n.\r\nb"[..],
            b"a\r\n.\nb",
            b"a\n.\nb",
            b"a\r.\rb",
            b"a\r.\r\nb",
            b"a\r\n.\rb",
            b"a\r\n.\r\rb",
            b"a\r\r\n.\0\r\nb",
        ] {
            let mut input = smuggled.to_vec();
            assert_eq!(read(&input).1, None, "{smuggled:?}");
            input.extend_from_slice(b"\r\n.\r\n");
            let content = content(&input);
            assert!(content.bare_lf || content.bare_cr || content.nul, "{smuggled:?}");
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        let (used, content) = read(b"a\r\n.\r\nQUIT\r\n");
        assert_eq!((used, content.unwrap().bytes), (6, b"a\r\n".to_vec()));
    }

    #[test]
    fn bytes_past_the_limit_are_counted_but_not_kept() {
        let (_, content) = DataReader::new(4).read(b"abcdefgh\r\n.\r\n");
        let content = content.unwrap();
        assert_eq!((content.bytes.as_slice(), content.length), (&b"abcd"[..], 10));
    }

    #[test]
    fn chunks_are_looked_at_across_their_edges() {
        let mut content = Content::default();
        content.push_chunk(b"a\r", 100);
        content.push_chunk(b"\nb\r\n", 100);
        assert!(!content.bare_lf && !content.bare_cr);
        content.push_chunk(b"\n", 100);
        assert!(content.bare_lf);
    }
}

//! The octets behind DATA, both ways: taken in (dots removed, line ends repaired, end found) and sent (dots doubled).
//!
//! Owns the one decision on which smuggling rests: only `CR LF . CR LF` ends a message, the beginning of the data
//! counting as behind a CR LF (RFC 5321 §4.1.1.4). Since real senders write LF and CR alone, what [`Decoder`] lets
//! through has CR LF for every LF alone and a space for every CR alone: no two servers can disagree any more on where
//! its lines are.
//!
//! CRs directly in front of a CR LF are part of that line end: programs that convert LF to CR LF twice write CR CR LF at
//! the end of every line. CRs in a row inside a line become one space, so that none of them has to be counted.
//!
//! Dots (§4.5.2):
//! * behind CR LF one is removed when text follows. Followed by a LF or CR alone, or by CR CR LF, it stays: no sender that
//!   doubles dots writes that, so one that does not meant it.
//! * behind a LF alone, two become one: some senders double dots there too (Python's smtplib, given octets). A single one
//!   stays: a sender that doubles never writes it, and for one that does not it is text. Neither ends the data.

use memchr::{memchr, memchr2_iter, memmem};

/// Longest line of a message, octets without CR LF. RFC 5321 §4.5.3.1.6 has 998, and much real mail does not keep to
/// it: whole HTML pages in one line are common. Lines are never held in memory, so the bound is only where it stops
/// being mail, and every server further on would refuse it.
pub const MAX_TEXT_LINE: u64 = 1024 * 1024;

/// What ends a line, and nothing else does.
const LINE_END: [u8; 2] = *b"\r\n";

/// Takes in the data of one message.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    state: State,
    traits: Traits,
    column: u64,
}

/// What was seen in the octets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// An octet above 127.
    pub eight_bit: bool,
    /// A NUL.
    pub nul: bool,
    /// A LF or CR alone, or a CR in front of CR LF, which was repaired.
    pub bare_line_end: bool,
    /// A line of more than [`MAX_TEXT_LINE`] octets.
    pub endless_line: bool,
}

/// What one call of [`Decoder::decode`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Octets of the input that were used.
    pub taken: usize,
    /// The end of the data was among them. What follows are commands.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    /// A dot at the beginning of a line, held back.
    Dot,
    /// That and a CR, both held back.
    DotCr,
    /// Behind a LF alone.
    BareLineStart,
    /// A dot there. It is part of the text; another one behind it is not.
    BareDot,
    Text,
    /// Behind one CR or more in a line, held back.
    Cr,
}

impl Decoder {
    /// Decodes `input` up to the end of the data, or all of it, appending the message's octets to `output`.
    pub fn decode(&mut self, input: &[u8], output: &mut Vec<u8>) -> Decoded {
        let mut taken = 0;
        loop {
            if matches!(self.state, State::LineStart | State::Text) {
                taken += self.as_it_is(&input[taken..], output);
            }
            let Some(&octet) = input.get(taken) else { break };
            taken += 1;
            if self.octet(octet, output) {
                return Decoded { taken, ended: true };
            }
        }
        Decoded { taken, ended: false }
    }

    /// What was seen so far.
    pub fn traits(&self) -> Traits {
        self.traits
    }

    /// Appends what passes as it is, up to the first octet that has to be looked at: lines that end in CR LF and do not begin
    /// with a dot, and the text behind them. Nearly all of a message is of this kind, so it is searched and copied at once.
    fn as_it_is(&mut self, input: &[u8], output: &mut Vec<u8>) -> usize {
        let mut line_ends = memchr2_iter(b'\r', b'\n', input);
        let mut from = 0;
        let end = loop {
            if self.state == State::LineStart && matches!(input.get(from), None | Some(b'.')) {
                break from;
            }
            let end = line_ends.next().unwrap_or(input.len());
            if end > from {
                self.state = State::Text;
                self.lengthen(end - from);
            }
            if !input[end..].starts_with(&LINE_END) {
                break end;
            }
            line_ends.next();
            from = end + LINE_END.len();
            self.state = State::LineStart;
            self.column = 0;
        };
        let text = &input[..end];
        self.look_at(text);
        output.extend_from_slice(text);
        end
    }

    /// One octet at the edge of a line. True when it ends the data.
    fn octet(&mut self, octet: u8, output: &mut Vec<u8>) -> bool {
        self.state = match (self.state, octet) {
            (State::DotCr, b'\n') => return true,
            (State::Cr, b'\n') => {
                self.end_line(output);
                State::LineStart
            }
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::Dot, b'\n') => {
                self.put(b".", output);
                self.text(octet, output)
            }
            (State::DotCr, b'\r') => {
                self.put(b".", output);
                self.another_cr()
            }
            (State::DotCr, _) => {
                self.put(b".", output);
                self.bare_cr(output);
                self.text(octet, output)
            }
            (State::Cr, b'\r') => self.another_cr(),
            (State::Cr, _) => {
                self.bare_cr(output);
                self.text(octet, output)
            }
            (State::BareLineStart, b'.') => {
                self.put(b".", output);
                State::BareDot
            }
            (State::BareDot, b'.') => State::Text,
            _ => self.text(octet, output),
        };
        false
    }

    /// One octet inside a line.
    fn text(&mut self, octet: u8, output: &mut Vec<u8>) -> State {
        match octet {
            b'\r' => State::Cr,
            b'\n' => {
                self.traits.bare_line_end = true;
                self.end_line(output);
                State::BareLineStart
            }
            _ => {
                self.put(&[octet], output);
                State::Text
            }
        }
    }

    /// A CR behind a CR: one of the two at least is no part of a CR LF.
    fn another_cr(&mut self) -> State {
        self.traits.bare_line_end = true;
        State::Cr
    }

    fn bare_cr(&mut self, output: &mut Vec<u8>) {
        self.traits.bare_line_end = true;
        self.put(b" ", output);
    }

    fn end_line(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(&LINE_END);
        self.column = 0;
    }

    fn put(&mut self, text: &[u8], output: &mut Vec<u8>) {
        output.extend_from_slice(text);
        self.lengthen(text.len());
        self.look_at(text);
    }

    fn lengthen(&mut self, octets: usize) {
        self.column += octets as u64;
        self.traits.endless_line |= self.column > MAX_TEXT_LINE;
    }

    fn look_at(&mut self, text: &[u8]) {
        self.traits.eight_bit |= !text.is_ascii();
        self.traits.nul |= memchr(0, text).is_some();
    }
}

/// Sends the octets of one message, in pieces of any size: the dot at the beginning of each line is doubled.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// The last two octets, since a line end may lie across pieces.
    last: [u8; 2],
}

impl Default for Encoder {
    /// The start of the data is the start of a line.
    fn default() -> Self {
        Self { last: LINE_END }
    }
}

impl Encoder {
    /// Appends the next octets of the message to `output` as they go on the wire.
    pub fn encode(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        let mut from = 0;
        // A line end may lie across the front of the piece: there its octets are looked at with those before it.
        for at in 0..piece.len().min(LINE_END.len()) {
            if self.last == LINE_END && piece[at] == b'.' {
                output.extend_from_slice(&piece[from..at]);
                output.push(b'.');
                from = at;
            }
            self.last = [self.last[1], piece[at]];
        }
        for at in memmem::find_iter(piece, b"\r\n.") {
            let dot = at + LINE_END.len();
            output.extend_from_slice(&piece[from..dot]);
            output.push(b'.');
            from = dot;
        }
        output.extend_from_slice(&piece[from..]);
        if let [.., first, second] = *piece {
            self.last = [first, second];
        }
    }

    /// Appends what ends the data. A last line without its CR LF gets it: the end is recognised in no other way.
    pub fn finish(self, output: &mut Vec<u8>) {
        output.extend_from_slice(if self.last == LINE_END { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes in one piece: message, what was left behind the end (`None`: no end), traits.
    fn decode(input: &[u8]) -> (String, Option<String>, Traits) {
        let (mut decoder, mut output) = (Decoder::default(), Vec::new());
        let decoded = decoder.decode(input, &mut output);
        let rest = decoded.ended.then(|| String::from_utf8_lossy(&input[decoded.taken..]).into_owned());
        (String::from_utf8_lossy(&output).into_owned(), rest, decoder.traits())
    }

    fn message(input: &str) -> String {
        let (message, rest, _) = decode(input.as_bytes());
        assert_eq!(rest.as_deref(), Some(""), "{input:?} does not end at its end");
        message
    }

    #[test]
    fn a_message_ends_at_a_dot_alone_in_its_line() {
        assert_eq!(message("a\r\nb\r\n.\r\n"), "a\r\nb\r\n");
        assert_eq!(message("\r\n.\r\n"), "\r\n");
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        assert_eq!(message(".\r\n"), "");
    }

    #[test]
    fn what_is_behind_the_end_is_left_alone() {
        assert_eq!(decode(b"a\r\n.\r\nQUIT\r\n").1.as_deref(), Some("QUIT\r\n"));
    }

    #[test]
    fn dot_on_first_line_is_undoubled() {
        assert_eq!(message("..a\r\n.\r\n"), ".a\r\n");
    }

    #[test]
    fn dots_are_undoubled_at_the_beginning_of_lines_only() {
        assert_eq!(message("a..b\r\n..\r\n...\r\n.c\r\nd.\r\n.\r\n"), "a..b\r\n.\r\n..\r\nc\r\nd.\r\n");
    }

    #[test]
    fn no_other_line_ends_end_a_message() {
        for (input, expected) in [
            ("a\n.\n", "a\r\n.\r\n"),
            ("a\n.\r\n", "a\r\n.\r\n"),
            ("a\r\n.\n", "a\r\n.\r\n"),
            ("a\r.\r", "a ."),
            ("a\r.\r\n", "a .\r\n"),
            ("a\r\n.\rb", "a\r\n. b"),
            ("a\r\n.\r\r\n", "a\r\n.\r\n"),
            ("a\r\n.\r\r\r\n", "a\r\n.\r\n"),
            ("a\r\n.\r\rb", "a\r\n. b"),
            ("a\r\n.\r\r.\r\n", "a\r\n. .\r\n"),
            ("\r.\r\r\n", " .\r\n"),
            ("a\n\r.\r\n", "a\r\n .\r\n"),
            ("a\r\r\n", "a\r\n"),
            ("a\r\n.\0\r\n", "a\r\n\0\r\n"),
            ("a\r\n. \r\n", "a\r\n \r\n"),
        ] {
            let (message, rest, _) = decode(input.as_bytes());
            assert_eq!((message.as_str(), rest), (expected, None), "{input:?}");
        }
    }

    #[test]
    fn behind_lf_alone_two_dots_are_one_and_one_stays() {
        for (line, expected) in [
            (".b", ".b"),
            ("..b", ".b"),
            ("...b", "..b"),
            ("....b", "...b"),
            (".", "."),
            ("..", "."),
            ("b..", "b.."),
        ] {
            for end in ["\r\n", "\n"] {
                let data = format!("a\n{line}{end}c\r\n.\r\n");
                assert_eq!(message(&data), format!("a\r\n{expected}\r\nc\r\n"), "{data:?}");
            }
        }
    }

    #[test]
    fn a_sender_that_doubles_dots_behind_every_lf_gets_its_text_through() {
        let text = ".first\n.\n..\nplain\n\n.last\n";
        let doubled: String = text
            .split_inclusive('\n')
            .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.into() })
            .collect();
        assert_eq!(message(&format!("{doubled}\r\n.\r\n")), format!("{text}\n").replace('\n', "\r\n"));
    }

    #[test]
    fn dots_behind_lf_alone_end_nothing_wherever_the_pieces_are_cut() {
        for input in ["a\n.\r\n", "a\n..\r\n", "a\n.\n.\r\n", "a\n..\n", "a\n.\r.\r\n"] {
            for cut in 0..=input.len() {
                let (mut decoder, mut output) = (Decoder::default(), Vec::new());
                let (front, back) = input.as_bytes().split_at(cut);
                assert!(
                    !decoder.decode(front, &mut output).ended && !decoder.decode(back, &mut output).ended
                );
                assert_eq!(
                    String::from_utf8(output).unwrap(),
                    decode(input.as_bytes()).0,
                    "{input:?} at {cut}"
                );
            }
        }
    }

    #[test]
    fn behind_cr_alone_no_line_begins() {
        assert_eq!(message("a\r..b\r\n.\r\n"), "a ..b\r\n");
    }

    #[test]
    fn crs_in_front_of_crlf_belong_to_the_line_end() {
        assert_eq!(message("a\r\r\n.\r\n"), "a\r\n");
        assert_eq!(message("A: b\r\r\n\r\r\r\n..c\r\r\n\r\r\n.\r\n"), "A: b\r\n\r\n.c\r\n\r\n");
        assert!(decode(b"a\r\r\n.\r\n").2.bare_line_end);
        assert!(decode(b"a\r\n.\r\r\n").2.bare_line_end);
    }

    #[test]
    fn crs_in_a_row_are_one_space() {
        assert_eq!(message("a\r\r\rb\r\r.\r\n.\r\n"), "a b .\r\n");
        let (mut decoder, mut output) = (Decoder::default(), Vec::new());
        for _ in 0..1000 {
            decoder.decode(&[b'\r'; 1000], &mut output);
        }
        assert!(output.is_empty());
        decoder.decode(b"x", &mut output);
        assert_eq!(output, b" x");
    }

    #[test]
    fn what_is_odd_is_seen() {
        assert_eq!(decode(b"a\r\n.\r\n").2, Traits::default());
        assert!(decode("é\r\n.\r\n".as_bytes()).2.eight_bit);
        assert!(decode(b"\0\r\n.\r\n").2.nul);
        assert!(decode(b"a\nb\r\n.\r\n").2.bare_line_end);
        assert!(decode(b"a\rb\r\n.\r\n").2.bare_line_end);
    }

    #[test]
    fn a_line_may_be_long_but_not_endless() {
        let line = |len| [vec![b'x'; len], b"\r\n.\r\n".to_vec()].concat();
        let longest = usize::try_from(MAX_TEXT_LINE).unwrap();
        assert!(!decode(&line(longest)).2.endless_line);
        assert!(decode(&line(longest + 1)).2.endless_line);
    }

    fn encode(message: &str, step: usize) -> String {
        let (mut encoder, mut wire) = (Encoder::default(), Vec::new());
        message.as_bytes().chunks(step).for_each(|piece| encoder.encode(piece, &mut wire));
        encoder.finish(&mut wire);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn dots_at_the_beginning_of_lines_are_doubled() {
        assert_eq!(encode(".a\r\nb.\r\n..\r\n", 99), "..a\r\nb.\r\n...\r\n.\r\n");
    }

    #[test]
    fn a_last_line_without_its_end_gets_one() {
        assert_eq!(encode("a\r\n", 99), "a\r\n.\r\n");
        assert_eq!(encode("a", 99), "a\r\n.\r\n");
        assert_eq!(encode("", 99), ".\r\n");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_the_same(lines in prop::collection::vec("[.a]{0,4}\r\n", 0..12), step in 1_usize..9) {
            let text = lines.concat();
            prop_assert_eq!(message(&encode(&text, step)), text);
        }

        #[test]
        fn pieces_make_no_difference(text in "[.\r\na]{0,60}", step in 1_usize..9) {
            prop_assert_eq!(encode(&text, step), encode(&text, 99));
        }
    }
}

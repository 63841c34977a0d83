//! A command line as bytes: its end, and what must not be in it. Pure.

use crate::violations::Kind;

/// Longest command line, line end excluded: RFC 4954 section 4 allows 12 288 octets for AUTH.
pub const MAX_LINE: usize = 12_288;

/// The text of a line that ends with CRLF and holds no bare CR and no NUL.
///
/// # Errors
/// What is wrong with it.
pub fn complete_line(line: &[u8]) -> Result<String, (Kind, &'static str)> {
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err((Kind::BareLineFeed, "a command line ended with a bare line feed"));
    };
    if text.contains(&b'\r') {
        return Err((Kind::BareCarriageReturn, "a bare carriage return in a command line"));
    }
    if text.contains(&0) {
        return Err((Kind::NulByte, "a NUL in a command line"));
    }
    if text.len() > MAX_LINE {
        return Err((Kind::Protocol, "a command line over 12288 octets"));
    }
    String::from_utf8(text.to_vec()).map_err(|_| (Kind::EightBitCommand, "a command line that is not UTF-8"))
}

/// A word of the client for a detail: short, and without anything that is not plain text.
#[must_use]
pub fn printable(word: &str) -> String {
    word.chars()
        .take(16)
        .map(|character| if character.is_ascii_graphic() { character } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(complete_line(b"NOOP\r\n").unwrap(), "NOOP");
        assert_eq!(complete_line(b"NOOP\n").unwrap_err().0, Kind::BareLineFeed);
        assert_eq!(complete_line(b"NO\rOP\r\n").unwrap_err().0, Kind::BareCarriageReturn);
        assert_eq!(complete_line(b"NO\0OP\r\n").unwrap_err().0, Kind::NulByte);
        assert_eq!(complete_line(b"NO\xff\r\n").unwrap_err().0, Kind::EightBitCommand);
    }

    #[test]
    fn a_line_of_the_longest_length_is_complete_and_one_more_is_not() {
        let line = |length| [vec![b'x'; length], b"\r\n".to_vec()].concat();
        assert!(complete_line(&line(MAX_LINE)).is_ok());
        assert_eq!(complete_line(&line(MAX_LINE + 1)).unwrap_err().0, Kind::Protocol);
    }

    #[test]
    fn a_word_for_a_report_is_short_and_plain() {
        assert_eq!(printable("MA\u{7}L\u{e9}0123456789abcdef"), "MA?L?0123456789a");
    }
}

//! A line of JSON that says how long it is and proves that it is whole.
//!
//! ```text
//! mailroute-message 1 412 89abcdef        what, version, octets of the JSON, CRC-32 of the JSON
//! {"id":…}
//! ```
//!
//! Pure. Owns this form; refuses to know what the JSON means. There is exactly one way to write a frame, so a damaged
//! one that is read all the same is as good as impossible. Costs no more than the frame's own length, and that is
//! bounded.

/// Version of all that is in the spool. Another one is not read: it is set aside.
const VERSION: u32 = 1;

/// Longest first line: the longest name, and three numbers.
const MAX_LINE_BYTES: usize = 64;

/// Longest JSON. A thousand recipients, each with the longest address and a reason for its failure, take less than a
/// third of it.
pub const MAX_JSON_BYTES: usize = 4 * 1024 * 1024;

/// Why octets are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer octets than there have to be. With `needed`, more may be known.
    #[error("is truncated: at least {needed} bytes are needed")]
    CutOff {
        /// Octets needed to get further.
        needed: usize,
    },
    /// It does not begin as it should.
    #[error("does not begin with \"{0} {VERSION} <length> <CRC-32>\"")]
    NotOurs(&'static str),
    /// More than is ever written.
    #[error("more than {MAX_JSON_BYTES} octets to describe one message")]
    TooLarge,
    /// It is not what was written.
    #[error("does not match its CRC-32")]
    Checksum,
    /// It is whole, and makes no sense.
    #[error("is not valid: {0}")]
    Senseless(String),
    /// It is about another message than its name says.
    #[error("belongs to another message than its name says")]
    OtherName,
    /// The file is longer or shorter than it says.
    #[error("has {found} bytes instead of {expected}")]
    Length {
        /// Octets there are.
        found: u64,
        /// Octets there should be.
        expected: u64,
    },
}

/// A frame of the kind `what` around `json`, which has no line end in it. Appended to `out`.
///
/// # Errors
/// When it is too large to be read again.
pub fn push(out: &mut Vec<u8>, what: &str, json: &[u8]) -> Result<(), FormatError> {
    if json.len() > MAX_JSON_BYTES {
        return Err(FormatError::TooLarge);
    }
    out.extend_from_slice(line(what, json.len(), crc32fast::hash(json)).as_bytes());
    out.extend_from_slice(json);
    out.push(b'\n');
    Ok(())
}

/// The JSON at the beginning of `octets`, and where the frame ends.
///
/// # Errors
/// When it is no whole frame of the kind `what`.
pub fn parse<'a>(octets: &'a [u8], what: &'static str) -> Result<(&'a [u8], usize), FormatError> {
    let first = &octets[..octets.len().min(MAX_LINE_BYTES)];
    let end = match first.iter().position(|&octet| octet == b'\n') {
        Some(end) => end + 1,
        None if first.len() < MAX_LINE_BYTES => return Err(FormatError::CutOff { needed: MAX_LINE_BYTES }),
        None => return Err(FormatError::NotOurs(what)),
    };
    let (len, crc) = numbers(&first[..end], what).ok_or(FormatError::NotOurs(what))?;
    if len > MAX_JSON_BYTES {
        return Err(FormatError::TooLarge);
    }
    let json = octets.get(end..end + len).ok_or(FormatError::CutOff { needed: end + len + 1 })?;
    match octets.get(end + len) {
        None => Err(FormatError::CutOff { needed: end + len + 1 }),
        Some(b'\n') if crc32fast::hash(json) == crc => Ok((json, end + len + 1)),
        Some(_) => Err(FormatError::Checksum),
    }
}

/// Length and CRC-32 out of a first line that is exactly as [`line()`] writes it.
fn numbers(first: &[u8], what: &str) -> Option<(usize, u32)> {
    let text = std::str::from_utf8(first).ok()?;
    let mut words = text.trim_end_matches('\n').split(' ').skip(2);
    let (len, crc) = (words.next()?.parse().ok()?, u32::from_str_radix(words.next()?, 16).ok()?);
    (line(what, len, crc) == text).then_some((len, crc))
}

fn line(what: &str, len: usize, crc: u32) -> String {
    format!("{what} {VERSION} {len} {crc:08x}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(json: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, "thing", json).unwrap();
        out
    }

    #[test]
    fn a_frame_looks_like_this() {
        assert_eq!(
            framed(b"{}").escape_ascii().to_string(),
            "thing 1 2 a352ced2\\n{}\\n".replace("a352ced2", &format!("{:08x}", crc32fast::hash(b"{}")))
        );
    }

    #[test]
    fn what_follows_is_left_alone() {
        let mut octets = framed(b"{\"a\":1}");
        let len = octets.len();
        octets.extend_from_slice(b"anything\n");
        assert_eq!(parse(&octets, "thing"), Ok((b"{\"a\":1}".as_slice(), len)));
    }

    #[test]
    fn a_cut_frame_is_told_from_a_damaged_one() {
        let whole = framed(b"{\"a\":1}");
        for len in 0..whole.len() {
            assert!(
                matches!(parse(&whole[..len], "thing"), Err(FormatError::CutOff { needed }) if needed > len),
                "{len}"
            );
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                assert!(parse(&damaged, "thing").is_err(), "bit {bit} of octet {at}");
            }
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_length() {
        for line in
            ["thing 1 +2 a352ced2\n", "thing 1 02 a352ced2\n", "thing 2 2 a352ced2\n", "thing 1 2 A352CED2\n"]
        {
            let octets = [line.as_bytes(), b"{}\n"].concat();
            assert_eq!(parse(&octets, "thing"), Err(FormatError::NotOurs("thing")), "{line}");
        }
    }

    #[test]
    fn a_length_costs_nothing_before_it_is_there() {
        let huge = format!("thing 1 {} 00000000\n", usize::MAX);
        assert_eq!(parse(huge.as_bytes(), "thing"), Err(FormatError::TooLarge));
        assert_eq!(parse(&[b'x'; 100], "thing"), Err(FormatError::NotOurs("thing")));
        assert_eq!(
            push(&mut Vec::new(), "thing", &vec![b' '; MAX_JSON_BYTES + 1]),
            Err(FormatError::TooLarge)
        );
    }
}

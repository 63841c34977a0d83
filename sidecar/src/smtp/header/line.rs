//! What a line of a header section is: pure functions of its octets.

/// U+FEFF, with which some programs begin UTF-8 files.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Fields that most headers have. One of them behind a first line that is no field, and before an empty line, makes that line part
/// of a header; otherwise it is text, and there is no header.
const COMMON_FIELDS: [&str; 12] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "received",
    "return-path",
];

/// The first line without what stands in front of its field: byte order marks, or white space, which would make it part
/// of the field that the stamp ends with. Nothing is left of a line that is a byte order mark.
pub(super) fn without_front(line: &[u8]) -> &[u8] {
    let text = without_marks(line);
    let mut field = text.trim_ascii_start();
    while field.starts_with(BYTE_ORDER_MARK) {
        field = without_marks(field).trim_ascii_start();
    }
    match () {
        () if split_field(field).is_some_and(|(name, _)| is_common(name)) => field,
        () if field.is_empty() && text.len() < line.len() => field,
        () => text,
    }
}

fn without_marks(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix(BYTE_ORDER_MARK) {
        line = rest;
    }
    line
}

pub(super) fn is_common(name: &[u8]) -> bool {
    COMMON_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// Name and value of a field (RFC 5322 §2.2). Space before the colon is obsolete, and still occurs.
pub(super) fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, &line[colon + 1..]))
}

/// Whether any reader could find the name of a `From` or `Sender` field anywhere in a line, or there is more of it than is
/// looked at. Some readers skip white space in the middle of a name.
pub(super) fn could_be_author(line: &[u8]) -> bool {
    let ends_in = |front: &[u8], backwards: &[u8]| {
        let mut octets = front.iter().rev().filter(|octet| !octet.is_ascii_whitespace());
        backwards.iter().all(|letter| octets.next().is_some_and(|octet| octet.eq_ignore_ascii_case(letter)))
    };
    let mut colons = line.iter().enumerate().filter(|&(_, &octet)| octet == b':');
    !line.ends_with(b"\n")
        || colons.any(|(at, _)| ends_in(&line[..at], b"morf") || ends_in(&line[..at], b"rednes"))
}

/// A line of white space, which is not the empty one.
pub(super) fn is_blank(line: &[u8]) -> bool {
    line.ends_with(b"\n") && line.trim_ascii().is_empty()
}

/// The line that mail folders put between messages. Some senders leave it in front of the header.
pub(super) fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

pub(super) fn value_text(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value.trim_ascii());
    text.chars().filter(|c| !c.is_control()).collect()
}

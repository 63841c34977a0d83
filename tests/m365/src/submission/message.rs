//! Headers of a message, as far as Exchange Online judges them: From, Sender, Date, Message-ID, Received.
//!
//! Pure; it reads what RFC 5322 writes and refuses to know bodies.

use crate::{mailbox::Header, violations::Kind};

/// Fields that a message may have once (RFC 5322 section 3.6).
const ONCE: [&str; 8] = ["From", "Sender", "Reply-To", "To", "Cc", "Date", "Message-ID", "Subject"];

/// The header fields of `message`, unfolded, in order. Lines that are no field are passed over.
#[must_use]
pub fn headers(message: &[u8]) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for line in header_block(message).split(|&byte| byte == b'\n') {
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if line.starts_with([' ', '\t']) {
            if let Some(last) = headers.last_mut() {
                last.value = format!("{} {}", last.value, line.trim()).trim().to_owned();
            }
        } else if let Some((name, value)) = line.split_once(':') {
            headers.push(Header { name: name.trim_end().to_owned(), value: value.trim().to_owned() });
        }
    }
    headers
}

/// The bytes before the first empty line.
#[must_use]
pub fn header_block(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return &[];
    }
    let end = message.windows(4).position(|window| window == b"\r\n\r\n");
    &message[..end.map_or(message.len(), |at| at + 2)]
}

/// Values of all fields of this name.
pub fn all<'a>(headers: &'a [Header], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.as_str())
}

/// What Exchange forgives or repairs in a header, but a careful client does not do.
#[must_use]
pub fn careless_fields(fields: &[Header]) -> Vec<(Kind, String)> {
    let absent = |name: &str, kind: Kind| {
        let none = all(fields, name).next().is_none();
        none.then(|| (kind, format!("the message has no {name}")))
    };
    let twice = ONCE.into_iter().filter(|name| all(fields, name).count() > 1);
    let missing = [absent("Date", Kind::DateMissing), absent("Message-ID", Kind::MessageIdMissing)];
    let twice = twice.map(|name| (Kind::DuplicateHeader, format!("the message has more than one {name}")));
    missing.into_iter().flatten().chain(twice).collect()
}

/// The addresses in a field such as From: those in angle brackets, else the bare ones. Names, comments and group names
/// are left out.
#[must_use]
pub fn addresses(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in split_outside_quotes(value) {
        let address = match (part.rfind('<'), part.rfind('>')) {
            (Some(open), Some(close)) if open < close => &part[open + 1..close],
            _ => part.rsplit(':').next().unwrap_or_default(),
        };
        let address = address.trim().trim_end_matches(';').trim();
        if address.contains('@') && !address.starts_with('@') && !address.contains(char::is_whitespace) {
            found.push(address.to_owned());
        }
    }
    found
}

/// Parts between commas and semicolons that are outside quotes and comments; comments are dropped.
fn split_outside_quotes(value: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut depth, mut escaped) = (false, 0_usize, false);
    for character in value.chars() {
        if escaped {
            escaped = false;
            continue;
        }
        match character {
            '\\' if quoted || depth > 0 => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' | ';' if !quoted && depth == 0 => parts.push(std::mem::take(&mut part)),
            // What is quoted may look like an address or a bracket; it is a name.
            _ if depth == 0 && !quoted => part.push(character),
            _ => {}
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_fields_are_joined() {
        let headers = headers(b"Subject: a\r\n b\r\n\tc\r\nTo: x@y\r\n\r\nBody: no\r\n");
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[0].value, "a b c");
    }

    #[test]
    fn a_message_without_empty_line_is_all_header_and_one_that_begins_with_it_has_none() {
        assert_eq!(headers(b"A: 1\r\nB: 2\r\n").len(), 2);
        assert_eq!(headers(b"\r\nA: 1\r\n").len(), 0);
    }

    #[test]
    fn addresses_are_found_behind_names_comments_and_groups() {
        let cases: [(&str, &[&str]); 9] = [
            ("noreply@contoso.com", &["noreply@contoso.com"]),
            ("Shop <noreply@contoso.com>", &["noreply@contoso.com"]),
            ("\"a@b, <c@d>\" <noreply@contoso.com>", &["noreply@contoso.com"]),
            ("noreply@contoso.com (not a@b)", &["noreply@contoso.com"]),
            ("a@b, \"C\" <c@d>", &["a@b", "c@d"]),
            ("Team: a@b, c@d;", &["a@b", "c@d"]),
            ("=?utf-8?q?Caf=C3=A9?= <a@b>", &["a@b"]),
            ("nobody", &[]),
            ("", &[]),
        ];
        for (value, expected) in cases {
            assert_eq!(addresses(value), expected, "{value}");
        }
    }
}

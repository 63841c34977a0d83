//! The path of MAIL and RCPT (RFC 5321 §4.1.2), told apart from what is behind it.

use super::CommandError;
use crate::message::envelope::{Address, AddressError};

/// Splits `KEYWORD <path> parameters` into what is between the brackets and what is behind them. Without brackets, the path
/// ends at the first space.
pub(super) fn split<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (found, rest) = argument.split_at_checked(keyword.len())?;
    let rest = Some(rest.trim_ascii_start()).filter(|_| found.eq_ignore_ascii_case(keyword))?;
    let Some(path) = rest.strip_prefix(b"<") else {
        let (path, behind) = rest.split_at(unquoted(rest, b' ').unwrap_or(rest.len()));
        // A name in front of an address in brackets is for a header.
        let parameters = Some(behind.trim_ascii_start()).filter(|behind| !behind.starts_with(b"<"))?;
        return (!path.is_empty()).then_some((path, parameters));
    };
    let len = unquoted(path, b'>')?;
    let behind = &path[len + 1..];
    let parameters = behind.trim_ascii_start();
    (behind.len() != parameters.len() || behind.is_empty()).then_some((&path[..len], parameters))
}

/// The address in a path; `wrap` says whose it is.
///
/// # Errors
/// When it is no address, or no UTF-8.
pub(super) fn address(path: &[u8], wrap: fn(AddressError) -> CommandError) -> Result<Address, CommandError> {
    let text = std::str::from_utf8(path).map_err(|_| CommandError::NonAscii)?;
    Address::parse(without_source_route(text)).map_err(wrap)
}

/// RFC 5321 §4.1.1.3: source routes are recognised and ignored.
fn without_source_route(path: &str) -> &str {
    match path.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        Some((_, address)) => address,
        None => path,
    }
}

/// Where the first `octet` is that is not quoted.
fn unquoted(path: &[u8], octet: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.iter().position(|&b| {
        let ends = b == octet && !quoted;
        quoted ^= b == b'"' && !escaped;
        escaped = b == b'\\' && quoted && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::mail;
    use super::*;

    fn path(line: &str) -> Result<String, CommandError> {
        mail(line).map(|mail| mail.reverse_path.to_string())
    }

    #[test]
    fn paths_are_read_as_written() {
        for (line, expected) in [
            ("MAIL FROM:<>", "<>"),
            ("mail from:<A@B.example>", "<A@B.example>"),
            ("MAIL FROM: <a@b> ", "<a@b>"),
            ("MAIL FROM:<@x,@y:a@b>", "<a@b>"),
            ("MAIL FROM:<\"a > b\"@c>", "<\"a > b\"@c>"),
            ("MAIL FROM:<\"a\\\" > b\"@c> SIZE=3", "<\"a\\\" > b\"@c>"),
            ("MAIL FROM: craig@contoso.com", "<craig@contoso.com>"),
            ("MAIL FROM:craig@contoso.com  SIZE=3", "<craig@contoso.com>"),
            ("MAIL FROM:@x,@y:a@b", "<a@b>"),
            ("MAIL FROM:\"a > b\"@c SIZE=3", "<\"a > b\"@c>"),
        ] {
            assert_eq!(path(line), Ok(expected.into()), "{line:?}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for line in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL FROM: ",
            "MAIL FROM:a@b>",
            "MAIL FROM:a<b@c>",
            "MAIL FROM:Craig <a@b>",
            "MAIL FROM:\"a b@c",
            "MAIL FROM:<a@b",
            "MAIL TO:<a@b>",
            "MAIL FROM:<a@b>SIZE=1",
            "MAIL FROM:<a@b>>",
            "MAIL FROM:<a b@c>",
            "MAIL FROM:<\"a@b>",
            "MAIL FROM:< >",
            "MAIL FROM :<a@b>",
        ] {
            assert_eq!(path(line), Err(CommandError::Sender(AddressError::Syntax)), "{line:?}");
        }
        assert_eq!(Command::parse(b"RCPT TO:<>"), Err(CommandError::Recipient(AddressError::Syntax)));
        assert_eq!(Command::parse(b"RCPT TO:"), Err(CommandError::Recipient(AddressError::Syntax)));
        for line in ["RCPT TO:<root>", "RCPT TO: root"] {
            let error = Command::parse(line.as_bytes());
            assert_eq!(error, Err(CommandError::Recipient(AddressError::NoDomain)), "{line:?}");
        }
    }
}

//! Command lines: taken apart, with the syntax rules of RFC 5321 that Exchange Online enforces.
//!
//! Pure. It refuses to know which command is allowed when.

use crate::{faults::Stage, replies::Line};

/// A command with its arguments, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// EHLO with its name.
    Ehlo(String),
    /// HELO with its name.
    Helo(String),
    /// STARTTLS.
    StartTls,
    /// AUTH with mechanism (upper case) and initial response.
    Auth(String, Option<String>),
    /// MAIL.
    Mail(Path),
    /// RCPT.
    Rcpt(Path),
    /// DATA.
    Data,
    /// BDAT with the size of the chunk and whether it is the last.
    Bdat(usize, bool),
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// QUIT.
    Quit,
}

/// `<address>` with its ESMTP parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The address; empty for `<>`.
    pub address: String,
    /// Parameters as sent.
    pub parameters: Vec<String>,
}

impl Command {
    /// Reads a line without its line end.
    ///
    /// # Errors
    /// The reply that refuses it.
    pub fn parse(line: &str) -> Result<Self, Line> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let alone = |command| if rest.is_empty() { Ok(command) } else { Err(Line::InvalidArguments) };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => domain(rest).map(Self::Ehlo),
            "HELO" => domain(rest).map(Self::Helo),
            "STARTTLS" => alone(Self::StartTls),
            "AUTH" => auth(rest),
            "MAIL" => path(rest, "FROM:", Line::InvalidSender).map(Self::Mail),
            "RCPT" => recipient(rest).map(Self::Rcpt),
            "DATA" => alone(Self::Data),
            "BDAT" => bdat(rest),
            "RSET" => alone(Self::Rset),
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Vrfy),
            "QUIT" => alone(Self::Quit),
            _ => Err(Line::Unrecognized),
        }
    }

    /// The stage at which faults for this command apply.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        Some(match self {
            Self::Ehlo(_) | Self::Helo(_) => Stage::Ehlo,
            Self::StartTls => Stage::StartTls,
            Self::Auth(..) => Stage::Auth,
            Self::Mail(_) => Stage::Mail,
            Self::Rcpt(_) => Stage::Rcpt,
            Self::Data => Stage::Data,
            Self::Rset => Stage::Rset,
            Self::Noop => Stage::Noop,
            Self::Quit => Stage::Quit,
            // A chunk's reply comes after its bytes; the last one is the end of data.
            Self::Bdat(..) | Self::Vrfy => return None,
        })
    }

    /// Whether nothing may be pipelined behind it (RFC 2920 section 3.1, RFC 3207, RFC 4954).
    #[must_use]
    pub fn ends_group(&self) -> bool {
        matches!(self, Self::Ehlo(_) | Self::Helo(_) | Self::StartTls | Self::Auth(..) | Self::Data)
    }
}

impl Path {
    /// The value of a parameter `NAME=value`, or the empty text for one without value.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The domain of the address.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Whether `text` is a domain name of letters, digits and hyphens, or an address literal.
#[must_use]
pub fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let literal = literal.strip_prefix("IPv6:").unwrap_or(literal);
        return literal.parse::<std::net::IpAddr>().is_ok();
    }
    // 255 octets and labels of 63: RFC 1035 section 2.3.4.
    text.len() <= 255 && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn domain(text: &str) -> Result<String, Line> {
    if is_domain(text) { Ok(text.to_owned()) } else { Err(Line::InvalidDomain) }
}

fn auth(rest: &str) -> Result<Command, Line> {
    let mut words = rest.split_ascii_whitespace();
    let mechanism = words.next().ok_or(Line::InvalidArguments)?.to_ascii_uppercase();
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() { Err(Line::InvalidArguments) } else { Ok(Command::Auth(mechanism, initial)) }
}

fn bdat(rest: &str) -> Result<Command, Line> {
    let mut words = rest.split_ascii_whitespace();
    let size = words.next().and_then(|size| size.parse().ok()).ok_or(Line::InvalidArguments)?;
    match (words.next(), words.next()) {
        (None, _) => Ok(Command::Bdat(size, false)),
        (Some(last), None) if last.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat(size, true)),
        _ => Err(Line::InvalidArguments),
    }
}

fn recipient(rest: &str) -> Result<Path, Line> {
    let path = path(rest, "TO:", Line::InvalidRecipient)?;
    if path.address.is_empty() { Err(Line::InvalidRecipient) } else { Ok(path) }
}

fn path(rest: &str, keyword: &str, invalid: Line) -> Result<Path, Line> {
    let prefix = rest.get(..keyword.len()).ok_or(Line::InvalidArguments)?;
    if !prefix.eq_ignore_ascii_case(keyword) {
        return Err(Line::InvalidArguments);
    }
    let rest = rest[keyword.len()..].trim_start().strip_prefix('<').ok_or(invalid)?;
    let end = closing_bracket(rest).ok_or(invalid)?;
    let address = &rest[..end];
    if !address.is_empty() && !is_address(address) {
        return Err(invalid);
    }
    let parameters = rest[end + 1..].split_ascii_whitespace().map(str::to_owned).collect();
    Ok(Path { address: address.to_owned(), parameters })
}

/// The first `>` outside a quoted local part.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().find_map(|(at, character)| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
        None
    })
}

/// Whether `text` is `local@domain` with a local part of at most 64 octets (RFC 5321 section 4.5.3.1.1).
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let plain =
        !local.is_empty() && local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atom));
    let international = !domain.is_ascii() && domain.split('.').all(|label| !label.is_empty());
    local.len() <= 64 && (quoted || plain) && (is_domain(domain) || international)
}

fn is_atom(character: char) -> bool {
    !character.is_ascii() || character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ehlo_names_are_checked() {
        for good in ["localhost", "pod-1.shop.svc", "[127.0.0.1]", "[IPv6:::1]"] {
            assert_eq!(Command::parse(&format!("EHLO {good}")), Ok(Command::Ehlo(good.into())));
        }
        for bad in ["", "MacBook..", ".", "a_b", "-a", "a-", "[1.2.3]", "a b", "caf\u{e9}"] {
            assert_eq!(Command::parse(&format!("ehlo {bad}")), Err(Line::InvalidDomain), "{bad:?}");
        }
    }

    #[test]
    fn paths_keep_their_parameters() {
        let Ok(Command::Mail(path)) =
            Command::parse("mail from:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8")
        else {
            panic!("not read");
        };
        assert_eq!(path.parameter("size"), Some("10"));
        assert_eq!(path.parameter("SMTPUTF8"), Some(""));
        assert_eq!(path.parameter("RET"), None);
        assert_eq!(path.domain(), "b.example");
    }

    #[test]
    fn the_null_path_is_a_sender_but_no_recipient() {
        assert_eq!(Command::parse("MAIL FROM:<>"), Ok(Command::Mail(Path::default())));
        assert_eq!(Command::parse("RCPT TO:<>"), Err(Line::InvalidRecipient));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for bad in ["a@b", "<a@b", "<a>", "<@b>", "<a..b@c>", "<a b@c>", "<a@b..c>", "<a@>"] {
            assert_eq!(Command::parse(&format!("RCPT TO:{bad}")), Err(Line::InvalidRecipient), "{bad}");
        }
    }

    #[test]
    fn a_quoted_local_part_may_hold_a_bracket() {
        let Ok(Command::Rcpt(path)) = Command::parse("RCPT TO:<\"a>b\"@c.example>") else {
            panic!("not read")
        };
        assert_eq!(path.address, "\"a>b\"@c.example");
    }

    #[test]
    fn chunks_have_a_size() {
        assert_eq!(Command::parse("BDAT 86 LAST"), Ok(Command::Bdat(86, true)));
        assert_eq!(Command::parse("BDAT 86"), Ok(Command::Bdat(86, false)));
        assert_eq!(Command::parse("BDAT"), Err(Line::InvalidArguments));
        assert_eq!(Command::parse("BDAT -1"), Err(Line::InvalidArguments));
    }

    #[test]
    fn unknown_verbs_and_stray_arguments_are_told_apart() {
        assert_eq!(Command::parse("XYZZY"), Err(Line::Unrecognized));
        assert_eq!(Command::parse("DATA now"), Err(Line::InvalidArguments));
        assert_eq!(Command::parse("MAIL"), Err(Line::InvalidArguments));
    }
}

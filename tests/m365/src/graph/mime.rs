//! The message in a request: who sends it, who gets it, and what is left of it when it is delivered.
//!
//! Pure. Addresses are read by the crate `mail-parser`, so that a client's own reading is compared with another.

use mail_parser::{Address, HeaderName, Message, MessageParser};

use crate::submission::message::header_block;

/// What Graph reads in the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Those of From.
    pub from: Vec<String>,
    /// Those of To, Cc and Bcc, each once.
    pub recipients: Vec<String>,
    /// Something in To, Cc or Bcc is no address.
    pub invalid: bool,
}

/// The addresses in the header of a message.
pub(super) fn addresses(message: &[u8]) -> Addresses {
    let mut found = Addresses::default();
    let parser = MessageParser::new().with_address_headers();
    let Some(parsed) = parser.parse_headers(message) else { return found };
    found.from = texts(&parsed, HeaderName::From);
    let names = [HeaderName::To, HeaderName::Cc, HeaderName::Bcc];
    for address in names.into_iter().flat_map(|name| texts(&parsed, name)) {
        found.invalid |= !is_address(&address);
        if !found.recipients.iter().any(|known| known.eq_ignore_ascii_case(&address)) {
            found.recipients.push(address);
        }
    }
    // What looks like an address in an unquoted display name of From is taken for one.
    found.from.extend(names_with_at(&parsed));
    found
}

fn texts(parsed: &Message<'_>, name: HeaderName<'static>) -> Vec<String> {
    let lists = parsed.header_values(name).filter_map(|value| value.as_address());
    lists.flat_map(Address::iter).map(|addr| addr.address.as_deref().unwrap_or_default().to_owned()).collect()
}

/// Display names of From with an `@` that is not quoted.
fn names_with_at(parsed: &Message<'_>) -> Vec<String> {
    let fields = parsed.headers_raw().filter(|(name, _)| name.eq_ignore_ascii_case("From"));
    fields
        .map(|(_, value)| unquoted(value))
        .filter_map(|value| value.split_once('<').map(|(name, _)| name.trim().to_owned()))
        .filter(|name| name.contains('@'))
        .collect()
}

/// A field's value without what is in double quotes.
fn unquoted(value: &str) -> String {
    value.split('"').step_by(2).collect()
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let whole = !local.is_empty() && !domain.is_empty();
    whole && !text.contains(|character: char| character.is_control() || character == ' ')
}

/// The message as it is delivered: without Bcc, `Auto-Submitted`, and the `X-` fields for which `keeps` is false.
pub(super) fn delivered(message: &[u8], keeps: impl Fn(&str) -> bool) -> Vec<u8> {
    let header = header_block(message);
    let (mut kept, mut keeping) = (Vec::with_capacity(message.len()), true);
    for line in header.split_inclusive(|&byte| byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase();
            let own = name.starts_with("x-") && !keeps(&name);
            keeping = !own && name != "bcc" && name != "auto-submitted";
        }
        if keeping {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(&message[header.len()..]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(header: &str) -> Vec<String> {
        addresses(format!("{header}\r\n\r\nHello\r\n").as_bytes()).recipients
    }

    #[test]
    fn recipients_are_those_of_to_cc_and_bcc_each_once() {
        let header = "From: a@b.example\r\nTo: \"C, D\" <c@d.example>, e@f.example (not g@h.example)\r\n\
                      Cc: Team: i@j.example,\r\n k@l.example;, C@D.example\r\nBcc: m@n.example";
        let all = ["c@d.example", "e@f.example", "i@j.example", "k@l.example", "m@n.example"];
        assert_eq!(recipients(header), all);
        assert_eq!(recipients("To: undisclosed-recipients:;\r\nBcc: m@n.example"), ["m@n.example"]);
        assert_eq!(recipients("To: undisclosed-recipients:;"), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_address_is_told() {
        assert!(addresses(b"To: nobody\r\n\r\n").invalid);
        assert!(addresses(b"To: a@b.example, @c\r\n\r\n").invalid);
        assert!(!addresses(b"To: a@b.example\r\n\r\n").invalid);
    }

    #[test]
    fn an_at_in_an_unquoted_name_is_a_second_sender() {
        assert_eq!(addresses(b"From: \"x@y\" <a@b.example>\r\n\r\n").from, ["a@b.example"]);
        assert!(addresses(b"From: x@y <a@b.example>\r\n\r\n").from.len() > 1);
    }

    #[test]
    fn bcc_auto_submitted_and_unseen_fields_are_not_delivered() {
        let message = b"Subject: s\r\nBCC: a@b,\r\n c@d\r\nX-Own: 1\r\n\tfolded\r\nX-Seen: 2\r\nAuto-Submitted: auto-generated\r\n\
                        Message-ID: <1@x>\r\n\r\nBcc: body\r\n";
        let kept = "Subject: s\r\nX-Seen: 2\r\nMessage-ID: <1@x>\r\n\r\nBcc: body\r\n";
        assert_eq!(delivered(message, |name| name == "x-seen"), kept.as_bytes());
    }
}

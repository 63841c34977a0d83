//! Mail addresses, taken out of text where they do not belong: in log lines as far as the route says, and recipients in
//! what the operator is told.
//!
//! Owns what looks like an address in a line of text. Replies of an upstream quote addresses in many ways, so whatever
//! stands around an `@` is taken for one: rather a word too much than a person. Refuses to know who writes lines.
//!
//! One thing is spared: the `message_id` of a log line. It has the same form, and message trace cannot do without it.

use std::borrow::Cow;

use mailroute_route::address::ATEXT_SYMBOLS;
use mailroute_route::file::LogAddresses;

use crate::message::envelope::{Address, Envelope, MAX_ADDRESS_BYTES};

/// What stands for a part that is not shown.
const HIDDEN: &str = "*";

/// A log line with as much of its addresses as is to be shown.
pub fn line(text: &str, shown: LogAddresses) -> Cow<'_, str> {
    if shown == LogAddresses::Full || !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let spared = message_id(text);
    let (mut redacted, mut copied) = (String::with_capacity(text.len()), 0);
    for (at, _) in text.match_indices('@') {
        if at < copied || spared.contains(&at) {
            continue;
        }
        let start = at - local_part_len(&text[copied..at]);
        let end = at + 1 + domain_len(&text[at + 1..]);
        if start == at && end == at + 1 {
            continue;
        }
        redacted.push_str(&text[copied..start]);
        redacted.push_str(HIDDEN);
        redacted.push('@');
        redacted.push_str(if shown == LogAddresses::Domain { &text[at + 1..end] } else { HIDDEN });
        copied = end;
    }
    redacted.push_str(&text[copied..]);
    Cow::Owned(redacted)
}

/// A text for the operator about an attempt to deliver: without the recipients' local parts. A sender stays, since it
/// belongs to the route's set-up, and is what a refusal of the sender is about.
pub fn recipients(text: &str, envelope: &Envelope) -> String {
    let mut text = text.to_owned();
    let is_sender = |to: &Address| envelope.reverse_path.address().is_some_and(|from| from == to);
    for to in envelope.recipients.iter().filter(|to| !is_sender(to)) {
        let mut looked_at = 0;
        while let Some(at) = find(&text[looked_at..], to.as_str()) {
            let start = looked_at + at;
            let local_part = start..start + to.as_str().len() - to.domain().len() - 1;
            text.replace_range(local_part, HIDDEN);
            looked_at = start + HIDDEN.len() + 1 + to.domain().len();
        }
    }
    text
}

/// Where `address` stands in `text`, whatever the case. A bare `postmaster` is nobody in particular.
fn find(text: &str, address: &str) -> Option<usize> {
    let at_sign = address.rfind('@')?;
    let is_there = |front: usize| {
        text.get(front..front + address.len()).is_some_and(|word| word.eq_ignore_ascii_case(address))
    };
    text.match_indices('@').filter_map(|(at, _)| at.checked_sub(at_sign)).find(|&front| is_there(front))
}

/// Where the value of `message_id` stands, as JSON and as text have it.
fn message_id(text: &str) -> std::ops::Range<usize> {
    let quoted = ["\"message_id\":\"", " message_id=\""].iter().find_map(|key| {
        let start = text.find(key)? + key.len();
        Some(start..start + value_len(&text[start..]))
    });
    quoted.unwrap_or_default()
}

/// Octets up to the quote that ends a value.
fn value_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// Octets at the end of `before` that could be a local part: a word, or a quoted string.
fn local_part_len(before: &str) -> usize {
    if before.ends_with('"') {
        return quoted_len(before);
    }
    let is_part = |c: char| {
        c.is_ascii_alphanumeric()
            || c == '.'
            || ATEXT_SYMBOLS.contains(c)
            || (!c.is_ascii() && !c.is_whitespace() && !c.is_control())
    };
    before.len() - before.trim_end_matches(is_part).len()
}

/// Octets of the quoted string at the end of `before`. In a line of JSON its quotes have a backslash each, and a quote
/// inside has three.
fn quoted_len(before: &str) -> usize {
    let backslashes = |at: usize| before[..at].len() - before[..at].trim_end_matches('\\').len();
    let closing = before.len() - 1;
    let opening = before[..closing]
        .rmatch_indices('"')
        .map(|(at, _)| at)
        .take_while(|at| closing - at < 2 * MAX_ADDRESS_BYTES)
        .find(|&at| backslashes(at) == backslashes(closing));
    opening.map_or(1, |at| before.len() - at)
}

/// Octets at the front of `behind` that could be a domain or an address literal.
fn domain_len(behind: &str) -> usize {
    if let Some(literal) = behind.strip_prefix('[')
        && let Some(end) = literal.find(']')
    {
        return end + 2;
    }
    let is_part = |c: char| {
        c.is_ascii_alphanumeric()
            || "-_.".contains(c)
            || (!c.is_ascii() && !c.is_whitespace() && !c.is_control())
    };
    behind.len() - behind.trim_start_matches(is_part).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::envelope::{BodyType, QueueId, ReversePath};

    #[test]
    fn whatever_looks_like_an_address_is_shown_as_the_route_says() {
        for (text, domain, hidden) in [
            (
                "550 5.1.10 <ada@example.com> not found",
                "550 5.1.10 <*@example.com> not found",
                "550 5.1.10 <*@*> not found",
            ),
            ("sender=<a.b+c=d@x.example> n=1", "sender=<*@x.example> n=1", "sender=<*@*> n=1"),
            ("to ADA@Example.COM; allowed: *@b", "to *@Example.COM; allowed: *@b", "to *@*; allowed: *@*"),
            ("пример@пример.example,x@[192.0.2.1]", "*@пример.example,*@[192.0.2.1]", "*@*,*@*"),
            ("<\"john doe\"@b>", "<*@b>", "<*@*>"),
            (r#""to":"<\"jo \\\"hn\"@b>""#, r#""to":"<\*@b>""#, r#""to":"<\*@*>""#),
            ("cut off at ada@", "cut off at *@", "cut off at *@*"),
            ("@example.com", "*@example.com", "*@*"),
            ("a@b@c", "*@b*@c", "*@**@*"),
            (
                "[Hostname=X.PROD.OUTLOOK.COM] @ 3",
                "[Hostname=X.PROD.OUTLOOK.COM] @ 3",
                "[Hostname=X.PROD.OUTLOOK.COM] @ 3",
            ),
        ] {
            assert_eq!(line(text, LogAddresses::Full), text);
            assert_eq!(line(text, LogAddresses::Domain), domain);
            assert_eq!(line(text, LogAddresses::Hidden), hidden);
        }
    }

    #[test]
    fn the_message_id_stays() {
        let json = r#"{"message_id":"<1@app>","reply":"message_id=\"<ada@b>\""}"#;
        assert_eq!(
            line(json, LogAddresses::Hidden),
            r#"{"message_id":"<1@app>","reply":"message_id=\"<*@*>\""}"#
        );
        let text = r#"delivery queue_id=1 message_id="<1@app>" sender=<ada@b>"#;
        assert_eq!(
            line(text, LogAddresses::Hidden),
            r#"delivery queue_id=1 message_id="<1@app>" sender=<*@*>"#
        );
    }

    #[test]
    fn reports_name_senders_and_no_recipients() {
        let address = |text| Address::parse(text).unwrap();
        let envelope = Envelope {
            id: QueueId::new("2026-11-22T03:02:28Z".parse().unwrap(), 7),
            message_id: String::new(),
            client_name: String::new(),
            reverse_path: ReversePath::Address(address("noreply@contoso.com")),
            recipients: ["ada@example.com", "postmaster", "*@b", "noreply@contoso.com", "жук@example.com"]
                .map(address)
                .into(),
            body: BodyType::default(),
            smtp_utf8: true,
            size: None,
            archive: None,
            mailbox: None,
        };
        assert_eq!(
            recipients(
                "550 no Ada@Example.com, ada@example.com, жук@example.com *@b postmaster from noreply@contoso.com é@",
                &envelope
            ),
            "550 no *@Example.com, *@example.com, *@example.com *@b postmaster from noreply@contoso.com é@"
        );
    }
}

//! The lines put in front of a message: `Received` always, `From`, `Date` and `Message-ID` when they are missing,
//! `From`, `Sender` and `Reply-To` where the route says that the mailbox stands in for another sender, who was redirected, and fields that the route sets.
//!
//! Owns their wording. Everything behind them stays as it is, octet for octet. Refuses to read the clock or to make
//! up an id: both are handed in, so the same arrival always gets the same stamp.

use std::io::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::message::envelope::QueueId;
use crate::smtp::authors;
use crate::smtp::encoded_word;
use crate::smtp::header::rules::FieldRules;
use crate::smtp::header::{From, Headers, Sender};

/// How, when and where a message came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What the client called itself.
    pub client_name: &'a str,
    /// Where it connected from.
    pub client: IpAddr,
    /// The protocol, in the words of RFC 3848 and RFC 6531.
    pub protocol: Protocol,
    /// Our own name.
    pub host_name: &'a str,
    /// Our name for the message.
    pub id: &'a QueueId,
    /// When it arrived.
    pub at: Timestamp,
    /// Whom to name in `From` when the message names nobody. None: nobody, and the upstream decides.
    pub author: Option<&'a str>,
    /// Who stands in for a sender that may not be named.
    pub mailbox: Option<&'a str>,
    /// The field that names recipients whom the route redirects.
    pub original_to: Option<&'a str>,
    /// Header fields that the route removes or sets.
    pub fields: &'a FieldRules,
}

/// The value of `with` in a `Received` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO under TLS.
    EsmtpS,
    /// EHLO under TLS, and a login that was verified.
    EsmtpSa,
    /// EHLO, and MAIL with SMTPUTF8.
    Utf8Smtp,
    /// The same under TLS.
    Utf8SmtpS,
    /// The same under TLS, and a login that was verified.
    Utf8SmtpSa,
}

impl Protocol {
    /// As in `Received`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::EsmtpS => "ESMTPS",
            Self::EsmtpSa => "ESMTPSA",
            Self::Utf8Smtp => "UTF8SMTP",
            Self::Utf8SmtpS => "UTF8SMTPS",
            Self::Utf8SmtpSa => "UTF8SMTPSA",
        }
    }
}

/// What is to be put in front of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Complete lines; the message follows directly.
    pub lines: Vec<u8>,
    /// The message's Message-ID: its own, or the one in `lines`.
    pub message_id: String,
}

/// The stamp for a message with these `headers`.
pub fn stamp(arrival: &Arrival<'_>, headers: &Headers) -> Stamp {
    let date = rfc5322_date(arrival.at);
    let mut lines = received(arrival, &date).into_bytes();
    put_from(&mut lines, arrival, headers);
    lines.extend_from_slice(arrival.original_to.unwrap_or_default().as_bytes());
    for (name, value) in arrival.fields.added(&headers.fates) {
        push(&mut lines, format_args!("{name}: {value}\r\n"));
    }
    if !headers.date {
        push(&mut lines, format_args!("Date: {date}\r\n"));
    }
    let message_id = headers.message_id.clone().unwrap_or_else(|| {
        let made = format!("<{}@{}>", arrival.id, arrival.host_name);
        push(&mut lines, format_args!("Message-ID: {made}\r\n"));
        made
    });
    if headers.missing {
        lines.extend_from_slice(b"\r\n");
    }
    Stamp { lines, message_id }
}

/// `From` where there is none; the mailbox under the old display name, and the old value as `Reply-To`, where it was
/// taken out; the mailbox as `Sender` where that was taken out alone.
fn put_from(lines: &mut Vec<u8>, arrival: &Arrival<'_>, headers: &Headers) {
    match (&headers.from, arrival.author, arrival.mailbox) {
        (From::Absent, Some(author), _) => push(lines, format_args!("From: {author}\r\n")),
        (From::Removed { value }, _, Some(mailbox)) => {
            let old = authors::parse(value).unwrap_or_default();
            let mut from = b"From: ".to_vec();
            if let Some(name) = &old.name {
                from.extend_from_slice(&[name.as_slice(), b" "].concat());
            }
            push(&mut from, format_args!("<{mailbox}>\r\n"));
            // The old field may be one that could not be encoded, for the sake of an address in it.
            let encoded = headers.encodes.then(|| encoded_word::field(&from)).flatten();
            lines.extend_from_slice(&encoded.unwrap_or(from));
            let is_set =
                arrival.fields.added(&headers.fates).any(|(name, _)| name.eq_ignore_ascii_case("reply-to"));
            if !headers.reply_to && !is_set && !old.addresses.is_empty() {
                lines.extend_from_slice(&[b"Reply-To:", value.as_slice()].concat());
            }
        }
        // Beside a `From` that names the mailbox already there should be none (RFC 5322 §3.6.2).
        (From::Kept, _, Some(mailbox)) if headers.sender == Sender::Removed => {
            push(lines, format_args!("Sender: {mailbox}\r\n"));
        }
        (From::Absent | From::Kept | From::Removed { .. }, _, _) => {}
    }
}

/// The trace line (RFC 5321 §4.4).
fn received(arrival: &Arrival<'_>, date: &str) -> String {
    let protocol = arrival.protocol.as_str();
    let client = match arrival.client {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let Arrival { host_name, id, .. } = arrival;
    let name = harmless(arrival.client_name);
    format!(
        "Received: from {name} ({client})\r\n\tby {host_name} (MailRoute) with {protocol} id {id};\r\n\t{date}\r\n"
    )
}

/// A client's name as it can stand in a header: what is not part of a name or an address literal becomes `?`.
fn harmless(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    name.chars().take(255).map(|c| if fits(c) { c } else { '?' }).collect()
}

/// Date and time of RFC 5322 §3.3, in UTC.
pub(crate) fn rfc5322_date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn push(lines: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    lines.write_fmt(what).expect("a Vec takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and Message-ID of a stamp for mailbox noreply@contoso.com.
    fn stamped(client_name: &str, client: &str, protocol: Protocol, headers: &Headers) -> (String, String) {
        let at = Timestamp::from_second(1_795_316_548).unwrap();
        let (id, client) = (QueueId::new(at, 7), client.parse().unwrap());
        let host_name = "notifications.shop.svc.cluster.local";
        let (author, mailbox) = (Some("app@contoso.com"), Some("noreply@contoso.com"));
        let arrival = Arrival {
            client_name,
            client,
            protocol,
            host_name,
            id: &id,
            at,
            author,
            mailbox,
            original_to: None,
            fields: &FieldRules::default(),
        };
        let Stamp { lines, message_id } = stamp(&arrival, headers);
        (String::from_utf8(lines).unwrap(), message_id)
    }

    fn complete() -> Headers {
        let message_id = Some("<own@app>".into());
        Headers { date: true, message_id, from: From::Kept, ..Headers::default() }
    }

    /// What is put in besides the trace line.
    fn added(headers: &Headers) -> String {
        let (lines, _) = stamped("app", "::1", Protocol::Smtp, headers);
        lines.split_once("+0000\r\n").unwrap().1.to_owned()
    }

    #[test]
    fn a_complete_header_gets_a_trace_line_only() {
        let (lines, message_id) = stamped("app-7", "127.0.0.1", Protocol::Esmtp, &complete());
        assert_eq!(
            lines,
            "Received: from app-7 ([127.0.0.1])\r\n\
             \tby notifications.shop.svc.cluster.local (MailRoute) with ESMTP id 1k0tjthmp8000000007;\r\n\
             \tSun, 22 Nov 2026 03:02:28 +0000\r\n"
        );
        assert_eq!(message_id, "<own@app>");
    }

    #[test]
    fn what_is_missing_is_added() {
        let (lines, message_id) = stamped("app", "::1", Protocol::Utf8Smtp, &Headers::default());
        assert!(lines.contains("from app ([IPv6:::1])") && lines.contains("with UTF8SMTP"));
        assert!(lines.contains("\r\nDate: Sun, 22 Nov 2026 03:02:28 +0000\r\n"), "{lines}");
        assert!(lines.contains("\r\nFrom: app@contoso.com\r\n"), "{lines}");
        assert!(lines.ends_with(&format!("\r\nMessage-ID: {message_id}\r\n")), "{lines}");
        assert!(message_id.ends_with("@notifications.shop.svc.cluster.local>"));
    }

    #[test]
    fn the_mailbox_takes_the_place_of_another_sender() {
        for (value, expected) in [
            (" Shop <a@b>\r\n", "From: Shop <noreply@contoso.com>\r\nReply-To: Shop <a@b>\r\n"),
            (
                " =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n <a@b>\r\n",
                "From: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= <noreply@contoso.com>\r\n\
                 Reply-To: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n <a@b>\r\n",
            ),
            ("a@b, c@d\r\n", "From: <noreply@contoso.com>\r\nReply-To:a@b, c@d\r\n"),
            (" x@y <a@b>\r\n", "From: \"x@y\" <noreply@contoso.com>\r\nReply-To: x@y <a@b>\r\n"),
            (" nobody\r\n", "From: <noreply@contoso.com>\r\n"),
            (" <a@b> <c@d>\r\n", "From: <noreply@contoso.com>\r\n"),
        ] {
            let from = From::Removed { value: value.into() };
            assert_eq!(added(&Headers { from: from.clone(), ..complete() }), expected);
            let answered_elsewhere = Headers { from, reply_to: true, ..complete() };
            assert!(!added(&answered_elsewhere).contains("Reply-To"), "{value:?}");
        }
    }

    #[test]
    fn the_name_of_a_sender_that_is_replaced_is_encoded_even_where_the_old_field_could_not_be() {
        let from = From::Removed { value: " \"Zoë\" <zoë@b>\r\n".into() };
        let raw = Headers { from, reply_to: true, ..complete() };
        assert_eq!(added(&raw), "From: \"Zoë\" <noreply@contoso.com>\r\n");
        let encoded = added(&Headers { encodes: true, ..raw });
        assert!(encoded.is_ascii() && encoded.ends_with(" <noreply@contoso.com>\r\n"), "{encoded}");
    }

    #[test]
    fn the_mailbox_takes_the_place_of_another_sender_field_beside_a_from_that_stays() {
        let removed = Headers { sender: Sender::Removed, ..complete() };
        assert_eq!(added(&removed), "Sender: noreply@contoso.com\r\n");
        for from in [From::Absent, From::Removed { value: b" a@b\r\n".to_vec() }] {
            let lines = added(&Headers { from, ..removed.clone() });
            assert!(!lines.contains("Sender:"), "{lines}");
        }
    }

    #[test]
    fn text_without_header_is_kept_apart() {
        let headers = Headers { missing: true, ..Headers::default() };
        assert!(added(&headers).ends_with(">\r\n\r\n"));
    }

    #[test]
    fn a_clients_name_cannot_write_header_lines() {
        let (lines, _) = stamped("a\r\nBcc: x@y (é", "127.0.0.1", Protocol::Smtp, &complete());
        assert!(lines.starts_with("Received: from a??Bcc:?x?y??? ([127.0.0.1])\r\n\tby "), "{lines}");
    }
}

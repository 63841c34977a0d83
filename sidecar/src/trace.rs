//! The lines put in front of a message: `Received` always, `Date` and `Message-ID` when they are missing.
//!
//! Owns their wording. Everything behind them stays as it is, octet for octet. Refuses to read the clock or to make
//! up an id: both are handed in, so the same arrival always gets the same stamp.

use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::envelope::QueueId;
use crate::smtp::header::Headers;

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
}

/// The value of `with` in a `Received` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
    /// EHLO, and MAIL with SMTPUTF8.
    Utf8Smtp,
}

/// What is to be put in front of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Complete lines; the message follows directly.
    pub lines: String,
    /// The message's Message-ID: its own, or the one in `lines`.
    pub message_id: String,
}

/// The stamp for a message with these `headers`.
pub fn stamp(arrival: &Arrival<'_>, headers: &Headers) -> Stamp {
    let date = rfc5322_date(arrival.at);
    let mut lines = received(arrival, &date);
    if !headers.date {
        push(&mut lines, format_args!("Date: {date}\r\n"));
    }
    let message_id = headers.message_id.clone().unwrap_or_else(|| {
        let made = format!("<{}@{}>", arrival.id, arrival.host_name);
        push(&mut lines, format_args!("Message-ID: {made}\r\n"));
        made
    });
    if headers.missing {
        lines.push_str("\r\n");
    }
    Stamp { lines, message_id }
}

/// The trace line (RFC 5321 §4.4).
fn received(arrival: &Arrival<'_>, date: &str) -> String {
    let protocol = match arrival.protocol {
        Protocol::Smtp => "SMTP",
        Protocol::Esmtp => "ESMTP",
        Protocol::Utf8Smtp => "UTF8SMTP",
    };
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
fn rfc5322_date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(client_name: &str, client: &str, protocol: Protocol, headers: &Headers) -> Stamp {
        let at = Timestamp::from_second(1_795_316_548).unwrap();
        let id = QueueId::new(at, 7);
        let host_name = "notifications.shop.svc.cluster.local";
        stamp(
            &Arrival { client_name, client: client.parse().unwrap(), protocol, host_name, id: &id, at },
            headers,
        )
    }

    fn complete() -> Headers {
        Headers { date: true, message_id: Some("<own@app>".into()), ..Headers::default() }
    }

    #[test]
    fn a_complete_header_gets_a_trace_line_only() {
        let stamp = stamped("app-7", "127.0.0.1", Protocol::Esmtp, &complete());
        assert_eq!(
            stamp.lines,
            "Received: from app-7 ([127.0.0.1])\r\n\
             \tby notifications.shop.svc.cluster.local (MailRoute) with ESMTP id 1k0tjthmp8000000007;\r\n\
             \tSun, 22 Nov 2026 03:02:28 +0000\r\n"
        );
        assert_eq!(stamp.message_id, "<own@app>");
    }

    #[test]
    fn what_is_missing_is_added() {
        let stamp = stamped("app", "::1", Protocol::Utf8Smtp, &Headers::default());
        assert!(stamp.lines.contains("from app ([IPv6:::1])") && stamp.lines.contains("with UTF8SMTP"));
        assert!(stamp.lines.contains("\r\nDate: Sun, 22 Nov 2026 03:02:28 +0000\r\n"), "{}", stamp.lines);
        assert!(
            stamp.lines.ends_with(&format!("\r\nMessage-ID: {}\r\n", stamp.message_id)),
            "{}",
            stamp.lines
        );
        assert!(stamp.message_id.ends_with("@notifications.shop.svc.cluster.local>"));
    }

    #[test]
    fn text_without_header_is_kept_apart() {
        let headers = Headers { missing: true, ..Headers::default() };
        assert!(stamped("app", "::1", Protocol::Smtp, &headers).lines.ends_with(">\r\n\r\n"));
    }

    #[test]
    fn a_clients_name_cannot_write_header_lines() {
        let stamp = stamped("a\r\nBcc: x@y (é", "127.0.0.1", Protocol::Smtp, &complete());
        assert!(
            stamp.lines.starts_with("Received: from a??Bcc:?x?y??? ([127.0.0.1])\r\n\tby "),
            "{}",
            stamp.lines
        );
    }
}

//! Delivery status notifications (RFC 3464): what the sender of a kept message is told about recipients that it will
//! not reach.
//!
//! Pure. Owns the words and the rule who is told. A notification cannot loop: it has no reverse path, it is marked
//! `Auto-Submitted: auto-replied` (RFC 3834 §5), and for a message that is like it, none is made.
//!
//! Not suppressed for `Precedence: bulk` or `Auto-Submitted: auto-generated`: a notification goes to the reverse path
//! and not to the author, and failures are what a reverse path is for (RFC 5321 §6.1). Nearly all mail of applications
//! is of that kind.

use std::fmt::Write as _;

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, IntoBody, MultiPart, SinglePart};

use crate::message::envelope::{Address, Envelope, ReversePath};
use crate::smtp::trace::rfc5322_date;

/// Most octets of the original's header that are returned.
pub const MAX_HEADER: usize = 32 * 1024;

/// A recipient that will not be reached.
#[derive(Clone, Copy, Debug)]
pub struct Unreached<'a> {
    /// Who.
    pub recipient: &'a Address,
    /// The reply, or what else was met, in one line.
    pub text: &'a str,
    /// The upstream's own name.
    pub host: Option<&'a str>,
    /// When it was tried last.
    pub at: Timestamp,
    /// It was not refused for good; the time to try was over.
    pub expired: bool,
}

/// What a notification is made from.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// Our own name.
    pub host_name: &'a str,
    /// The address in `From`: one that the route may send as.
    pub from: &'a str,
    /// The notification's own id, from which its boundary and Message-ID are made.
    pub id: &'a str,
    /// The message that was not delivered to all.
    pub original: &'a Envelope,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Whom it did not reach.
    pub unreached: &'a [Unreached<'a>],
    /// Its header section, [`MAX_HEADER`] at most.
    pub header: &'a [u8],
    /// Now.
    pub now: Timestamp,
}

/// To whom the failure of this message is told: to its reverse path, unless it has none or is a notification itself.
pub fn addressee<'a>(original: &'a Envelope, header: &[u8]) -> Option<&'a Address> {
    match &original.reverse_path {
        ReversePath::Null => None,
        ReversePath::Address(_) if is_automatic_reply(header) => None,
        ReversePath::Address(address) => Some(address),
    }
}

/// Whether the message answers another one by itself, as notifications and out-of-office notes do.
fn is_automatic_reply(header: &[u8]) -> bool {
    header.split(|&octet| octet == b'\n').any(|line| {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else { return false };
        match name.trim_end() {
            "auto-submitted" => value.trim_start().starts_with("auto-replied"),
            "content-type" => value.trim_start().starts_with("multipart/report"),
            _ => false,
        }
    })
}

/// The first octets of a message up to the end of its header, [`MAX_HEADER`] at most, cut at a line end. `None` when
/// more octets are needed to tell.
pub fn header_of(message: &[u8]) -> Option<&[u8]> {
    let end = message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 2);
    match end {
        Some(end) if end <= MAX_HEADER => Some(&message[..end]),
        None if message.len() < MAX_HEADER => None,
        _ => {
            let piece = &message[..MAX_HEADER];
            let end = piece.windows(2).rposition(|two| two == b"\r\n").map_or(0, |at| at + 2);
            Some(&piece[..end])
        }
    }
}

impl Notice<'_> {
    /// The notification, a complete message; none when nobody is to be told.
    pub fn compose(&self) -> Option<Vec<u8>> {
        let to = addressee(self.original, self.header)?;
        let kind = format!("multipart/report; report-type=delivery-status; boundary=\"=_{}\"", self.id);
        let report = MultiPart::builder()
            .header(media_type(&kind))
            .singlepart(part("text/plain; charset=utf-8", self.words()))
            .singlepart(part("message/delivery-status", unencoded(self.status())))
            .singlepart(part("text/rfc822-headers", self.header.to_vec()));
        let mut message = self.fields(to).into_bytes();
        message.extend(report.formatted());
        Some(message)
    }

    fn fields(&self, to: &Address) -> String {
        let Self { from, id, host_name, .. } = self;
        let date = rfc5322_date(self.now);
        let original = harmless(&self.original.message_id);
        format!(
            "From: \"Mail Delivery System\" <{from}>\r\nTo: <{to}>\r\nSubject: Undelivered mail: returned to sender\r\n\
             Date: {date}\r\nMessage-ID: <{id}@{host_name}>\r\nIn-Reply-To: {original}\r\nReferences: {original}\r\n\
             Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
        )
    }

    /// The part for a person.
    fn words(&self) -> String {
        let mut text = format!(
            "Your message {} of {} could not be delivered to:\r\n\r\n",
            harmless(&self.original.message_id),
            rfc5322_date(self.accepted)
        );
        for Unreached { recipient, text: reply, expired, .. } in self.unreached {
            let why = if *expired { "It could not be delivered in time. The last error: " } else { "" };
            push(&mut text, format_args!("<{recipient}>\r\n    {why}{}\r\n\r\n", harmless(reply)));
        }
        text.push_str("It will not be tried again. The header of your message follows below.\r\n");
        text
    }

    /// The part for a program (RFC 3464 §2).
    fn status(&self) -> String {
        let mut text = format!(
            "Reporting-MTA: dns; {}\r\nX-Queue-ID: {}\r\nArrival-Date: {}\r\n",
            self.host_name,
            self.original.id,
            rfc5322_date(self.accepted)
        );
        for unreached in self.unreached {
            let Unreached { recipient, text: reply, host, at, .. } = unreached;
            push(
                &mut text,
                format_args!(
                    "\r\nFinal-Recipient: {}\r\nAction: failed\r\nStatus: {}\r\n",
                    typed(recipient),
                    unreached.status()
                ),
            );
            if let Some(host) = host {
                push(&mut text, format_args!("Remote-MTA: dns; {}\r\n", harmless(host)));
            }
            let kind = if reply_code(reply).is_some() { "smtp" } else { "x-mailroute" };
            push(
                &mut text,
                format_args!(
                    "Diagnostic-Code: {kind}; {}\r\nLast-Attempt-Date: {}\r\n",
                    harmless(reply),
                    rfc5322_date(*at)
                ),
            );
        }
        text
    }
}

impl Unreached<'_> {
    /// The enhanced status code (RFC 3463): that of the reply, if it fits to what is being said.
    fn status(&self) -> String {
        if self.expired {
            // Delivery time expired.
            return "4.4.7".into();
        }
        let given = self.text.split(' ').nth(1).filter(|code| {
            let mut parts = code.split('.');
            parts.next() == Some("5")
                && parts.clone().count() == 2
                && parts.all(|part| part.parse::<u16>().is_ok())
        });
        given.unwrap_or("5.0.0").to_owned()
    }
}

/// A part of the report, with the encoding that its content needs to pass as 7-bit text (RFC 6522 §3, §4).
fn part(kind: &str, content: impl IntoBody) -> SinglePart {
    SinglePart::builder().header(media_type(kind)).body(content)
}

/// A part of type `message`, which may not be encoded (RFC 2045 §6.4). Its text is ASCII in lines of less than 998 octets.
fn unencoded(text: String) -> Body {
    Body::dangerous_pre_encoded(text.into_bytes(), ContentTransferEncoding::SevenBit)
}

fn media_type(kind: &str) -> ContentType {
    ContentType::parse(kind).expect("the types here are media types")
}

/// The code of a reply in one line.
fn reply_code(text: &str) -> Option<u16> {
    text.split(' ').next().filter(|code| code.len() == 3)?.parse().ok()
}

/// An address with its type; what is beyond ASCII in the notation of RFC 6533 §3, so that the part stays 7-bit.
fn typed(address: &Address) -> String {
    if address.is_ascii() {
        return format!("rfc822; {address}");
    }
    let mut text = String::from("utf-8; ");
    for c in address.as_str().chars() {
        if c.is_ascii_graphic() && !"\\+=".contains(c) {
            text.push(c);
        } else {
            push(&mut text, format_args!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    text
}

/// A text as it can stand in a header line.
fn harmless(text: &str) -> String {
    text.chars().take(800).map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c }).collect()
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::envelope::{BodyType, QueueId};

    const HEADER: &[u8] = b"From: <noreply@contoso.com>\r\nSubject: Invoice\r\n";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn original(reverse_path: ReversePath) -> Envelope {
        Envelope {
            id: QueueId::new(Timestamp::UNIX_EPOCH, 1),
            message_id: "<1@contoso.com>".into(),
            client_name: "app".into(),
            reverse_path,
            recipients: vec![address("nobody@fabrikam.com"), address("jörg@fabrikam.com")],
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
            archive: None,
            mailbox: None,
        }
    }

    fn composed(original: &Envelope, text: &str, expired: bool) -> Option<String> {
        let unreached: Vec<_> = original
            .recipients
            .iter()
            .map(|recipient| {
                let (host, at) = (Some("fr0p281mb0123.example"), Timestamp::UNIX_EPOCH);
                Unreached { recipient, text, host, at, expired }
            })
            .collect();
        let notice = Notice {
            host_name: "notifications.shop.svc.cluster.local",
            from: "noreply@contoso.com",
            id: "1k0tjthmp8000000007",
            original,
            accepted: Timestamp::UNIX_EPOCH,
            unreached: &unreached,
            header: HEADER,
            now: Timestamp::UNIX_EPOCH,
        };
        notice.compose().map(|message| String::from_utf8(message).unwrap())
    }

    fn from_app() -> Envelope {
        original(ReversePath::Address(address("noreply@contoso.com")))
    }

    #[test]
    fn it_is_a_report_with_the_three_parts() {
        let text = composed(&from_app(), "550 5.1.10 Recipient not found", false).unwrap();
        let parts: Vec<_> = text.split("--=_1k0tjthmp8000000007").collect();
        assert_eq!((parts.len(), parts[4]), (5, "--\r\n"), "{text}");
        assert!(parts[0].contains("multipart/report; report-type=delivery-status;"), "{text}");
        assert!(parts[1].starts_with("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{text}");
        assert!(parts[1].contains("<j=C3=B6rg@fabrikam.com>"), "{text}");
        assert!(
            parts[2].contains("message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n"),
            "{text}"
        );
        assert!(
            parts[3].ends_with("\r\n\r\nFrom: <noreply@contoso.com>\r\nSubject: Invoice\r\n\r\n"),
            "{text}"
        );
        assert!(text.is_ascii(), "a report passes where only 7-bit text does: {text}");
    }

    #[test]
    fn a_long_reply_does_not_have_the_status_encoded() {
        let reply = format!("550 5.2.0 {}", "x = y ".repeat(400));
        let text = composed(&from_app(), &reply, false).unwrap();
        assert!(text.contains("message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n"), "{text}");
        assert!(text.contains("\r\nDiagnostic-Code: smtp; 550 5.2.0 x = y "), "{text}");
        assert!(text.lines().all(|line| line.len() < 998), "{text}");
    }

    #[test]
    fn each_recipient_has_its_own_status() {
        let text = composed(&from_app(), "550 5.1.10 Recipient not found", false).unwrap();
        assert!(
            text.contains(
                "\r\n\r\nFinal-Recipient: rfc822; nobody@fabrikam.com\r\nAction: failed\r\nStatus: 5.1.10\r\n\
                 Remote-MTA: dns; fr0p281mb0123.example\r\nDiagnostic-Code: smtp; 550 5.1.10 Recipient not found\r\n\
                 Last-Attempt-Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n\r\n\
                 Final-Recipient: utf-8; j\\x{F6}rg@fabrikam.com\r\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_ran_out_of_time_says_so() {
        let text = composed(&from_app(), "no TCP connection", true).unwrap();
        assert!(text.contains("Status: 4.4.7\r\n"), "{text}");
        assert!(text.contains("Diagnostic-Code: x-mailroute; no TCP connection\r\n"), "{text}");
        assert!(text.contains("could not be delivered in time. The last error: no TCP"), "{text}");
    }

    #[test]
    fn a_status_that_is_not_a_permanent_one_is_not_repeated() {
        for text in ["550 go away", "550 4.1.1 odd", "550 5.1 short", "x"] {
            assert!(composed(&from_app(), text, false).unwrap().contains("Status: 5.0.0\r\n"), "{text}");
        }
    }

    #[test]
    fn it_is_marked_so_that_nothing_answers_it() {
        let text = composed(&from_app(), "550 5.1.1 x", false).unwrap();
        assert!(text.contains("\r\nAuto-Submitted: auto-replied\r\n"));
        assert!(is_automatic_reply(text.as_bytes()), "and no notification is made for one");
    }

    #[test]
    fn nobody_is_told_where_nobody_asked_or_a_program_answered() {
        assert!(composed(&original(ReversePath::Null), "550 x", false).is_none());
        let sender = from_app();
        for line in ["Auto-Submitted: auto-replied (vacation)\r\n", "CONTENT-TYPE: Multipart/Report; x=y\r\n"]
        {
            assert_eq!(addressee(&sender, line.as_bytes()), None, "{line}");
        }
        for line in ["Auto-Submitted: auto-generated\r\n", "Precedence: bulk\r\n", "Auto-Submitted: no\r\n"] {
            assert!(addressee(&sender, line.as_bytes()).is_some(), "{line}");
        }
    }

    #[test]
    fn an_upstreams_text_cannot_write_lines() {
        let text = composed(&from_app(), "550 5.1.1 x\r\nBcc: a@b", false).unwrap();
        assert!(!text.contains("\nBcc"), "{text}");
    }

    #[test]
    fn the_header_ends_at_the_empty_line_or_at_the_limit() {
        assert_eq!(header_of(b"A: b\r\n\r\nbody"), Some(b"A: b\r\n".as_slice()));
        assert_eq!(header_of(b"A: b\r\nC"), None);
        let endless = b"A: bcdefgh\r\n".repeat(10_000);
        let cut = header_of(&endless).unwrap();
        assert!(cut.len() <= MAX_HEADER && cut.ends_with(b"h\r\n"));
    }
}

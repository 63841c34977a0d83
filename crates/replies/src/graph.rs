//! What an answer of Microsoft Graph to `sendMail` means: one table by (status, `error.code`, text), read from the top, as
//! [`crate::classify`] has it for SMTP.
//!
//! Pure. The status comes first and the code second: messages carry addresses and stray punctuation. Only 202 says that the
//! message was taken. Where nobody can say whether it was (500, 504, an unknown 2xx), the message is tried again late, under
//! the same Message-ID.
//!
//! Also here: the reply that stands for such an answer where SMTP is spoken, to the application and in the queue.
//!
//! Sources: Microsoft Learn, "user: sendMail", "Outlook mail: things to know about send mail", "Microsoft Graph throttling
//! guidance"; answers that users have published. Names without a known status (`ErrorSubmissionQuotaExceeded`,
//! `ErrorQuotaExceeded`) are from Exchange's list of response codes.

use std::ops::RangeInclusive;
use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::text::shortened;
use serde::Deserialize;

use crate::outcome::DeliveryOutcome::{self, Delivered, Quota, RefreshToken, RejectMessage, RouteFault};
use crate::outcome::Verdict;
use crate::reply::{EnhancedCode, Reply};
use Reason as R;

/// Longest `error.code`, octets, and longest text of an answer that is quoted.
const MAX_CODE: usize = 64;
const MAX_TEXT: usize = 400;

/// An answer, whatever it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphReply {
    /// HTTP status.
    pub status: u16,
    /// `error.code`; empty where the body has none.
    pub code: String,
    /// `error.message`, shortened; empty where the body has none.
    pub message: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `request-id`, by which Microsoft finds the request.
    pub request_id: String,
}

/// Which statuses a row is about.
pub type Statuses = RangeInclusive<u16>;

/// One row: statuses, `error.code` (empty: any), what the message holds in small letters, and what it means.
#[derive(Debug)]
pub struct Row(pub Statuses, pub &'static str, pub &'static str, pub DeliveryOutcome);

const fn is(status: u16) -> Statuses {
    status..=status
}

const fn later(reason: Reason) -> DeliveryOutcome {
    DeliveryOutcome::Transient(Some(reason))
}

const ANY: Statuses = 400..=599;

/// First match wins. Codes and texts are compared without regard to case.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    // The message was taken, or not.
    Row(is(202), "", "",                                            Delivered),
    Row(is(200), "", "",                                            RejectMessage(Some(R::GraphCannotCarry))),
    Row(201..=299, "", "",                                          later(R::GraphResultUnknown)),

    // The token.
    Row(is(401), "", "",                                            RefreshToken),

    // Limits, whatever the status: reports differ.
    Row(ANY, "ErrorExceededMessageLimit", "",                       Quota(R::DailyQuotaExceeded)),
    Row(ANY, "ErrorSubmissionQuotaExceeded", "",                    Quota(R::DailyQuotaExceeded)),
    Row(ANY, "ErrorQuotaExceeded", "",                              RouteFault(R::MailboxFull)),
    Row(is(429), "ApplicationThrottled", "concurrency",             Quota(R::ConnectionsExceeded)),
    Row(is(429), "CommandConcurrencyLimitReached", "",              Quota(R::ConnectionsExceeded)),
    Row(is(429), "", "",                                            Quota(R::GraphThrottled)),

    // The message.
    Row(ANY, "ErrorMessageSizeExceeded", "",                        RejectMessage(Some(R::GraphCannotCarry))),
    Row(is(413), "", "",                                            RejectMessage(Some(R::GraphCannotCarry))),
    Row(is(400), "ErrorInvalidRecipients", "",                      RejectMessage(None)),
    // What was sent is not what Graph read: something in between, or our own mistake. No message is to blame.
    Row(is(400), "ErrorMimeContentInvalidBase64String", "",         later(R::UpstreamProtocolError)),
    Row(is(400), "UnableToDeserializePostBody", "",                 later(R::UpstreamProtocolError)),

    // The application and the mailbox.
    Row(is(403), "ErrorSendAsDenied", "",                           RejectMessage(Some(R::SendAsDenied))),
    Row(is(403), "ErrorAccessDenied", "",                           RouteFault(R::GraphAccessDenied)),
    Row(is(403), "Authorization_RequestDenied", "",                 RouteFault(R::GraphAccessDenied)),
    Row(is(404), "MailboxNotEnabledForRESTAPI", "",                 RouteFault(R::MailboxNotEnabled)),
    Row(is(404), "ErrorInvalidUser", "",                            RouteFault(R::MailboxNotFound)),
    Row(is(404), "ResourceNotFound", "",                            RouteFault(R::MailboxNotFound)),

    // The service. Behind a gateway the message may have been taken.
    Row(is(503), "", "",                                            later(R::UpstreamUnavailable)),
    Row(is(500), "", "",                                            later(R::GraphResultUnknown)),
    Row(is(502), "", "",                                            later(R::GraphResultUnknown)),
    Row(is(504), "", "",                                            later(R::GraphResultUnknown)),
];

/// What an answer means. What no row knows is transient.
pub fn classify(reply: &GraphReply) -> DeliveryOutcome {
    let text = reply.message.to_ascii_lowercase();
    let row = TABLE.iter().find(|Row(statuses, code, token, _)| {
        statuses.contains(&reply.status)
            && (code.is_empty() || reply.code.eq_ignore_ascii_case(code))
            && text.contains(token)
    });
    row.map_or(DeliveryOutcome::Transient(None), |row| row.3)
}

impl GraphReply {
    /// An answer with this body, which may be anything: an `error` object, a page of HTML, nothing. `scrub` takes out of its text
    /// what looks like a token.
    pub fn read(
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
        scrub: impl Fn(&str) -> String,
    ) -> Self {
        let Failed { error } = serde_json::from_slice(body).unwrap_or_default();
        let is_name = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
        let code: String = error.code.chars().take(MAX_CODE).filter(is_name).collect();
        Self {
            status,
            code,
            message: one_line(&error.message, scrub),
            retry_after,
            request_id: String::new(),
        }
    }

    /// Whether it answers content that is no message, in the way of somebody who may send.
    pub fn proves_permission(&self) -> bool {
        self.status == 400 && self.code.eq_ignore_ascii_case("ErrorMimeContentInvalidBase64String")
    }

    /// What it means for a message.
    pub fn verdict(&self) -> Verdict {
        let outcome = classify(self);
        let text = self.to_string();
        let verdict = match self.smtp(outcome) {
            Some(reply) => Verdict { text, ..Verdict::of_reply(outcome, reply) },
            None => Verdict::without_reply(outcome, text),
        };
        // A refusal says for certain that nothing was sent.
        let is_unsent = matches!(self.status, 400..=499 | 503);
        Verdict { retry_after: self.retry_after, is_unsent, ..verdict }
    }

    /// The reply that stands for it in SMTP. None where it is not known whether the message was taken, nor where there is
    /// nothing to say but the reason.
    fn smtp(&self, outcome: DeliveryOutcome) -> Option<Reply> {
        let (code, enhanced) = match outcome {
            Delivered => (250, EnhancedCode::new(2, 0, 0)),
            RejectMessage(Some(R::GraphCannotCarry)) => (552, EnhancedCode::new(5, 3, 4)),
            RejectMessage(Some(_)) => (550, EnhancedCode::new(5, 7, 60)),
            RejectMessage(None) => (554, EnhancedCode::new(5, 6, 0)),
            Quota(_) => (451, EnhancedCode::new(4, 7, 0)),
            _ => return None,
        };
        let advice = match outcome {
            RejectMessage(Some(R::GraphCannotCarry)) => {
                "; it takes this for too large: send less at once, or set spec.graph.fallback in the MailRoute"
            }
            _ => "",
        };
        Some(Reply::new(code, enhanced, format!("Microsoft Graph answered {self}{advice}")))
    }
}

/// As a person would quote it.
impl std::fmt::Display for GraphReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        if let Some(asked) = self.retry_after {
            write!(f, " (Retry-After: {} s)", asked.as_secs())?;
        }
        if self.request_id.is_empty() { Ok(()) } else { write!(f, " [request-id: {}]", self.request_id) }
    }
}

/// The body of a refusal; `innerError` has nothing that anybody acts on.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Failed {
    error: Named,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    code: String,
    message: String,
}

/// A text in one line, scrubbed, and cut where it is longer than anybody reads.
fn one_line(text: &str, scrub: impl Fn(&str) -> String) -> String {
    let short = &text[..text.floor_char_boundary(4 * MAX_TEXT)];
    let plain: String = scrub(short).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shortened(plain.trim(), MAX_TEXT).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known_replies::KNOWN_GRAPH_ANSWERS;

    fn answer(status: u16, code: &str, message: &str) -> GraphReply {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#);
        GraphReply::read(status, None, body.as_bytes(), str::to_owned)
    }

    #[test]
    fn every_known_answer_has_its_meaning() {
        for (status, code, message, outcome) in KNOWN_GRAPH_ANSWERS {
            assert_eq!(classify(&answer(*status, code, message)), *outcome, "{status} {code}: {message}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_met_by_an_answer() {
        let matches = |Row(statuses, code, token, _): &Row, reply: &GraphReply| {
            statuses.contains(&reply.status)
                && (code.is_empty() || reply.code.eq_ignore_ascii_case(code))
                && reply.message.to_ascii_lowercase().contains(token)
        };
        for (at, row) in TABLE.iter().enumerate() {
            let met = KNOWN_GRAPH_ANSWERS.iter().any(|(status, code, message, _)| {
                let reply = answer(*status, code, message);
                matches(row, &reply) && TABLE[..at].iter().all(|before| !matches(before, &reply))
            });
            assert!(met, "row {at} ({} {:?}) is not the first match of any answer", row.0.start(), row.1);
        }
    }

    #[test]
    fn only_202_is_delivered() {
        for status in (100..=599).filter(|&status| status != 202) {
            let outcome = classify(&GraphReply { status, ..GraphReply::default() });
            assert_ne!(outcome, Delivered, "{status}");
        }
        assert_eq!(classify(&GraphReply { status: 202, ..GraphReply::default() }), Delivered);
    }

    #[test]
    fn what_nobody_has_seen_yet_is_never_the_messages_fault() {
        for status in (100..=599).filter(|status| ![200, 202, 413].contains(status)) {
            let outcome = classify(&answer(status, "SomethingNew", "Never seen."));
            assert!(!matches!(outcome, RejectMessage(_) | DeliveryOutcome::RejectRecipient), "{status}");
        }
    }

    #[test]
    fn a_body_of_any_kind_is_read_and_bounded() {
        let page = b"<html><head><title>413 Request Entity Too Large</title></head></html>";
        let empty = GraphReply { status: 413, ..GraphReply::default() };
        for body in
            [&page[..], b"", b"{}", b"[]", b"{\"error\":null}", b"{\"error\":{\"code\":7}}", b"\xff\xfe"]
        {
            assert_eq!(
                GraphReply::read(413, None, body, str::to_owned),
                empty,
                "{}",
                String::from_utf8_lossy(body)
            );
        }
        let long = answer(500, &"x".repeat(9000), &"\u{e4}\\r\\n".repeat(9000));
        assert!(long.code.len() <= MAX_CODE && long.message.len() <= MAX_TEXT + 4, "{long}");
        assert!(!long.message.contains(['\r', '\n']));
        let body = br#"{"error":{"message":"a token"}}"#;
        assert_eq!(GraphReply::read(401, None, body, |text| text.replace("token", "***")).message, "a ***");
    }

    #[test]
    fn a_refusal_becomes_a_reply_that_an_application_understands() {
        let denied = answer(403, "ErrorSendAsDenied", "Cannot submit message.").verdict();
        assert!(denied.is_final());
        assert_eq!(
            denied.reply.unwrap().to_string(),
            "550 5.7.60 Microsoft Graph answered 403 ErrorSendAsDenied Cannot submit message.\r\n"
        );
        let large = GraphReply::read(413, None, b"", str::to_owned).verdict();
        assert!(
            large.reply.unwrap().to_string().starts_with("552 5.3.4 Microsoft Graph answered 413; it takes")
        );
        let unknown = GraphReply::read(504, None, b"", str::to_owned).verdict();
        assert_eq!((unknown.reply, unknown.text.as_str()), (None, "504"));
        let throttled = GraphReply::read(429, Some(Duration::from_secs(7)), b"", str::to_owned).verdict();
        assert_eq!(
            (throttled.text.as_str(), throttled.retry_after),
            ("429 (Retry-After: 7 s)", Some(Duration::from_secs(7)))
        );
    }
}

//! What an upstream's reply means: one table by (stage, code, enhanced code, text), read from the top.
//!
//! Pure. One enhanced code of Exchange has several meanings (5.2.252 is "send as denied" with 554 and "sender throttled"
//! with 550; 432 4.3.2 has three texts), so no row rests on an enhanced code where a text tells more. Below the table
//! stand the rules for what nobody has seen yet: any 4yz is transient; 5yz is the route's fault before mail begins, the
//! recipient's at RCPT and the message's elsewhere.
//!
//! Sources: Microsoft Learn, "Non-delivery reports in Exchange Online", "SMTP AUTH client submission: continuous error
//! throttling", "Authenticate SMTP with OAuth", "Troubleshoot High Volume Email"; logs that users have published.
//! 5.5.105, 5.5.127 and 5.7.236 (`*.onmicrosoft.com` senders: 100 external recipients of a tenant a day) are known from
//! other implementations and from announcements.

use std::ops::RangeInclusive;

use mailroute_route::condition::Reason;

use crate::outcome::DeliveryOutcome;
use crate::reply::{EnhancedCode, Reply};

/// Where in the conversation a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The greeting.
    Greeting,
    /// EHLO, before or after TLS.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, up to 354.
    Data,
    /// The end of the data.
    Message,
    /// QUIT.
    Quit,
}

impl Stage {
    /// The command, as a person would name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Greeting => "the greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Message => "the end of the data",
            Self::Quit => "QUIT",
        }
    }
}

/// Where a row applies.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// Anywhere.
    Any,
    /// EHLO.
    Ehlo,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// From MAIL on.
    Sending,
}

impl At {
    fn covers(self, stage: Stage) -> bool {
        match self {
            Self::Any => true,
            Self::Ehlo => stage == Stage::Ehlo,
            Self::Auth => stage == Stage::Auth,
            Self::Mail => stage == Stage::Mail,
            Self::Sending => matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Message),
        }
    }
}

/// Which reply codes a row is about.
#[derive(Clone, Copy, Debug)]
pub enum Code {
    /// This one.
    Is(u16),
    /// 4yz.
    Transient,
    /// 5yz.
    Permanent,
    /// 4yz and 5yz.
    Negative,
}

impl Code {
    fn covers(self, code: u16) -> bool {
        match self {
            Self::Is(this) => code == this,
            Self::Transient => (400..500).contains(&code),
            Self::Permanent => code >= 500,
            Self::Negative => code >= 400,
        }
    }
}

/// Which enhanced codes a row is about: subject and range of details; the class follows from the reply code.
pub type Detail = Option<(u16, RangeInclusive<u16>)>;

const fn any() -> Detail {
    None
}

const fn is(subject: u16, detail: u16) -> Detail {
    Some((subject, detail..=detail))
}

const fn within(subject: u16, from: u16, to: u16) -> Detail {
    Some((subject, from..=to))
}

/// One row: where, reply code, enhanced code, what the text holds in small letters, and what it means.
#[derive(Debug)]
pub struct Row(pub At, pub Code, pub Detail, pub &'static str, pub DeliveryOutcome);

use At::{Any, Auth, Ehlo, Mail, Sending};
use Code::{Is, Negative, Permanent, Transient};
use DeliveryOutcome::{Quota, RefreshToken, RejectMessage, RejectRecipient, RouteFault};
use Reason as R;

const fn later(reason: Reason) -> DeliveryOutcome {
    DeliveryOutcome::Transient(Some(reason))
}

/// First match wins. The text is compared without regard to case; an empty one matches everything.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    // Before the log-in.
    Row(Ehlo, Permanent, is(5, 4), "invalid domain name",                   RouteFault(R::EhloNameRefused)),
    Row(Any,  Permanent, is(7, 506), "",                                    RouteFault(R::EhloNameRefused)),
    Row(Any,  Is(421), is(7, 66), "tls",                                    RouteFault(R::TlsFailed)),

    // The log-in.
    Row(Auth, Is(535), is(7, 139), "disabled for the tenant",               RouteFault(R::SmtpAuthDisabledTenant)),
    Row(Auth, Is(535), is(7, 139), "disabled for the mailbox",              RouteFault(R::SmtpAuthDisabledMailbox)),
    Row(Auth, Is(535), is(7, 139), "basic authentication is disabled",      RouteFault(R::BasicAuthDisabled)),
    Row(Auth, Is(535), is(7, 139), "sts service was unreachable",           later(R::LoginFailed)),
    Row(Auth, Is(535), is(7, 139), "organization configuration",            RouteFault(R::AuthenticationPolicy)),
    Row(Auth, Is(535), is(7, 139), "security defaults",                     RouteFault(R::AuthenticationPolicy)),
    Row(Auth, Is(535), is(7, 139), "did not meet the criteria",             RouteFault(R::AuthenticationPolicy)),
    Row(Auth, Is(535), is(7, 139), "credentials were incorrect",            RouteFault(R::PasswordRejected)),
    Row(Auth, Is(535), is(7, 139), "locked",                                RouteFault(R::PasswordRejected)),
    Row(Auth, Permanent, is(7, 30), "",                                     RouteFault(R::BasicAuthDisabled)),
    Row(Auth, Is(535), is(7, 3), "",                                        RefreshToken),
    Row(Auth, Is(535), within(7, 142, 143), "token",                        RefreshToken),
    Row(Auth, Is(501), is(5, 127), "",                                      RefreshToken),
    Row(Auth, Is(535), is(7, 144), "",                                      RouteFault(R::ApiPermissionMissing)),
    Row(Any,  Permanent, is(7, 240), "",                                    RouteFault(R::ApplicationNotAllowed)),
    Row(Auth, Transient, any(), "",                                         later(R::UpstreamUnavailable)),
    Row(Mail, Is(530), any(), "",                                           RouteFault(R::NotAuthenticated)),
    Row(Sending, Permanent, is(7, 57), "",                                  RouteFault(R::NotAuthenticated)),

    // The mailbox as a sender. Throttling comes before its cause, which its text names.
    Row(Sending, Permanent, within(2, 251, 255), "sender throttled",        RouteFault(R::SenderThrottled)),
    Row(Sending, Permanent, any(), "sendasdenied",                          RejectMessage(Some(R::SendAsDenied))),
    Row(Sending, Permanent, is(7, 60), "",                                  RejectMessage(Some(R::SendAsDenied))),
    Row(Sending, Permanent, any(), "sender address rejected",               RejectMessage(Some(R::SendAsDenied))),
    Row(Sending, Permanent, any(), "submissionquotaexceeded",               Quota(R::DailyQuotaExceeded)),
    Row(Sending, Permanent, any(), "submission quota exceeded",             Quota(R::DailyQuotaExceeded)),
    Row(Sending, Permanent, is(1, 90), "",                                  Quota(R::DailyQuotaExceeded)),
    Row(Sending, Permanent, any(), "outboundspam",                          RouteFault(R::MailboxRestricted)),
    Row(Sending, Permanent, is(1, 8), "",                                   RouteFault(R::MailboxRestricted)),
    Row(Sending, Permanent, is(2, 2), "storedrv.submission",                RouteFault(R::MailboxFull)),
    Row(Sending, Permanent, is(7, 511), "",                                 RouteFault(R::SenderBlocked)),

    // Rate and concurrency.
    Row(Sending, Is(432), any(), "storedrv.deliver",                        DeliveryOutcome::Transient(None)),
    Row(Sending, Is(432), any(), "concurrent connections",                  Quota(R::ConnectionsExceeded)),
    Row(Sending, Is(432), any(), "storedrv.clientsubmit",                   Quota(R::ConnectionsExceeded)),
    Row(Any,     Transient, is(4, 2), "submission rate",                    Quota(R::RateExceeded)),

    // The tenant.
    Row(Sending, Permanent, within(7, 232, 233), "",                        Quota(R::TenantQuotaExceeded)),
    Row(Sending, Permanent, is(7, 236), "",                                 DeliveryOutcome::Transient(Some(R::OnmicrosoftQuotaExceeded))),
    Row(Sending, Permanent, is(7, 705), "",                                 RouteFault(R::TenantBlocked)),
    Row(Sending, Permanent, is(7, 708), "",                                 RouteFault(R::TenantBlocked)),
    Row(Sending, Permanent, is(7, 750), "",                                 RouteFault(R::SenderDomainUnregistered)),
    Row(Sending, Permanent, is(7, 703), "",                                 RejectMessage(None)),

    // Port 25: what was presented, and from where.
    Row(Sending, Permanent, is(7, 64), "",                                  RouteFault(R::ConnectorMismatch)),
    Row(Sending, Permanent, is(7, 51), "",                                  RouteFault(R::ConnectorRestricted)),
    Row(Sending, Permanent, is(7, 68), "",                                  RouteFault(R::DirectSendRejected)),
    Row(Sending, Permanent, within(7, 606, 649), "",                        RouteFault(R::EgressAddressBlocked)),
    Row(Sending, Negative, is(4, 62), "",                                   RouteFault(R::WrongRegion)),
    Row(Sending, Negative, is(7, 25), "",                                   RouteFault(R::Ipv6Refused)),
    Row(Sending, Negative, is(7, 26), "ipv6",                               RouteFault(R::Ipv6Refused)),
    Row(Sending, Permanent, is(7, 508), "",                                 RouteFault(R::Ipv6Refused)),
    Row(Sending, Permanent, is(7, 510), "",                                 RouteFault(R::Ipv6Refused)),
    Row(Sending, Permanent, is(7, 23), "",                                  RouteFault(R::SenderDomainUnverified)),
    Row(Sending, Permanent, is(7, 509), "",                                 RouteFault(R::SenderDomainUnverified)),
    Row(Any, Transient, within(7, 500, 699), "",                            later(R::EgressAddressDeferred)),
    Row(Any, Transient, within(7, 850, 899), "",                            later(R::EgressAddressDeferred)),

    // The service.
    Row(Any, Is(421), any(), "",                                            later(R::UpstreamUnavailable)),
    Row(Sending, Is(451), is(7, 0), "temporary server error",               later(R::UpstreamUnavailable)),

    // The message, said at RCPT where it would otherwise count as the recipient's.
    Row(Sending, Permanent, is(5, 3), "too many recipients",                RejectMessage(None)),
    Row(Sending, Is(552), any(), "",                                        RejectMessage(None)),

    // The recipient, wherever it is said. Its hourly limit is given a permanent code and passes all the same.
    Row(Sending, Negative, within(2, 121, 122), "",                         DeliveryOutcome::Transient(None)),
    Row(Sending, Permanent, is(4, 1), "recipient address rejected",         RejectRecipient),
    Row(Sending, Permanent, is(5, 105), "",                                 RejectRecipient),
    Row(Sending, Permanent, is(7, 12), "",                                  RejectRecipient),
    Row(Sending, Permanent, is(7, 124), "",                                 RejectRecipient),
    Row(Sending, Permanent, within(7, 133, 134), "",                        RejectRecipient),
    Row(Sending, Permanent, is(7, 136), "",                                 RejectRecipient),
    Row(Sending, Transient, any(), "",                                      DeliveryOutcome::Transient(None)),
];

/// What `reply` means at `stage`. A positive reply is [`DeliveryOutcome::Delivered`] only at the end of the data; where it
/// merely lets the conversation go on there is nothing to classify, and it must not be asked about.
pub fn classify(stage: Stage, reply: &Reply) -> DeliveryOutcome {
    if reply.is_positive() {
        return match (stage, reply.code) {
            (Stage::Message, 200..300) => DeliveryOutcome::Delivered,
            _ => later(Reason::UpstreamProtocolError),
        };
    }
    let text = reply.text().to_ascii_lowercase();
    let row = TABLE.iter().find(|row| row.matches(stage, reply.code, reply.enhanced, &text));
    row.map_or_else(|| unknown(stage, reply.code), |row| row.4)
}

impl Row {
    fn matches(&self, stage: Stage, code: u16, enhanced: Option<EnhancedCode>, text: &str) -> bool {
        let Self(at, codes, detail, token, _) = self;
        let same_detail = match (detail, enhanced) {
            (None, _) => true,
            (Some((subject, details)), Some(met)) => met.subject == *subject && details.contains(&met.detail),
            (Some(_), None) => false,
        };
        at.covers(stage) && codes.covers(code) && same_detail && text.contains(token)
    }
}

/// What no row knows.
const fn unknown(stage: Stage, code: u16) -> DeliveryOutcome {
    let permanent = code >= 500;
    match stage {
        Stage::StartTls if permanent => RouteFault(Reason::StartTlsMissing),
        Stage::StartTls => later(Reason::StartTlsMissing),
        Stage::Greeting | Stage::Ehlo | Stage::Quit => later(Reason::UpstreamUnavailable),
        Stage::Auth if permanent => RouteFault(Reason::LoginFailed),
        Stage::Rcpt if permanent => RejectRecipient,
        Stage::Mail | Stage::Data | Stage::Message if permanent => RejectMessage(None),
        Stage::Auth | Stage::Mail | Stage::Rcpt | Stage::Data | Stage::Message => {
            DeliveryOutcome::Transient(None)
        }
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;

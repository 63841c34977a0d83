//! Every literal line that the two SMTP faces can say, once, and the filling-in of their blanks.
//!
//! The texts are the interface: clients classify by them, so they are kept as they were seen on Exchange Online. `{…}`
//! marks a blank. It refuses to know when a line is due.

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// A line of the catalogue, by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Line { $($(#[$doc])* $name,)+ }

        impl Line {
            /// Every line, in the order of the dialog.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The text with its blanks.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The name by which a fault refers to it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

catalogue! {
    /// First line of a connection.
    Banner = "220 {host} Microsoft ESMTP MAIL Service ready at {date} [{session}]",
    /// HELO, and the first line of EHLO.
    Hello = "250 {host} Hello [{client}]",
    /// STARTTLS may begin.
    TlsReady = "220 2.0.0 SMTP server ready",
    /// Logged in.
    Authenticated = "235 2.7.0 Authentication successful",
    /// MAIL.
    SenderOk = "250 2.1.0 Sender OK",
    /// RCPT.
    RecipientOk = "250 2.1.5 Recipient OK",
    /// DATA.
    StartInput = "354 Start mail input; end with <CRLF>.<CRLF>",
    /// A chunk that is not the last.
    ChunkOk = "250 2.0.0 {octets} octets received",
    /// The message is accepted.
    Accepted = "250 2.0.0 OK {id} [Hostname={internal}]",
    /// The message is accepted on port 25.
    Queued = "250 2.6.0 {id} [InternalId={number}, Hostname={host}] {octets} bytes in 0.250, {rate} KB/sec Queued mail for delivery",
    /// RSET.
    Resetting = "250 2.0.0 Resetting",
    /// NOOP.
    Ok = "250 2.0.0 OK",
    /// VRFY.
    CannotVerify = "252 2.1.5 Cannot VRFY user",
    /// QUIT.
    Closing = "221 2.0.0 Service closing transmission channel",
    /// Generic trouble.
    ServiceNotAvailable = "421 4.3.2 Service not available",
    /// No input for too long.
    TimedOut = "421 4.4.1 Connection timed out",
    /// More than 30 messages in a minute.
    MessageRate = "421 4.4.2 Message submission rate for this client has exceeded the configured limit",
    /// Too many refused commands.
    TooManyErrors = "421 4.7.0 Too many errors on this connection, closing transmission channel",
    /// TLS below 1.2.
    OldTls = "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2. Visit https://aka.ms/smtp_auth_tls.",
    /// More than three submitting connections.
    ConcurrentConnections = "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname={internal}]",
    /// The older wording of the same.
    SenderThreadLimit = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
    /// The recipient's mailbox is flooded; not the sender's fault.
    RecipientThreadLimit = "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded",
    /// Front-end trouble, at AUTH or at the end of data.
    TemporaryServerError = "451 4.7.0 Temporary server error. Please try again later. PRX2",
    /// Port 25: the MX host of another region.
    WrongRegion = "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
    /// Port 25: an IPv6 address without SPF and DKIM.
    Ipv6Unsigned = "450 4.7.26 Access denied, a message sent over IPv6 [{client}] must pass either SPF or DKIM validation, this message is not signed",
    /// DANE fails for now behind Exchange Online.
    DaneTemporary = "450 4.7.323 tlsa-invalid: The domain failed DANE validation",
    /// Port 25: the address is put off.
    ServerBusy = "451 4.7.500 Server busy. Please try again later from [{client}]. (S77714)",
    /// Port 25: the address is put off, by another filter.
    ServerBusyFilter = "451 4.7.850 Server busy. Please try again later from [{client}]. (AS843)",
    /// The session lasted too long.
    SessionTimedOut = "421 4.4.1 Connection timed out. Total session duration: 00:20:55.28",
    /// More recipients than one envelope takes.
    TooManyRecipients = "452 4.5.3 Too many recipients",
    /// Communication Services: more messages in a minute or hour than it takes. Not Microsoft's text, which is not published.
    ServiceRate = "450 4.7.1 Message rate limit exceeded, try again later",
    /// Trouble behind AUTH that says nothing of the credential.
    TemporaryAuthFailure = "454 4.7.0 Temporary authentication failure",
    /// No such command.
    Unrecognized = "500 5.3.3 Unrecognized command",
    /// A line without end.
    LineTooLong = "500 5.5.2 Line too long",
    /// EHLO with a name that cannot be one.
    InvalidDomain = "501 5.5.4 Invalid domain name",
    /// Arguments that cannot be read.
    InvalidArguments = "501 5.5.4 Invalid arguments",
    /// A MAIL or RCPT parameter that is not known.
    UnknownParameter = "501 5.5.4 Unrecognized parameter",
    /// A malformed reverse path.
    InvalidSender = "501 5.1.7 Invalid address",
    /// A malformed forward path.
    InvalidRecipient = "501 5.1.3 Invalid address",
    /// The client broke off AUTH with `*`.
    AuthCancelled = "501 5.7.0 Authentication cancelled",
    /// High Volume Email: what XOAUTH2 names is no address.
    InvalidXoauth2 = "501 5.5.124 Invalid XOAUTH2 auth data - User address provided is not valid",
    /// High Volume Email: the token ends within ten minutes.
    TokenEndsWithinMinutes = "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon error",
    /// A command before EHLO.
    HelloFirst = "503 5.5.2 Send hello first",
    /// A second MAIL.
    SenderAlreadySpecified = "503 5.5.2 Sender already specified",
    /// RCPT before MAIL.
    NeedMail = "503 5.5.2 Need mail command",
    /// DATA before RCPT.
    NeedRcpt = "503 5.5.2 Need rcpt command",
    /// Any other order.
    BadSequence = "503 5.5.1 Bad sequence of commands",
    /// A mechanism that is not offered, or any mechanism before TLS.
    UnknownMechanism = "504 5.7.4 Unrecognized authentication type",
    /// MAIL without login.
    NotAuthenticated = "530 5.7.57 Client not authenticated to send mail.",
    /// The same after a failed login, which is quoted.
    NotAuthenticatedAfter = "530 5.7.57 Client not authenticated to send mail. Error: {failure}",
    /// The token, or what it may do, is refused. The catch-all.
    AuthUnsuccessful = "535 5.7.3 Authentication unsuccessful",
    /// The tenant's switch.
    SmtpAuthDisabledTenant = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
    /// The mailbox's switch.
    SmtpAuthDisabledMailbox = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
    /// AUTH LOGIN was used.
    BasicAuthDisabled = "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
    /// A wrong password.
    CredentialsIncorrect = "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
    /// Security defaults or an authentication policy.
    OrganizationDisallows = "535 5.7.139 Authentication unsuccessful, the organization configuration doesn't allow this authentication request.",
    /// Security defaults, for a password.
    LockedBySecurityDefaults = "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
    /// Too many wrong passwords.
    AccountLocked = "535 5.7.139 Authentication unsuccessful, the account is locked.",
    /// The token service of a federated domain is down.
    StsUnreachable = "535 5.7.139 Authentication unsuccessful, the federated STS service was unreachable.",
    /// The token service of a federated domain is not HTTPS.
    StsWithoutHttps = "535 5.7.139 Authentication unsuccessful, the federated STS URL does not support HTTPS.",
    /// Conditional Access.
    CriteriaNotMet = "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.",
    /// High Volume Email: the token is about to expire.
    TokenExpiresSoon = "535 5.7.142 XOAUTH2 authentication failed. The access token will expire soon",
    /// High Volume Email: the token has expired.
    TokenExpired = "535 5.7.143 XOAUTH2 authentication failed. The access token has expired",
    /// High Volume Email: the token lacks a permission.
    TokenPermissions = "535 5.7.144 XOAUTH2 authentication failed. Invalid API permissions",
    /// After the removal of basic authentication.
    BasicAuthRemoved = "550 5.7.30 Basic authentication is not supported for Client Submission.",
    /// The mailbox is on the restricted list.
    BadOutboundSender = "550 5.1.8 Access denied, bad outbound sender",
    /// Several From addresses without Sender.
    MultipleFrom = "550 5.1.20 Multiple From addresses are present without Sender",
    /// The whole mailbox is barred.
    ThrottledMailboxFull = "550 5.2.251 Sender throttled due to continuous mailbox full errors.",
    /// The whole mailbox is barred.
    ThrottledSendAsDenied = "550 5.2.252 Sender throttled due to continuous send as denied errors.",
    /// The whole mailbox is barred.
    ThrottledInvalidLicense = "550 5.2.253 Sender throttled due to continuous invalid license errors.",
    /// The whole mailbox is barred.
    ThrottledTooManyRecipients = "550 5.2.254 Sender throttled due to continuous too many recipients errors.",
    /// The whole mailbox is barred.
    ThrottledInvalidRecipients = "550 5.2.255 Sender throttled due to continuous invalid recipients errors.",
    /// More recipients than the mailbox's limit.
    RecipientLimit = "550 5.5.3 Too many recipients",
    /// High Volume Email: a recipient outside the tenant.
    ExternalNotSupported = "550 5.5.105 External sending is not supported for High Volume Email accounts",
    /// High Volume Email: the application is not on the account's list.
    ApplicationNotAllowed = "550 5.7.240 The application is not allowed for use with this High Volume Email account",
    /// Bare LF, bare CR or NUL in the message.
    InvalidCharacters = "550 5.6.11 Invalid characters in the message: bare line feeds are not allowed",
    /// The older wording of SendAsDenied.
    NoSendAsPermission = "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
    /// No valid From.
    FromInvalid = "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant and include a valid From address",
    /// Port 25: nobody whose mail this host takes, or nobody at all.
    RecipientRejected = "550 5.4.1 [{recipient}]: Recipient address rejected: Access denied",
    /// Port 25: SPF does not list the address.
    SpfViolation = "550 5.7.23 The message was rejected because of Sender Policy Framework violation",
    /// Port 25: an IPv6 address without a name.
    Ipv6WithoutName = "550 5.7.25 Access denied, the sending IPv6 address [{client}] must have a reverse DNS record",
    /// Port 25: a partner connector wants another address or certificate.
    RestrictedByConnector = "550 5.7.51 TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set",
    /// Port 25: no connector matches, and the recipient is elsewhere.
    RelayAccessDenied = "550 5.7.64 TenantAttribution; Relay Access Denied",
    /// Port 25: the tenant rejects Direct Send.
    DirectSendRejected = "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources",
    /// Port 25: the recipient takes mail from logged-in senders only.
    SenderNotAuthenticated = "550 5.7.12 Sender was not authenticated by organization",
    /// Port 25: the sender is not on the group's list.
    SenderNotInList = "550 5.7.124 Sender not in allowed-senders list",
    /// Port 25: the group takes mail from logged-in senders only.
    SenderNotAuthenticatedForGroup = "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group",
    /// Port 25: the mailbox takes mail from logged-in senders only.
    SenderNotAuthenticatedForMailbox = "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this mailbox",
    /// Port 25: the mail user takes mail from logged-in senders only.
    SenderNotAuthenticatedForMailUser = "550 5.7.136 RESOLVER.RST.SenderNotAuthenticatedForMailUser; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this mail user",
    /// The trial tenant's external recipients of a day are used up.
    TrialExternalRecipients = "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit)",
    /// The tenant's external recipients of a day are used up.
    TenantExternalRecipients = "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit)",
    /// The external recipients of a day of the tenant's `*.onmicrosoft.com` senders are used up.
    OnmicrosoftExternalRecipients = "550 5.7.236 Your message can't be sent because your tenant exceeded its daily limit for sending email from onmicrosoft.com domains to external recipients",
    /// DANE failed behind Exchange Online.
    DaneFailure = "550 5.7.323 tlsa-invalid: The domain failed DANE validation",
    /// Port 25: EHLO with a name of Microsoft's.
    BadHelo = "550 5.7.506 Access Denied, Bad HELO",
    /// Port 25: too much mail over IPv6.
    Ipv6Limit = "550 5.7.508 Access denied, [{client}] has exceeded permitted limits within the range",
    /// Port 25: the sender's DMARC policy says reject.
    DmarcReject = "550 5.7.509 Access denied, sending domain does not pass DMARC verification and has a DMARC policy of reject",
    /// Port 25: the recipient's domain takes no mail over IPv6.
    Ipv6NotAccepted = "550 5.7.510 Access denied, the recipient domain does not accept email sent over IPv6",
    /// Port 25: banned by name.
    BannedSender = "550 5.7.511 Access denied, banned sender[{client}]. To request removal from this list please forward this message to delist@microsoft.com",
    /// Port 25: the address is banned.
    BannedAddress = "550 5.7.606 Access denied, banned sending IP [{client}]. To request removal from this list please visit https://sender.office.com/ and follow the directions. For more information please go to http://go.microsoft.com/fwlink/?LinkID=526655 (AS16012609)",
    /// The tenant's block list names a recipient; the message is refused for all.
    TenantBlockList = "550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization's tenant allow/block list policy",
    /// The tenant has sent too much.
    TenantThreshold = "550 5.7.705 Access denied, tenant has exceeded threshold",
    /// Port 25: an address of low reputation.
    LowReputation = "550 5.7.708 Access denied, traffic not accepted from this IP",
    /// The sender's domain is not registered.
    UnregisteredDomain = "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domain",
    /// The recipients of a day, in another wording.
    DailyRecipients = "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
    /// The same, of the mailbox's quota.
    SubmissionQuota = "554 5.2.2 Submission quota exceeded",
    /// The recipient takes no more from this sender for an hour.
    RecipientHourlyFromSender = "452 4.2.121 The recipient has exceeded their limit for the number of messages they can receive per hour from this sender",
    /// The recipient takes no more from anybody for an hour.
    RecipientHourly = "452 4.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour",
    /// Above SIZE or the mailbox's limit.
    MessageTooLarge = "552 5.3.4 Message size exceeds fixed maximum message size",
    /// More header than Exchange reads.
    HeaderTooLarge = "552 5.3.4 Header size exceeds fixed maximum size",
    /// An address that needs SMTPUTF8.
    NeedsSmtpUtf8 = "553 5.6.7 Address is international but SMTPUTF8 was not given",
    /// The sending mailbox was flagged.
    OutboundSpam = "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message [BeginDiagnosticData]WASCL UserAction verdict is not None. {diagnostics}[EndDiagnosticData] [Hostname={internal}]",
    /// 10 000 recipients a day are used up.
    SubmissionQuotaExceeded = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message [BeginDiagnosticData]The message can't be submitted because the sender's submission quota was exceeded. {diagnostics}[EndDiagnosticData] [Hostname={internal}]",
    /// The sending mailbox is full (Sent Items).
    SenderMailboxFull = "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded; Failed to process message due to a permanent exception with message [BeginDiagnosticData]The message can't be submitted because the mailbox is over its quota. {diagnostics}[EndDiagnosticData] [Hostname={internal}]",
    /// Envelope or header sender is not the mailbox's.
    SendAsDenied = "554 5.2.252 SendAsDenied; {mailbox} not allowed to send as {sender}; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception with message [BeginDiagnosticData]Cannot submit message. {diagnostics}[EndDiagnosticData] [Hostname={internal}]",
    /// Too many Received lines.
    HopCount = "554 5.4.14 Hop count exceeded - possible mail loop",
}

/// What Exchange puts behind the message of an exception, in the form and of the length that are seen in public logs: for
/// its own engineers, and longer than many clients read.
pub const DIAGNOSTICS: &str = "1.84300:0A000000, 1.84300:0E000000, 1.84300:32000000, 1.73948:00000000, 1.108572:00000000, 0.117068:0B000000, 1.79180:0A000000, 1.79180:FA000000, 5.95292:67000000446F526F70730072, 8.111356:9552F9FE86593ECC1F1F572B2F8F6BAC1F1F572B, 0.38698:A6536B31, 1.41134:86000000, 1.41134:46000000, 0.37692:140F7FA4, 5.33852:00000000534D545000000000, 7.36354:010000000000010900000000, 1.46439:0A000000, 1.115228:00000000, 0.104668:86000100, 1.44903:25000000, 7.40748:010000000000010B12000000, 7.57132:000000000000000074654372, 4.39640:DC040000, 1.63016:32000000, 8.45434:DFEE9A4FC0E67D4583EEB2102B8C3EEF00636570, 0.104348:00000000, 1.84300:0A000000, 1.84300:0E000000, 1.84300:32000000, 1.73948:00000000, 1.108572:00000000, 0.117068:0B000000, 1.79180:0A000000, 1.79180:FA000000, 5.95292:67000000446F526F70730072, 8.111356:9552F9FE86593ECC1F1F572B2F8F6BAC1F1F572B, 0.38698:A6536B31, 1.41134:86000000, 1.41134:46000000, 0.37692:140F7FA4, 5.33852:00000000534D545000000000, 7.36354:010000000000010900000000, 1.46439:0A000000, 1.115228:00000000, 0.104668:86000100, 1.44903:25000000, 7.40748:010000000000010B12000000, 7.57132:000000000000000074654372, 4.39640:DC040000, 1.63016:32000000, 8.45434:DFEE9A4FC0E67D4583EEB2102B8C3EEF00636570, 0.104348:00000000, 1.84300:0A000000, 1.84300:0E000000, 1.84300:32000000, 1.73948:00000000, 1.108572:00000000, 0.117068:0B000000, 1.79180:0A000000, 1.79180:FA000000, 5.95292:67000000446F526F70730072, 8.111356:9552F9FE86593ECC1F1F572B2F8F6BAC1F1F572B";

/// What fills the blanks. A blank without value becomes empty.
pub type Blanks<'a> = [(&'a str, &'a str)];

/// `text` with its blanks filled.
#[must_use]
pub fn fill(text: &str, blanks: &Blanks<'_>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|at| open + at) else { break };
        let name = &rest[open + 1..close];
        filled.push_str(&rest[..open]);
        filled.push_str(blanks.iter().find(|(blank, _)| *blank == name).map_or("", |(_, value)| value));
        rest = &rest[close + 1..];
    }
    filled.push_str(rest);
    filled
}

/// The reply that a fault gives: a line of the catalogue by name, or any text that begins with a reply code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplyText(String);

/// Why a fault's reply is refused.
#[derive(Debug, Error)]
pub enum ReplyTextError {
    /// Neither a code nor a name.
    #[error("{given:?} is neither a reply (three digits, space, text, one line) nor one of: {names}")]
    Unknown {
        /// What was given.
        given: String,
        /// Every name.
        names: String,
    },
}

impl ReplyText {
    /// The text with its blanks.
    #[must_use]
    pub fn template(&self) -> &str {
        Line::ALL.iter().find(|line| line.name() == self.0).map_or(&self.0, |line| line.text())
    }
}

impl From<Line> for ReplyText {
    fn from(line: Line) -> Self {
        Self(line.name().to_owned())
    }
}

impl TryFrom<String> for ReplyText {
    type Error = ReplyTextError;

    fn try_from(given: String) -> Result<Self, Self::Error> {
        if Line::ALL.iter().any(|line| line.name() == given) || is_reply(&given) {
            return Ok(Self(given));
        }
        let names = Line::ALL.iter().map(|line| line.name()).collect::<Vec<_>>().join(", ");
        Err(ReplyTextError::Unknown { given, names })
    }
}

impl From<ReplyText> for String {
    fn from(reply: ReplyText) -> Self {
        reply.0
    }
}

fn is_reply(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 4
        && bytes[..3].iter().all(u8::is_ascii_digit)
        && (b'2'..=b'5').contains(&bytes[0])
        && bytes[3] == b' '
        && !text.contains(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_reply() {
        for line in Line::ALL {
            assert!(is_reply(line.text()), "{}", line.name());
        }
    }

    #[test]
    fn enhanced_code_has_the_class_of_the_basic_code() {
        for line in Line::ALL {
            let text = line.text();
            let second = text.split(' ').nth(1).unwrap();
            if second.split('.').count() == 3 && second.starts_with(|first: char| first.is_ascii_digit()) {
                let class = if text.starts_with('4') { '4' } else { text.chars().next().unwrap() };
                assert_eq!(second.chars().next().unwrap(), class, "{text}");
            }
        }
    }

    #[test]
    fn refusals_with_diagnostics_have_their_real_length() {
        for line in
            [Line::SendAsDenied, Line::OutboundSpam, Line::SubmissionQuotaExceeded, Line::SenderMailboxFull]
        {
            let text = fill(line.text(), &[("diagnostics", DIAGNOSTICS)]);
            assert!((1500..4096).contains(&text.len()), "{}: {}", line.name(), text.len());
        }
    }

    #[test]
    fn blanks_are_filled_and_missing_ones_are_empty() {
        assert_eq!(fill("250 {a} and {b}.", &[("a", "x")]), "250 x and .");
        assert_eq!(fill("250 open {brace", &[]), "250 open {brace");
    }

    #[test]
    fn a_literal_must_be_one_line_with_a_code() {
        for bad in ["", "hello", "250", "250-more", "999 odd", "250 two\r\nlines"] {
            assert!(ReplyText::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert_eq!(ReplyText::try_from("451 4.7.0 later".to_owned()).unwrap().template(), "451 4.7.0 later");
    }
}

//! Microsoft's literal lines, one row each, with where they come and what they mean.
//!
//! The classification is tested with them, and the documentation lists them: what an administrator finds in a log is found
//! there.

use mailroute_route::condition::Reason as R;

use crate::classify::Stage;
use crate::outcome::DeliveryOutcome::{
    self, Quota, RefreshToken, RejectMessage, RejectRecipient, RouteFault,
};

const fn later(reason: R) -> DeliveryOutcome {
    DeliveryOutcome::Transient(Some(reason))
}

const NOW_NOT: DeliveryOutcome = DeliveryOutcome::Transient(None);
const UNAVAILABLE: DeliveryOutcome = later(R::UpstreamUnavailable);
const DEFERRED: DeliveryOutcome = later(R::EgressAddressDeferred);

/// Where a line comes, the line as Microsoft words it, and what it means.
#[rustfmt::skip]
pub const KNOWN_REPLIES: &[(Stage, &str, DeliveryOutcome)] = &[
    // AUTH
    (Stage::Auth, "535 5.7.3 Authentication unsuccessful [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM 2026-08-13T07:00:00.000Z 08DD84B323498C1A]", RefreshToken),
    (Stage::Auth, "535 5.7.142 XOAUTH2 authentication failed. The access token will expire soon", RefreshToken),
    (Stage::Auth, "535 5.7.143 XOAUTH2 authentication failed. The access token has expired", RefreshToken),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::SmtpAuthDisabledTenant)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information. [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::SmtpAuthDisabledMailbox)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [AM0PR01CA0088.eurprd01.prod.exchangelabs.com]", RouteFault(R::BasicAuthDisabled)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [LO4P123CA0350.GBRP123.PROD.OUTLOOK.COM]", RouteFault(R::PasswordRejected)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, the organization configuration doesn't allow this authentication request.", RouteFault(R::AuthenticationPolicy)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, federated STS service was unreachable.", later(R::LoginFailed)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, the federated STS URL does not support HTTPS.", RouteFault(R::LoginFailed)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.", RouteFault(R::AuthenticationPolicy)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.", RouteFault(R::AuthenticationPolicy)),
    (Stage::Auth, "535 5.7.139 Authentication unsuccessful, the account is locked.", RouteFault(R::PasswordRejected)),
    (Stage::Auth, "550 5.7.30 Basic authentication is not supported for Client Submission.", RouteFault(R::BasicAuthDisabled)),
    (Stage::Auth, "504 5.7.4 Unrecognized authentication type [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::LoginFailed)),
    (Stage::Auth, "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2. Visit https://aka.ms/smtp_auth_tls. [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::TlsFailed)),
    (Stage::Auth, "451 4.7.0 Temporary server error. Please try again later. PRX2 [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", UNAVAILABLE),
    (Stage::Auth, "454 4.7.0 Temporary authentication failure", UNAVAILABLE),
    (Stage::Auth, "421 4.3.2 Service not available", UNAVAILABLE),
    (Stage::Auth, "432 4.3.2 Concurrent connections limit exceeded.", UNAVAILABLE),
    (Stage::Auth, "451 4.7.0 Temporary server error. Please try again later. PRX5 [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", UNAVAILABLE),
    // High Volume Email
    (Stage::Auth, "535 5.7.144 XOAUTH2 authentication failed. Invalid API permissions", RouteFault(R::ApiPermissionMissing)),
    (Stage::Auth, "550 5.7.240 The application is not allowed for use with this High Volume Email account", RouteFault(R::ApplicationNotAllowed)),
    (Stage::Auth, "501 5.5.121 Invalid XOAUTH2 argument", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.122 Invalid XOAUTH2 auth data", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.123 Invalid XOAUTH2 auth data", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.124 Invalid XOAUTH2 auth data - User address provided is not valid", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.125 Invalid XOAUTH2 auth data", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.126 Invalid XOAUTH2 auth data", RouteFault(R::LoginFailed)),
    (Stage::Auth, "501 5.5.127 Invalid XOAUTH2 auth data - Token will expire soon error", RefreshToken),
    (Stage::Rcpt, "550 5.5.105 External sending is not supported for High Volume Email accounts", RejectRecipient),
    (Stage::Message, "550 5.5.105 External sending is not supported for High Volume Email accounts", RejectRecipient),

    // MAIL
    (Stage::Mail, "530 5.7.57 Client not authenticated to send mail. [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::NotAuthenticated)),
    (Stage::Mail, "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail during MAIL FROM [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::NotAuthenticated)),
    (Stage::Mail, "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.3 Authentication unsuccessful [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::NotAuthenticated)),
    (Stage::Mail, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", Quota(R::RateExceeded)),
    (Stage::Mail, "432 4.4.2 Message submission rate for this client has exceeded the configured limit", Quota(R::RateExceeded)),
    (Stage::Mail, "451 4.4.2 Message submission rate for this client has exceeded the configured limit", Quota(R::RateExceeded)),
    (Stage::Mail, "552 5.3.4 Message size exceeds fixed maximum message size", RejectMessage(None)),
    (Stage::Mail, "501 5.1.7 Invalid address", RejectMessage(None)),
    (Stage::Mail, "421 4.3.2 Service not available", UNAVAILABLE),

    // RCPT
    (Stage::Rcpt, "530 5.7.57 Client not authenticated to send mail. [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::NotAuthenticated)),
    (Stage::Rcpt, "452 4.5.3 Too many recipients", NOW_NOT),
    (Stage::Rcpt, "550 5.5.3 Too many recipients", RejectMessage(None)),
    (Stage::Rcpt, "550 5.4.1 [nobody@contoso.com]: Recipient address rejected: Access denied [FR0P281CA0123.DEUP281.PROD.protection.outlook.com]", RejectRecipient),
    (Stage::Rcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", RejectRecipient),
    (Stage::Rcpt, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", RejectRecipient),
    (Stage::Rcpt, "501 5.1.3 Invalid address", RejectRecipient),
    // Postfix checks the sender when it has the recipient.
    (Stage::Rcpt, "553 5.7.1 <alerts@contoso.com>: Sender address rejected: not owned by user noreply@contoso.com", RejectMessage(Some(R::SendAsDenied))),
    (Stage::Rcpt, "450 4.2.1 Mailbox busy", NOW_NOT),
    (Stage::Rcpt, "451 4.7.500 Server busy. Please try again later from [203.0.113.7]. (S77714) [FR0P281CA0123.DEUP281.PROD.protection.outlook.com]", DEFERRED),
    (Stage::Rcpt, "451 4.7.699 Server busy. Please try again later from [203.0.113.7].", DEFERRED),
    (Stage::Rcpt, "451 4.7.851 Server busy. Please try again later from [203.0.113.7]. (AS843)", DEFERRED),
    (Stage::Mail, "451 4.7.652 The mail server [203.0.113.7] has exceeded the maximum number of connections. (S3115)", DEFERRED),
    (Stage::Rcpt, "550 5.7.64 TenantAttribution; Relay Access Denied [FR0P281MB0123.eurprd01.prod.protection.outlook.com]", RouteFault(R::ConnectorMismatch)),
    (Stage::Rcpt, "550 5.7.64 TenantAttribution; Relay Access Denied SMTP", RouteFault(R::ConnectorMismatch)),
    (Stage::Rcpt, "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35", RouteFault(R::WrongRegion)),
    (Stage::Rcpt, "550 5.7.51 TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set", RouteFault(R::ConnectorRestricted)),
    (Stage::Mail, "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources", RouteFault(R::DirectSendRejected)),
    (Stage::Message, "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources [FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM]", RouteFault(R::DirectSendRejected)),
    (Stage::Rcpt, "550 5.7.606 Access denied, banned sending IP [203.0.113.7]. To request removal from this list please visit https://sender.office.com/ and follow the directions. (AS16012609)", RouteFault(R::EgressAddressBlocked)),
    (Stage::Rcpt, "550 5.7.649 Access denied, banned sending IP [203.0.113.7]", RouteFault(R::EgressAddressBlocked)),
    (Stage::Rcpt, "550 5.7.511 Access denied, banned sender [app@contoso.com]. To request removal from this list please forward this message to delist@microsoft.com", RouteFault(R::SenderBlocked)),
    (Stage::Rcpt, "550 5.7.25 Access denied, the sending IPv6 address [2001:db8::7] must have a reverse DNS record", RouteFault(R::Ipv6Refused)),
    (Stage::Message, "450 4.7.26 Access denied, a message sent over IPv6 [2001:db8::7] must pass either SPF or DKIM validation, this message is not signed", RouteFault(R::Ipv6Refused)),
    (Stage::Rcpt, "550 5.7.508 Access denied, [2001:db8::7] has exceeded permitted limits within 2001:db8::/64 range", RouteFault(R::Ipv6Refused)),
    (Stage::Rcpt, "550 5.7.510 Access denied, contoso.com does not accept email over IPv6", RouteFault(R::Ipv6Refused)),
    (Stage::Message, "550 5.7.23 The message was rejected because of Sender Policy Framework violation", RouteFault(R::SenderDomainUnverified)),
    (Stage::Message, "550 5.7.509 Access denied, sending domain contoso.com does not pass DMARC verification and has a DMARC policy of reject", RouteFault(R::SenderDomainUnverified)),
    (Stage::Rcpt, "550 5.7.506 Access Denied, Bad HELO", RouteFault(R::EhloNameRefused)),
    (Stage::Rcpt, "550 5.7.12 Sender was not authenticated by organization", RejectRecipient),
    (Stage::Rcpt, "550 5.7.124 Sender not in allowed-senders list", RejectRecipient),
    (Stage::Message, "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; sender was not authenticated", RejectRecipient),
    (Stage::Message, "550 5.7.136 RESOLVER.RST.SenderNotAuthenticatedForMailUser; sender was not authenticated", RejectRecipient),
    (Stage::Rcpt, "550 5.2.121 The recipient has exceeded their limit for the number of messages they can receive per hour from this sender", NOW_NOT),
    (Stage::Message, "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour", NOW_NOT),
    (Stage::Message, "550 5.7.321 starttls-not-supported: Destination mail server must support TLS to receive mail", RejectMessage(None)),
    (Stage::Message, "450 4.7.321 starttls-not-supported: Destination mail server must support TLS to receive mail", NOW_NOT),
    (Stage::Message, "450 4.7.325 certificate-host-mismatch: Remote certificate MUST have a common name or subject alternative name matching the hostname (DANE)", NOW_NOT),

    // DATA
    (Stage::Data, "503 5.5.2 Need rcpt command", RejectMessage(None)),
    (Stage::Data, "554 5.5.1 No valid recipients", RejectMessage(None)),

    // End of the data
    (Stage::Message, "250 2.0.0 OK <20261121070000.1@contoso.com> [Hostname=FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM]", DeliveryOutcome::Delivered),
    (Stage::Message, "250 2.6.0 <20261121070000.1@contoso.com> [InternalId=12345678901234567890, Hostname=FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM] 13478 bytes in 0.277, 47.373 KB/sec Queued mail for delivery", DeliveryOutcome::Delivered),
    (Stage::Message, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", RejectMessage(Some(R::SendAsDenied))),
    (Stage::Message, "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as boss@contoso.com; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed to process message due to a permanent exception", RejectMessage(Some(R::SendAsDenied))),
    (Stage::Message, "550 5.2.251 Sender throttled due to continuous mailbox full errors.", RouteFault(R::SenderThrottled)),
    (Stage::Message, "550 5.2.252 Sender throttled due to continuous send as denied errors.", RouteFault(R::SenderThrottled)),
    (Stage::Message, "550 5.2.253 Sender throttled due to continuous invalid license errors.", RouteFault(R::SenderThrottled)),
    (Stage::Message, "550 5.2.254 Sender throttled due to continuous too many recipients errors.", RouteFault(R::SenderThrottled)),
    (Stage::Message, "550 5.2.255 Sender throttled due to continuous invalid recipients errors.", RouteFault(R::SenderThrottled)),
    (Stage::Message, "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information. [Hostname=FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM]", Quota(R::ConnectionsExceeded)),
    (Stage::Message, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Quota(R::ConnectionsExceeded)),
    (Stage::Message, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", NOW_NOT),
    (Stage::Message, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message The message can't be submitted because the sender's submission quota was exceeded.", Quota(R::DailyQuotaExceeded)),
    (Stage::Message, "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", Quota(R::DailyQuotaExceeded)),
    (Stage::Message, "554 5.2.2 Submission quota exceeded", Quota(R::DailyQuotaExceeded)),
    (Stage::Message, "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; Failed to process message due to a permanent exception with message WASCL UserAction verdict is not None.", RouteFault(R::MailboxRestricted)),
    (Stage::Message, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", RouteFault(R::MailboxFull)),
    (Stage::Message, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionQuotaExceeded", RouteFault(R::MailboxFull)),
    (Stage::Message, "550 5.1.8 Access denied, bad outbound sender AS(42003)", RouteFault(R::MailboxRestricted)),
    (Stage::Message, "550 5.1.20 Multiple From addresses are not allowed without Sender address", RejectMessage(None)),
    (Stage::Message, "552 5.3.4 Message size exceeds fixed maximum message size", RejectMessage(None)),
    (Stage::Message, "451 4.7.0 Temporary server error. Please try again later. PRX4 [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]", UNAVAILABLE),
    (Stage::Message, "421 4.3.2 Service not available", UNAVAILABLE),
    (Stage::Message, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds, which cannot be sent via DATA", RejectMessage(None)),
    (Stage::Message, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", RejectMessage(None)),
    (Stage::Message, "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients", Quota(R::TenantQuotaExceeded)),
    (Stage::Message, "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit", Quota(R::TenantQuotaExceeded)),
    (Stage::Message, "550 5.7.236 Your message can't be sent because your tenant exceeded its daily limit for external recipients of onmicrosoft.com senders", DeliveryOutcome::Transient(Some(R::OnmicrosoftQuotaExceeded))),
    (Stage::Message, "550 5.7.705 Access denied, tenant has exceeded threshold", RouteFault(R::TenantBlocked)),
    (Stage::Message, "550 5.7.708 Access denied, traffic not accepted from this IP", RouteFault(R::TenantBlocked)),
    (Stage::Message, "550 5.7.750 Client blocked from sending from unregistered domains", RouteFault(R::SenderDomainUnregistered)),
    (Stage::Message, "550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization's tenant allow/block list policy.", RejectMessage(None)),

    // Before mail
    (Stage::Greeting, "421 4.3.2 Service not active", UNAVAILABLE),
    (Stage::Greeting, "554 5.3.2 No service here", UNAVAILABLE),
    (Stage::Ehlo, "501 5.5.4 Invalid domain name [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM 2026-04-26T18:06:35.781Z 08DD84B323498C1A]", RouteFault(R::EhloNameRefused)),
    (Stage::StartTls, "454 4.7.0 TLS not available due to temporary reason", later(R::StartTlsMissing)),
    (Stage::StartTls, "502 5.5.1 Command not implemented", RouteFault(R::StartTlsMissing)),
];

/// Status, `error.code` and `error.message` of an answer of Microsoft Graph to `sendMail`, and what it means.
#[rustfmt::skip]
pub const KNOWN_GRAPH_ANSWERS: &[(u16, &str, &str, DeliveryOutcome)] = &[
    (202, "", "", DeliveryOutcome::Delivered),
    (200, "", "", RejectMessage(Some(R::GraphCannotCarry))),
    (201, "", "", later(R::GraphResultUnknown)),
    (400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.", later(R::UpstreamProtocolError)),
    (400, "ErrorInvalidRecipients", "At least one recipient is not valid., A message can't be sent because it contains no recipients.", RejectMessage(None)),
    (400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.", RejectMessage(Some(R::GraphCannotCarry))),
    (400, "UnableToDeserializePostBody", "were unable to deserialize", later(R::UpstreamProtocolError)),
    (401, "InvalidAuthenticationToken", "Access token is empty.", RefreshToken),
    (401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.", RefreshToken),
    (401, "InvalidAuthenticationToken", "The access token is invalid.", RefreshToken),
    (403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.", RouteFault(R::GraphAccessDenied)),
    (403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.", RouteFault(R::GraphAccessDenied)),
    (403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.", RejectMessage(Some(R::SendAsDenied))),
    (403, "ErrorExceededMessageLimit", "Cannot send mail. Daily Message/Recipient limit exceeded.", Quota(R::DailyQuotaExceeded)),
    (429, "ErrorExceededMessageLimit", "Cannot send mail. Daily Message/Recipient limit exceeded.", Quota(R::DailyQuotaExceeded)),
    (403, "ErrorSubmissionQuotaExceeded", "", Quota(R::DailyQuotaExceeded)),
    (403, "ErrorQuotaExceeded", "The mailbox is full.", RouteFault(R::MailboxFull)),
    (404, "ErrorInvalidUser", "The requested user 'a@b' is invalid.", RouteFault(R::MailboxNotFound)),
    (404, "ResourceNotFound", "Resource could not be discovered.", RouteFault(R::MailboxNotFound)),
    (404, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise.", RouteFault(R::MailboxNotEnabled)),
    (413, "RequestEntityTooLarge", "Request Entity Too Large", RejectMessage(Some(R::GraphCannotCarry))),
    (413, "", "", RejectMessage(Some(R::GraphCannotCarry))),
    (429, "ApplicationThrottled", "Application is over its MailboxConcurrency limit.", Quota(R::ConnectionsExceeded)),
    (429, "CommandConcurrencyLimitReached", "", Quota(R::ConnectionsExceeded)),
    (429, "TooManyRequests", "", Quota(R::GraphThrottled)),
    (429, "activityLimitReached", "", Quota(R::GraphThrottled)),
    (500, "ErrorInternalServerError", "An internal server error occurred. The operation failed.", later(R::GraphResultUnknown)),
    (502, "", "", later(R::GraphResultUnknown)),
    (503, "ErrorServerBusy", "The server is too busy to process the request.", UNAVAILABLE),
    (503, "ServiceUnavailable", "The MdbReplicationProtectionUtilizationMonitor is unhealthy", UNAVAILABLE),
    (504, "UnknownError", "", later(R::GraphResultUnknown)),
];

//! What a client did that Exchange would refuse, or that a careful client must not do.
//!
//! A refusal that follows from the set-up (no permission, SMTP AUTH switched off) is no violation; a breach of protocol
//! or of a limit is. Tests ask for an empty list.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One observed breach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// When it was seen.
    pub at: Timestamp,
    /// The SMTP connection, counting from 1; 0 at the token endpoint.
    pub connection: u64,
    /// What kind of breach.
    pub kind: Kind,
    /// A sentence with the particulars. Never holds a token or password.
    pub detail: String,
}

/// Every breach that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// AUTH before TLS: the token went over the wire in the clear.
    AuthWithoutTls,
    /// MAIL, RCPT, DATA or BDAT before TLS.
    MailWithoutTls,
    /// MAIL before a successful AUTH.
    MailWithoutAuth,
    /// Bytes were sent behind STARTTLS before its 220 was read (RFC 3207 section 4.2).
    DataBehindStartTls,
    /// The TLS handshake failed.
    TlsHandshake,
    /// No server name in the handshake, or one that is not ours.
    WrongServerName,
    /// On port 25 the client's certificate does not chain to a trusted root: self-signed, or sent without its chain.
    UntrustedCertificate,
    /// A connector matched by certificate, but MAIL FROM is of no accepted domain, so that it is rewritten.
    SenderNotAccepted,
    /// The XOAUTH2 payload is not `user=…^Aauth=Bearer …^A^A`.
    MalformedXoauth2,
    /// A user name or password of AUTH LOGIN is not base64.
    MalformedLogin,
    /// Logged in with an access token whose time is over.
    ExpiredToken,
    /// AUTH again on a connection on which it failed or succeeded already.
    RepeatedAuth,
    /// An application's own assertion lives longer than ten minutes, has no `jti`, or was presented before.
    CarelessAssertion,
    /// Something was pipelined behind a command that must end its group (RFC 2920 section 3.1).
    PipeliningPastGroup,
    /// The name given with EHLO is no domain name and no address literal.
    InvalidEhloName,
    /// A line feed without carriage return.
    BareLineFeed,
    /// A carriage return without line feed.
    BareCarriageReturn,
    /// A NUL byte.
    NulByte,
    /// Bytes above 127 in a command without SMTPUTF8.
    EightBitCommand,
    /// Bytes above 127 in a message sent as 7BIT.
    EightBitData,
    /// The connection ended in the middle of a line.
    UnfinishedLine,
    /// A line of the message began with a single dot that was not doubled.
    NotDotStuffed,
    /// The message has no Date.
    DateMissing,
    /// The message has no Message-ID.
    MessageIdMissing,
    /// A header field that may appear once appears more often.
    DuplicateHeader,
    /// More messages in a minute than the mailbox may send.
    MessageRate,
    /// More recipients in a day than the mailbox may have.
    RecipientsPerDay,
    /// More submitting connections at once than the mailbox may have.
    SubmittingConnections,
    /// More recipients in a message, or of one domain, than allowed.
    RecipientsPerMessage,
    /// A message above the announced or configured size.
    MessageSize,
    /// More external recipients in a day than the tenant may have.
    TenantRecipients,
    /// More external recipients in a day than the tenant's `*.onmicrosoft.com` senders may have.
    OnmicrosoftRecipients,
    /// An external recipient at High Volume Email.
    ExternalRecipient,
    /// More messages in a minute or hour than Communication Services takes.
    ServiceRate,
    /// More requests at Graph at once than the application may have.
    ConcurrentRequests,
    /// More requests at Graph in ten minutes than an application may make for a mailbox.
    RequestRate,
    /// More bytes to Graph in five minutes than an application may send for a mailbox.
    UploadRate,
    /// A command that does not exist, is malformed or is out of order.
    Protocol,
}

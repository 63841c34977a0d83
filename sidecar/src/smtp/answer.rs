//! Everything that the local server says by itself, in one table.
//!
//! Owns codes and wording. A text names what to do where there is something to do, and repeats nothing of what the client
//! sent but an address, where it is the address that is refused. Refuses to know when an answer is due.

use super::command::CommandError;
use super::reply::{EnhancedCode, Reply};
use crate::message::envelope::AddressError;

/// Why the server refused something: a closed set, fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// More sessions at once than allowed.
    Sessions,
    /// A session without a sign of life, or without a message for too long.
    Timeout,
    /// The octets are not SMTP: bare line ends, control characters, an endless line, another protocol.
    Protocol,
    /// A command that does not exist, is not offered, or is badly written.
    Command,
    /// A command in the wrong place.
    Sequence,
    /// A session with too many errors.
    Errors,
    /// An address that cannot be used.
    Address,
    /// A sender that the route does not allow, or a recipient that its method does not reach.
    Policy,
    /// A recipient that the route does not allow.
    RecipientRule,
    /// Too many recipients.
    Recipients,
    /// A message over the size limit.
    Size,
    /// A message that cannot be passed on: NUL, an endless line, a header that can be read in two ways.
    Content,
    /// A message that goes round in circles.
    Loop,
    /// No room to take the message in.
    Storage,
    /// The server is stopping.
    Shutdown,
    /// No TLS: there is no certificate, or the handshake failed.
    Tls,
    /// Nobody has logged in, or a login was refused.
    Login,
    /// A client that sends more messages than it may.
    Rate,
}

impl Refusal {
    /// Every refusal, for the registration of metrics.
    pub const ALL: [Self; 18] = [
        Self::Sessions,
        Self::Timeout,
        Self::Protocol,
        Self::Command,
        Self::Sequence,
        Self::Errors,
        Self::Address,
        Self::Policy,
        Self::RecipientRule,
        Self::Recipients,
        Self::Size,
        Self::Content,
        Self::Loop,
        Self::Storage,
        Self::Shutdown,
        Self::Tls,
        Self::Login,
        Self::Rate,
    ];

    /// Those that only clients of the network meet.
    pub const OF_NETWORK: [Self; 3] = [Self::Tls, Self::Login, Self::Rate];

    /// Those that only routes with rules for messages have.
    pub const OF_RULES: [Self; 1] = [Self::RecipientRule];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Command => "command",
            Self::Sequence => "sequence",
            Self::Errors => "errors",
            Self::Address => "address",
            Self::Policy => "policy",
            Self::RecipientRule => "recipient_rule",
            Self::Recipients => "recipients",
            Self::Size => "size",
            Self::Content => "content",
            Self::Loop => "loop",
            Self::Storage => "storage",
            Self::Shutdown => "shutdown",
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Rate => "rate",
        }
    }
}

/// Declares the answers, and the list of all of them.
macro_rules! answers {
    ($($name:ident,)*) => {
        /// What the server can say, apart from the greeting and the answers to EHLO and HELO, which hold a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the table below says it in full")]
        pub enum Answer {
            $($name,)*
        }

        impl Answer {
            /// Every answer.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

answers! {
    Ok,
    SenderOk,
    RecipientOk,
    StartData,
    Help,
    CannotVerify,
    LoggedIn,
    StartTls,
    Authenticated,
    AskPlain,
    AskUser,
    AskPassword,
    Bye,
    BareLineEnd,
    ControlCharacter,
    LineTooLong,
    NotSmtp,
    HalfMessage,
    Unrecognised,
    Syntax,
    NoStartTls,
    NoAuth,
    UnknownMechanism,
    NotBase64,
    NoCredentials,
    AuthCancelled,
    NoTls,
    TlsActive,
    TlsTooLate,
    TlsPipelined,
    TlsFirst,
    TlsForAuth,
    LoginFirst,
    LoginRefused,
    LoginUnavailable,
    TooManyLogins,
    NoChunking,
    NoExpand,
    HelloFirst,
    SenderFirst,
    SenderGiven,
    AuthTooLate,
    AuthGiven,
    RecipientFirst,
    NoValidRecipient,
    TooManyErrors,
    UnknownParameter,
    BadParameter,
    BadSender,
    BadRecipient,
    SenderWithoutDomain,
    RecipientWithoutDomain,
    NonAsciiAddress,
    TooManyRecipients,
    TooManyOfOneDomain,
    SenderNotAllowed,
    RecipientNotAllowed,
    RecipientNotInternal,
    RecipientNotListed,
    NullSender,
    TooLarge,
    HeaderTooLarge,
    NulInMessage,
    TextLineTooLong,
    BareLineEndInMessage,
    SeveralFrom,
    FromTooLong,
    NoFieldInHeader,
    MailLoop,
    NoStorage,
    Idle,
    Overdue,
    LoginOverdue,
    TooManySessions,
    TooManySessionsOfClient,
    TooManyMessages,
    ShuttingDown,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Reply code.
    pub code: u16,
    /// Enhanced code; 354 has none (RFC 2034 §3).
    pub enhanced: Option<EnhancedCode>,
    /// The words.
    pub text: &'static str,
    /// What is counted, for refusals.
    pub refusal: Option<Refusal>,
}

const fn done(code: u16, subject: u16, detail: u16, text: &'static str) -> Row {
    Row { code, enhanced: Some(EnhancedCode::new(2, subject, detail)), text, refusal: None }
}

const fn refused(code: u16, subject: u16, detail: u16, refusal: Refusal, text: &'static str) -> Row {
    let class = if code < 500 { 4 } else { 5 };
    Row { code, enhanced: Some(EnhancedCode::new(class, subject, detail)), text, refusal: Some(refusal) }
}

impl Answer {
    /// The answer's row of the table.
    #[rustfmt::skip]
    pub const fn row(self) -> Row {
        use Refusal as R;
        match self {
            Self::Ok => done(250, 0, 0, "OK"),
            Self::SenderOk => done(250, 1, 0, "Sender OK"),
            Self::RecipientOk => done(250, 1, 5, "Recipient OK"),
            Self::StartData => Row { code: 354, enhanced: None, text: "Start mail input; end with <CRLF>.<CRLF>", refusal: None },
            Self::Help => done(214, 0, 0, "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT"),
            Self::CannotVerify => done(252, 0, 0, "Cannot verify the address; send the message and see"),
            Self::LoggedIn => done(235, 7, 0, "OK; user names and passwords are not checked here"),
            Self::StartTls => done(220, 0, 0, "Ready to start TLS"),
            Self::Authenticated => done(235, 7, 0, "Authentication successful"),
            Self::AskPlain => Row { code: 334, enhanced: None, text: "", refusal: None },
            Self::AskUser => Row { code: 334, enhanced: None, text: "VXNlcm5hbWU6", refusal: None },
            Self::AskPassword => Row { code: 334, enhanced: None, text: "UGFzc3dvcmQ6", refusal: None },
            Self::Bye => done(221, 0, 0, "Bye"),

            Self::BareLineEnd => refused(500, 5, 2, R::Protocol, "Commands end in CR LF; a bare CR or LF is not accepted. Closing"),
            Self::ControlCharacter => refused(500, 5, 2, R::Protocol, "Control character in a command; this port speaks SMTP without TLS. Closing"),
            Self::LineTooLong => refused(500, 5, 2, R::Protocol, "Command line too long. Closing"),
            Self::NotSmtp => refused(554, 5, 1, R::Protocol, "This port speaks SMTP, not HTTP. Closing"),
            Self::HalfMessage => refused(500, 5, 2, R::Protocol,
                "Text after the end of the message: send lines that begin with a dot with two dots. Closing"),

            Self::Unrecognised => refused(500, 5, 1, R::Command, "Command not recognised"),
            Self::Syntax => refused(501, 5, 4, R::Command, "Syntax error in the command's argument"),
            Self::NoStartTls => refused(502, 5, 1, R::Command, "STARTTLS is not offered; connect without TLS, the connection does not leave this pod"),
            Self::NoAuth => refused(502, 5, 1, R::Command, "AUTH is not offered; send without user name and password"),
            Self::UnknownMechanism => refused(504, 5, 4, R::Command, "Mechanism not offered; use PLAIN or LOGIN"),
            Self::NotBase64 => refused(501, 5, 2, R::Command, "Not base64; login aborted"),
            Self::NoCredentials => refused(501, 5, 2, R::Command, "Not a user name and a password as the mechanism has them; login aborted"),
            Self::AuthCancelled => refused(501, 7, 0, R::Command, "Login aborted, as requested"),
            Self::NoTls => refused(454, 7, 0, R::Tls, "TLS is not available: the gateway has no usable certificate; try again later"),
            Self::TlsActive => refused(503, 5, 1, R::Sequence, "TLS is already in use"),
            Self::TlsTooLate => refused(503, 5, 1, R::Sequence, "STARTTLS comes before MAIL; RSET ends the transaction"),
            Self::TlsPipelined => refused(503, 5, 1, R::Protocol, "Nothing may follow STARTTLS before its reply. Closing"),
            Self::TlsFirst => refused(530, 7, 0, R::Login, "Send STARTTLS and log in first"),
            Self::TlsForAuth => refused(538, 7, 11, R::Login, "AUTH is only offered under TLS; send STARTTLS first"),
            Self::LoginFirst => refused(530, 7, 0, R::Login, "Log in first, with AUTH PLAIN or AUTH LOGIN"),
            Self::LoginRefused => refused(535, 7, 8, R::Login, "User name or password not accepted"),
            Self::LoginUnavailable => refused(454, 7, 0, R::Login, "User name and password cannot be checked now; try again later"),
            Self::TooManyLogins => refused(421, 7, 0, R::Login, "Too many failed logins. Closing"),
            Self::NoChunking => refused(502, 5, 1, R::Command, "CHUNKING is not offered; use DATA. Closing"),
            Self::NoExpand => refused(502, 5, 1, R::Command, "EXPN is not implemented"),
            Self::HelloFirst => refused(503, 5, 1, R::Sequence, "Send EHLO first"),
            Self::SenderFirst => refused(503, 5, 1, R::Sequence, "Send MAIL first"),
            Self::SenderGiven => refused(503, 5, 1, R::Sequence, "The sender was already given; RSET starts over"),
            Self::AuthTooLate => refused(503, 5, 1, R::Sequence, "AUTH comes before MAIL"),
            Self::AuthGiven => refused(503, 5, 1, R::Sequence, "Already logged in"),
            Self::RecipientFirst => refused(503, 5, 1, R::Sequence, "Send RCPT first"),
            Self::NoValidRecipient => refused(554, 5, 1, R::Sequence, "No valid recipients"),
            Self::TooManyErrors => refused(421, 7, 0, R::Errors, "Too many errors. Closing"),
            Self::UnknownParameter => refused(555, 5, 4, R::Command, "Parameter not recognised; EHLO lists what is offered"),
            Self::BadParameter => refused(501, 5, 4, R::Command, "Syntax error in a parameter"),

            Self::BadSender => refused(501, 1, 7, R::Address, "Sender is not of the form FROM:<local-part@domain>"),
            Self::BadRecipient => refused(501, 1, 3, R::Address, "Recipient is not of the form TO:<local-part@domain>"),
            Self::SenderWithoutDomain => refused(553, 1, 7, R::Address, "The sender's address has no domain; write local-part@domain"),
            Self::RecipientWithoutDomain => refused(553, 1, 3, R::Address, "The recipient's address has no domain; write local-part@domain"),
            Self::NonAsciiAddress => refused(553, 6, 7, R::Address, "The address needs SMTPUTF8; add it to MAIL and use UTF-8"),
            Self::TooManyRecipients => refused(452, 5, 3, R::Recipients, "Too many recipients; send the rest in another message"),
            Self::TooManyOfOneDomain => refused(452, 5, 3, R::Recipients, "Too many recipients of one domain; send the rest in another message"),
            Self::SenderNotAllowed => refused(550, 7, 60, R::Policy, "The MailRoute does not allow this sender:"),
            Self::RecipientNotAllowed => refused(550, 7, 1, R::Policy,
                "Direct Send reaches only recipients of the tenant's own domains; for others the MailRoute needs the \
                 method ClientSubmission or SmtpRelay. Allowed:"),

            Self::RecipientNotInternal => refused(550, 7, 1, R::Policy,
                "High Volume Email reaches only recipients of the tenant's own domains; for others the MailRoute needs \
                 another service or method. Allowed:"),
            Self::RecipientNotListed => refused(550, 7, 1, R::RecipientRule,
                "The MailRoute does not allow this recipient; add it to recipients.allow of the MailRoute, or send to one that is \
                 allowed:"),
            Self::NullSender => refused(550, 7, 1, R::Policy,
                "Microsoft Graph cannot send with a null sender; send as the mailbox, or set graph.fallback of the MailRoute"),

            Self::TooLarge => refused(552, 3, 4, R::Size, "Message larger than the limit that EHLO announces (limits.maxMessageBytes of the MailRoute, or graph.maxMessageBytes)"),
            Self::HeaderTooLarge => refused(552, 3, 4, R::Size, "Header of more than 256 KiB"),
            Self::NulInMessage => refused(554, 6, 0, R::Content, "Message contains a NUL character; encode binary content as base64"),
            Self::TextLineTooLong => refused(554, 6, 0, R::Content, "Message has a line of more than 1 MiB; encode it as quoted-printable or base64"),
            Self::BareLineEndInMessage => refused(554, 6, 11, R::Content,
                "Message contains a bare CR or LF; end lines in CR LF (listen.bareLineEnds of the MailRoute is Refuse)"),
            Self::SeveralFrom => refused(550, 1, 20, R::Content, "Message has more than one From field"),
            Self::FromTooLong => refused(554, 6, 0, R::Content, "From or Sender field of more than 16 KiB"),
            Self::NoFieldInHeader => refused(554, 6, 0, R::Content,
                "Header has a line that is not a field, followed by an ambiguous From or Sender; end the header with an \
                 empty line"),
            Self::MailLoop => refused(554, 4, 6, R::Loop, "Too many Received lines: the message is in a mail loop"),
            Self::NoStorage => refused(452, 3, 1, R::Storage, "No room to receive the message; try again later"),

            Self::Idle => refused(421, 4, 2, R::Timeout, "Nothing received for too long. Closing"),
            Self::Overdue => refused(421, 4, 2, R::Timeout, "No message completed for too long. Closing"),
            Self::LoginOverdue => refused(421, 4, 2, R::Timeout, "No login for too long. Closing"),
            Self::TooManySessions => refused(421, 3, 2, R::Sessions, "Too many sessions at once; try again later"),
            Self::TooManySessionsOfClient => refused(421, 7, 0, R::Sessions, "Too many sessions from this address at once; try again later"),
            Self::TooManyMessages => refused(450, 7, 1, R::Rate, "Too many messages from this address; try again in a minute"),
            Self::ShuttingDown => refused(421, 3, 2, R::Shutdown, "Shutting down; try again later"),
        }
    }

    /// The answer as a reply.
    pub fn reply(self) -> Reply {
        let Row { code, enhanced, text, .. } = self.row();
        Reply { code, enhanced, lines: vec![text.to_owned()] }
    }

    /// The answer as a reply that goes on with what it is about.
    pub fn reply_about(self, detail: &str) -> Reply {
        let Row { code, enhanced, text, .. } = self.row();
        Reply { code, enhanced, lines: vec![format!("{text} {detail}")] }
    }

    /// Whether it counts towards the errors that one session may make. Limits that a client cannot know before it
    /// meets them do not.
    pub const fn is_error(self) -> bool {
        matches!(
            self.row().refusal,
            Some(
                Refusal::Protocol
                    | Refusal::Command
                    | Refusal::Sequence
                    | Refusal::Address
                    | Refusal::Tls
                    | Refusal::Login
            )
        )
    }

    /// Whether the server closes after it. Then what was received behind it is not looked at any more.
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::Bye
                | Self::BareLineEnd
                | Self::ControlCharacter
                | Self::LineTooLong
                | Self::NotSmtp
                | Self::HalfMessage
                | Self::TlsPipelined
                | Self::TooManyLogins
                | Self::NoChunking
                | Self::TooManyErrors
                | Self::Idle
                | Self::Overdue
                | Self::LoginOverdue
                | Self::TooManySessions
                | Self::TooManySessionsOfClient
                | Self::ShuttingDown
        )
    }
}

impl From<CommandError> for Answer {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unrecognised => Self::Unrecognised,
            CommandError::Argument => Self::Syntax,
            CommandError::Sender(AddressError::NoDomain) => Self::SenderWithoutDomain,
            CommandError::Sender(_) => Self::BadSender,
            CommandError::Recipient(AddressError::NoDomain) => Self::RecipientWithoutDomain,
            CommandError::Recipient(_) => Self::BadRecipient,
            CommandError::NonAscii => Self::NonAsciiAddress,
            CommandError::UnknownParameter => Self::UnknownParameter,
            CommandError::Parameter => Self::BadParameter,
        }
    }
}

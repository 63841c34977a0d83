//! Runs octets through a [`Session`] alone, without a socket.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mailroute_sidecar::message::envelope::{Address, BodyType, QueueId};
use mailroute_sidecar::smtp::auth::{Auth, Credentials, LoginResult};
use mailroute_sidecar::smtp::reply::Reply;
use mailroute_sidecar::smtp::session::{Session, Step};
use mailroute_sidecar::smtp::trace::{Arrival, Protocol, stamp};
use mailroute_sidecar::smtp::transaction::{Settings, Transaction};

/// A message that was taken: its envelope as the scripts write it, the lines put in front of it that name people, and
/// its octets.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub envelope: String,
    pub added: Vec<u8>,
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}] {}", self.envelope, self.added.escape_ascii(), self.content.escape_ascii())
    }
}

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub output: Vec<u8>,
    pub messages: Vec<Message>,
    pub closed: bool,
}

/// Gives the session one piece after the other, and answers `answer` for every message. TLS is taken as started when the client asks
/// for it, and what follows as said under it. Where a login is required, no message comes in without one.
pub fn converse<'a>(
    settings: Settings,
    answer: &Reply,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    // A field with raw UTF-8 grows when it is written as encoded words.
    let most = if settings.encode_header { 8 } else { 2 };
    let requires_login = settings.auth == Auth::Verified { required: true };
    let mut session = Session::new(Arc::new(settings));
    let (mut outcome, mut message) = (Outcome::default(), Vec::new());
    let mut total = 0;
    for piece in std::iter::once(&[][..]).chain(pieces) {
        let mut input = piece;
        loop {
            let offered = input.len();
            let step = session.step(&mut input, &mut message);
            total += offered - input.len();
            assert!(message.len() <= most * total + 2, "{total} octets became {}", message.len());
            match step {
                Step::Read => {
                    assert!(input.is_empty(), "more is wanted before all was taken");
                    break;
                }
                Step::Write(octets) => {
                    assert!(!octets.is_empty() && octets.len() < 8192, "{} octets at once", octets.len());
                    outcome.output.extend(octets);
                }
                Step::Begin | Step::Abandon => {
                    message.clear();
                    total = input.len();
                }
                Step::Store(transaction) => {
                    let t = transaction;
                    let is_logged_in = matches!(t.protocol, Protocol::EsmtpSa | Protocol::Utf8SmtpSa);
                    assert!(is_logged_in || !requires_login, "a message of a stranger");
                    let envelope = describe(&t.reverse_path, &t.recipients, t.body, t.smtp_utf8);
                    let (added, content) = (naming(&stamp_of(&t)), std::mem::take(&mut message));
                    outcome.messages.push(Message { envelope, added, content });
                    session.stored(answer);
                }
                Step::Verify(credentials) => session.verified(result_of(&credentials)),
                Step::StartTls(reply) => {
                    outcome.output.extend(reply);
                    session.secured();
                }
                Step::Refused(_) => {}
                Step::Close => {
                    outcome.closed = true;
                    return outcome;
                }
            }
        }
    }
    outcome
}

/// The password is `right`, and the user `later` cannot be verified.
fn result_of(credentials: &Credentials) -> LoginResult {
    match (credentials.user.as_str(), credentials.password.expose()) {
        ("later", _) => LoginResult::Unavailable,
        (_, "right") => LoginResult::Accepted,
        _ => LoginResult::Refused,
    }
}

/// An envelope as the scripts write it.
pub fn describe(from: &impl Display, to: &[Address], body: BodyType, smtp_utf8: bool) -> String {
    let mut words = vec![from.to_string()];
    words.extend(to.iter().map(|to| format!("<{to}>")));
    words.extend((body == BodyType::EightBitMime).then(|| "8BITMIME".into()));
    words.extend(smtp_utf8.then(|| "SMTPUTF8".into()));
    words.join(" ")
}

/// The lines that would be put in front of a message.
fn stamp_of(transaction: &Transaction) -> Vec<u8> {
    let at = "2026-11-22T03:02:28Z".parse().expect("a time");
    let original_to = transaction.original_to();
    let arrival = Arrival {
        client_name: &transaction.client_name,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        protocol: transaction.protocol,
        host_name: &transaction.settings.host_name,
        id: &QueueId::new(at, 7),
        at,
        author: transaction.author(),
        mailbox: transaction.settings.senders.mailbox.as_deref(),
        original_to: original_to.as_deref(),
        fields: &transaction.settings.fields,
    };
    stamp(&arrival, &transaction.headers).lines
}

/// Those lines of a stamp that name people: what stands between `Received` and `Date`.
pub fn naming(stamp: &[u8]) -> Vec<u8> {
    let lines = stamp.split_inclusive(|&b| b == b'\n').skip(1).skip_while(|line| line.starts_with(b"\t"));
    let is_ours = |line: &&[u8]| !line.starts_with(b"Date: ") && !line.starts_with(b"Message-ID: ");
    lines.take_while(is_ours).collect::<Vec<_>>().concat()
}

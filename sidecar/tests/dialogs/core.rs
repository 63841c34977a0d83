//! Runs octets through a [`Session`] alone, without a socket.

use std::fmt::Display;

use mailroute_sidecar::envelope::{Address, BodyType};
use mailroute_sidecar::smtp::reply::Reply;
use mailroute_sidecar::smtp::session::{Session, Step};
use mailroute_sidecar::smtp::transaction::Settings;

/// A message that was taken: its envelope as the scripts write it, and its octets.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub envelope: String,
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.envelope, self.content.escape_ascii())
    }
}

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub output: Vec<u8>,
    pub messages: Vec<Message>,
    pub closed: bool,
}

/// Gives the session one piece after the other, and answers `answer` for every message.
pub fn converse<'a>(
    settings: Settings,
    answer: &Reply,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let (mut session, mut outcome, mut message) = (Session::new(settings), Outcome::default(), Vec::new());
    for piece in std::iter::once(&[][..]).chain(pieces) {
        let mut input = piece;
        loop {
            let (held, offered) = (message.len(), input.len());
            let step = session.step(&mut input, &mut message);
            let taken = offered - input.len();
            assert!(
                message.len() <= held + 2 * taken + 2,
                "{taken} octets became {} more",
                message.len() - held
            );
            match step {
                Step::Read => {
                    assert!(input.is_empty(), "more is wanted before all was taken");
                    break;
                }
                Step::Write(octets) => {
                    assert!(!octets.is_empty() && octets.len() < 8192, "{} octets at once", octets.len());
                    outcome.output.extend(octets);
                }
                Step::Begin | Step::Abandon => message.clear(),
                Step::Store(transaction) => {
                    let t = transaction;
                    let envelope = describe(&t.reverse_path, &t.recipients, t.body, t.smtp_utf8);
                    outcome.messages.push(Message { envelope, content: std::mem::take(&mut message) });
                    session.stored(answer);
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

/// An envelope as the scripts write it.
pub fn describe(from: &impl Display, to: &[Address], body: BodyType, smtp_utf8: bool) -> String {
    let mut words = vec![from.to_string()];
    words.extend(to.iter().map(|to| format!("<{to}>")));
    words.extend((body == BodyType::EightBitMime).then(|| "8BITMIME".into()));
    words.extend(smtp_utf8.then(|| "SMTPUTF8".into()));
    words.join(" ")
}

//! Runs octets through a [`Session`] alone, without a socket.

use std::net::{IpAddr, Ipv4Addr};

use mailroute_sidecar::envelope::{BodyType, Envelope};
use mailroute_sidecar::smtp::reply::Reply;
use mailroute_sidecar::smtp::session::{Session, Step};
use mailroute_sidecar::smtp::transaction::{Settings, Transaction};

use super::script::Message;

/// The client of every test.
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a conversation came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub output: Vec<u8>,
    pub messages: Vec<Message>,
    pub closed: bool,
}

/// Gives the session one piece after the other, and answers `answer` for every message.
pub fn converse<'a>(settings: Settings, answer: &Reply, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut session, mut outcome, mut message) = (Session::new(settings), Outcome::default(), Vec::new());
    for piece in std::iter::once(&[][..]).chain(pieces) {
        let mut input = piece;
        loop {
            let (held, offered) = (message.len(), input.len());
            let step = session.step(&mut input, &mut message);
            let taken = offered - input.len();
            assert!(message.len() <= held + 2 * taken + 2, "{taken} octets became {} more", message.len() - held);
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
                    let content = std::mem::take(&mut message);
                    outcome.messages.push(Message { envelope: describe_transaction(&transaction), content });
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

fn describe_transaction(transaction: &Transaction) -> String {
    let Transaction { reverse_path, recipients, body, smtp_utf8, .. } = transaction;
    describe(reverse_path, recipients, *body, *smtp_utf8)
}

/// An envelope as the scripts write it.
pub fn describe_envelope(envelope: &Envelope) -> String {
    describe(&envelope.reverse_path, &envelope.recipients, envelope.body, envelope.smtp_utf8)
}

fn describe(
    from: &impl std::fmt::Display,
    to: &[mailroute_sidecar::envelope::Address],
    body: BodyType,
    smtp_utf8: bool,
) -> String {
    let mut words = vec![from.to_string()];
    words.extend(to.iter().map(|to| format!("<{to}>")));
    words.extend((body == BodyType::EightBitMime).then(|| "8BITMIME".into()));
    words.extend(smtp_utf8.then(|| "SMTPUTF8".into()));
    words.join(" ")
}

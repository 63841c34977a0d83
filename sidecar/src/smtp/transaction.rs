//! One message on its way in: its envelope, and what its octets show while they stream by.
//!
//! Owns the rules on content: size, NUL, endless lines, hops. Refuses to keep the octets, and to know commands.

use std::sync::Arc;

use super::answer::Answer;
use super::data::Decoder;
use super::header::{Headers, Scanner};
use crate::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use crate::trace::Protocol;

/// Hops behind which a message is taken to go in circles: what Exchange allows by default (MaxHopCount).
pub const MAX_HOPS: u32 = 30;

/// What the route says about the local side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name in the greeting, in `Received` lines and in the Message-IDs that are added: the route's EHLO name.
    pub host_name: Arc<str>,
    /// Largest message, octets; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
}

/// One message's envelope and header, as far as the session knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The settings that were current at MAIL.
    pub settings: Settings,
    /// Name in EHLO or HELO.
    pub client_name: String,
    /// How the message came in.
    pub protocol: Protocol,
    /// The argument of MAIL.
    pub reverse_path: ReversePath,
    /// The arguments of RCPT that were accepted.
    pub recipients: Vec<Address>,
    /// Declared or found content.
    pub body: BodyType,
    /// RFC 6531 is asked for.
    pub smtp_utf8: bool,
    /// Announced size.
    pub size: Option<u64>,
    /// What the header section holds.
    pub headers: Headers,
    /// Line ends were repaired.
    pub repaired: bool,
}

/// A message that is being taken in.
#[derive(Debug)]
pub struct Incoming {
    transaction: Box<Transaction>,
    decoder: Decoder,
    scanner: Scanner,
    len: u64,
    failed: Option<Answer>,
}

impl Transaction {
    /// The envelope, once the message has a name and a Message-ID.
    pub fn into_envelope(self, id: QueueId, message_id: String) -> Envelope {
        Envelope {
            id,
            message_id,
            client_name: self.client_name,
            reverse_path: self.reverse_path,
            recipients: self.recipients,
            body: self.body,
            smtp_utf8: self.smtp_utf8,
            size: self.size,
        }
    }
}

impl Incoming {
    /// The message of a transaction whose recipients are known.
    pub fn new(transaction: Box<Transaction>) -> Self {
        Self { transaction, decoder: Decoder::default(), scanner: Scanner::default(), len: 0, failed: None }
    }

    /// Takes octets from `input`; true at the end of the data. A message that will be refused is read to its end all
    /// the same: the client would take an earlier answer for an answer to something else.
    pub fn take(&mut self, input: &mut &[u8], message: &mut Vec<u8>) -> bool {
        let start = message.len();
        let decoded = self.decoder.decode(input, message);
        *input = &input[decoded.taken..];
        let octets = &message[start..];
        self.len += octets.len() as u64;
        self.scanner.scan(octets);
        if self.refusal().is_some() {
            message.clear();
        }
        decoded.ended
    }

    /// Refuses the message for a reason that lies outside of it.
    pub fn fail(&mut self, answer: Answer) {
        self.failed.get_or_insert(answer);
    }

    /// Why the message is refused, if it is. Depends on all of what came in, not on what was noticed first, so that
    /// the answer is the same however the octets were cut.
    pub fn refusal(&self) -> Option<Answer> {
        let traits = self.decoder.traits();
        match () {
            () if self.len > self.transaction.settings.max_message_bytes => Some(Answer::TooLarge),
            () if traits.nul => Some(Answer::NulInMessage),
            () if traits.endless_line => Some(Answer::TextLineTooLong),
            () if self.scanner.headers().received > MAX_HOPS => Some(Answer::MailLoop),
            () => self.failed,
        }
    }

    /// The transaction, with what the message showed.
    pub fn finish(self) -> Box<Transaction> {
        let (mut transaction, traits) = (self.transaction, self.decoder.traits());
        transaction.headers = self.scanner.finish();
        transaction.repaired = traits.bare_line_end;
        if traits.eight_bit {
            transaction.body = BodyType::EightBitMime;
        }
        transaction
    }
}

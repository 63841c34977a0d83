//! One message on its way in: its envelope, and what its octets show while they stream by.
//!
//! Owns the rules on recipients and on content: size, NUL, line ends, hops. Refuses to keep the octets, and to know
//! commands.

use std::sync::Arc;

use mailroute_route::file::BareLineEnds;

use super::answer::Answer;
use super::auth::Auth;
use super::data::Decoder;
use super::header::rules::FieldRules;
use super::header::{Headers, Pass};
use super::mailboxes::Mailboxes;
use super::recipients::{self, Recipients};
use super::reply::Reply;
use super::senders::Senders;
use crate::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use crate::smtp::trace::Protocol;

/// Hops behind which a message is taken to go in circles: what Exchange allows by default (MaxHopCount).
pub const MAX_HOPS: u32 = 30;

/// Whether STARTTLS is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// Never: on localhost.
    #[default]
    No,
    /// Not now: there is no certificate.
    Unavailable,
    /// Yes.
    Offered,
}

/// What the route says about the local side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name in the greeting, in `Received` lines and in the Message-IDs that are added: the route's EHLO name.
    pub host_name: Box<str>,
    /// Largest message, octets; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
    /// Most of them in one domain. None: no bound, since what is kept can be sent in parts.
    pub max_recipients_of_one_domain: Option<u32>,
    /// The only domains that recipients may be in (Direct Send, High Volume Email). None: any.
    pub recipient_domains: Option<Vec<Box<str>>>,
    /// What others are told.
    pub other_domains: Answer,
    /// Whether the null sender is taken.
    pub null_sender: bool,
    /// The mailboxes that the sender chooses among; nothing where there is no choice, or it is made.
    pub mailboxes: Option<Arc<Mailboxes>>,
    /// Who may be named as the sender.
    pub senders: Senders,
    /// Whom messages may go to. None: anybody.
    pub recipients: Option<Recipients>,
    /// Who gets a copy of each message.
    pub archive: Option<Address>,
    /// Header fields that are removed or set.
    pub fields: Arc<FieldRules>,
    /// The upstream takes the recipients from the header (Graph).
    pub header_is_envelope: bool,
    /// Whether clients log in.
    pub auth: Auth,
    /// Whether TLS is offered.
    pub start_tls: StartTls,
    /// What happens to a CR or LF alone in a message.
    pub bare_line_ends: BareLineEnds,
    /// Raw UTF-8 in the header is written as encoded words, unless the message came with SMTPUTF8.
    pub encode_header: bool,
}

impl Settings {
    /// A name and bounds, without any rule and without AUTH.
    pub fn new(host_name: impl Into<Box<str>>, max_message_bytes: u64, max_recipients: u32) -> Self {
        Self {
            host_name: host_name.into(),
            max_message_bytes,
            max_recipients,
            max_recipients_of_one_domain: None,
            recipient_domains: None,
            other_domains: Answer::RecipientNotAllowed,
            null_sender: true,
            mailboxes: None,
            senders: Senders::default(),
            recipients: None,
            archive: None,
            fields: Arc::default(),
            header_is_envelope: false,
            auth: Auth::Off,
            start_tls: StartTls::No,
            bare_line_ends: BareLineEnds::Normalize,
            encode_header: false,
        }
    }
}

/// One message's envelope and header, as far as the session knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The settings that were current at MAIL.
    pub settings: Arc<Settings>,
    /// Name in EHLO or HELO.
    pub client_name: String,
    /// How the message came in.
    pub protocol: Protocol,
    /// The argument of MAIL, or the mailbox in its place.
    pub reverse_path: ReversePath,
    /// The mailbox that sends it, where the route has several.
    pub mailbox: Option<Address>,
    /// The arguments of RCPT that were accepted, but for those that the route redirects: for all of them, the one address
    /// that gets the message.
    pub recipients: Vec<Address>,
    /// The arguments of RCPT that the route redirects.
    pub redirected: Vec<Address>,
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
    header: Pass,
    /// Decoded octets on their way through the header, empty in between.
    decoded: Vec<u8>,
    len: u64,
    failed: Option<Answer>,
}

impl Transaction {
    /// Whether another recipient may be added.
    ///
    /// # Errors
    /// With what the client is told, and the end of its text.
    pub fn admit(&self, address: &Address) -> Result<(), (Answer, String)> {
        let Settings { recipient_domains, other_domains, .. } = &*self.settings;
        if !address.is_ascii() && !self.smtp_utf8 {
            return Err((Answer::NonAsciiAddress, String::new()));
        }
        let target = match self.judge(address) {
            recipients::Judgement::Allowed => address,
            recipients::Judgement::Redirected(to) => to,
            recipients::Judgement::Refused(allowed) => return Err((Answer::RecipientNotListed, allowed)),
        };
        let domain = target.domain();
        let is_ours = |domains: &Vec<Box<str>>| domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain));
        match recipient_domains {
            Some(domains) if !is_ours(domains) => Err((*other_domains, domains.join(", "))),
            _ if self.named() >= self.settings.max_recipients as usize => {
                Err((Answer::TooManyRecipients, String::new()))
            }
            _ if self.is_full(domain) => Err((Answer::TooManyOfOneDomain, String::new())),
            _ => Ok(()),
        }
    }

    /// Adds a recipient that was admitted. The address that gets what is redirected is in the envelope once.
    pub fn add(&mut self, address: Address) {
        let redirect_to = match self.judge(&address) {
            recipients::Judgement::Redirected(to) => Some(to.clone()),
            recipients::Judgement::Allowed | recipients::Judgement::Refused(_) => None,
        };
        let target = match redirect_to {
            Some(to) => {
                self.redirected.push(address);
                to
            }
            None => address,
        };
        let is_known = self.recipients.iter().any(|to| recipients::is_same(to, &target));
        if self.redirected.is_empty() || !is_known {
            self.recipients.push(target);
        }
    }

    fn judge(&self, address: &Address) -> recipients::Judgement<'_> {
        let rule = self.settings.recipients.as_ref();
        rule.map_or(recipients::Judgement::Allowed, |rule| rule.judge(address))
    }

    /// How many recipients the client has named.
    fn named(&self) -> usize {
        self.recipients.len() + self.redirected.len().saturating_sub(1)
    }

    /// The field that names whom the route redirects, if anybody.
    pub fn original_to(&self) -> Option<String> {
        let redirects = !self.redirected.is_empty();
        redirects.then(|| recipients::original_to(&self.redirected, self.recipients.len() > 1))
    }

    /// Whether the message has as many recipients in `domain` as one message may have.
    fn is_full(&self, domain: &str) -> bool {
        let Some(most) = self.settings.max_recipients_of_one_domain.map(|most| most as usize) else {
            return false;
        };
        let of_domain = |to: &&Address| to.domain().eq_ignore_ascii_case(domain);
        self.recipients.len() >= most && self.recipients.iter().filter(of_domain).count() >= most
    }

    /// Whom to name in `From` when the message names nobody: the sender of the envelope, or the mailbox.
    pub fn author(&self) -> Option<&str> {
        self.reverse_path.address().map(Address::as_str).or(self.settings.senders.mailbox.as_deref())
    }

    /// Who gets a copy besides the recipients; nobody when the archive is one of them.
    pub fn archive(&self) -> Option<&Address> {
        let archive = self.settings.archive.as_ref()?;
        let is_named = self.recipients.iter().any(|to| recipients::is_same(to, archive));
        Some(archive).filter(|_| !is_named)
    }

    /// The envelope, once the message has a name and a Message-ID.
    pub fn into_envelope(mut self, id: QueueId, message_id: String) -> Envelope {
        let archive = self.archive().cloned();
        self.recipients.extend(archive.clone());
        Envelope {
            id,
            message_id,
            client_name: self.client_name,
            reverse_path: self.reverse_path,
            recipients: self.recipients,
            archive,
            mailbox: self.mailbox,
            body: self.body,
            smtp_utf8: self.smtp_utf8,
            size: self.size,
        }
    }
}

impl Incoming {
    /// The message of a transaction whose recipients are known.
    pub fn new(transaction: Box<Transaction>) -> Self {
        let settings = &transaction.settings;
        let mut header = Pass::new(settings.encode_header && !transaction.smtp_utf8);
        if !settings.fields.is_empty() {
            header = header.ruled(Arc::clone(&settings.fields));
        }
        if !transaction.redirected.is_empty() {
            header = header.redirected(settings.header_is_envelope);
        }
        Self { transaction, decoder: Decoder::default(), header, decoded: Vec::new(), len: 0, failed: None }
    }

    /// Takes octets from `input`; true at the end of the data. A message that will be refused is read to its end all
    /// the same: the client would take an earlier answer for an answer to something else.
    pub fn take(&mut self, input: &mut &[u8], message: &mut Vec<u8>) -> bool {
        let ended = if self.header.is_through() {
            self.decode(input, message)
        } else {
            let mut decoded = std::mem::take(&mut self.decoded);
            let ended = self.decode(input, &mut decoded);
            self.header.pass(&decoded, message, &self.transaction.settings.senders);
            // Not kept for the body, which goes straight to the message.
            if !self.header.is_through() {
                decoded.clear();
                self.decoded = decoded;
            }
            ended
        };
        if ended {
            self.header.end(message, &self.transaction.settings.senders);
        }
        if self.refusal().is_some() {
            message.clear();
        }
        ended
    }

    fn decode(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> bool {
        let start = output.len();
        let decoded = self.decoder.decode(input, output);
        *input = &input[decoded.taken..];
        self.len += (output.len() - start) as u64;
        decoded.ended
    }

    /// Refuses the message for a reason that lies outside of it.
    pub fn fail(&mut self, answer: Answer) {
        self.failed.get_or_insert(answer);
    }

    /// Why the message is refused, if it is. Depends on all of what came in, not on what was noticed first, so that
    /// the answer is the same however the octets were cut.
    pub fn refusal(&self) -> Option<Answer> {
        let (traits, settings) = (self.decoder.traits(), &self.transaction.settings);
        match () {
            () if self.len > settings.max_message_bytes => Some(Answer::TooLarge),
            () if traits.nul => Some(Answer::NulInMessage),
            () if traits.endless_line => Some(Answer::TextLineTooLong),
            () if traits.bare_line_end && settings.bare_line_ends == BareLineEnds::Refuse => {
                Some(Answer::BareLineEndInMessage)
            }
            () => self.header.refusal().or(self.failed),
        }
    }

    /// What the client is told when the message is refused with `answer`.
    pub fn refusal_reply(&self, answer: Answer) -> Reply {
        match (answer, self.header.foreign_sender()) {
            (Answer::SenderNotAllowed, Some(who)) => answer.reply_about(who),
            _ => answer.reply(),
        }
    }

    /// The transaction, with what the message showed.
    pub fn finish(self) -> Box<Transaction> {
        let (mut transaction, traits) = (self.transaction, self.decoder.traits());
        transaction.headers = self.header.finish();
        transaction.repaired = traits.bare_line_end;
        if traits.eight_bit {
            transaction.body = BodyType::EightBitMime;
        }
        transaction
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn envelope(archive: &str, to: &[&str]) -> Envelope {
        let address = |text: &str| Address::parse(text).unwrap();
        let settings = Settings { archive: Some(address(archive)), ..Settings::new("h", 100, 10) };
        let transaction = Transaction {
            settings: Arc::new(settings),
            client_name: "app".into(),
            protocol: Protocol::Esmtp,
            reverse_path: ReversePath::Null,
            mailbox: None,
            recipients: to.iter().copied().map(address).collect(),
            redirected: vec![],
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
            headers: Headers::default(),
            repaired: false,
        };
        transaction.into_envelope(QueueId::new(Timestamp::UNIX_EPOCH, 1), "<1@h>".into())
    }

    #[test]
    fn the_archive_is_one_more_recipient_unless_it_is_one_already() {
        let added = envelope("archive@a", &["ann@b", "bob@b"]);
        assert_eq!((added.recipients.len(), added.archive_position()), (3, Some(2)));
        assert_eq!(added.own_recipients(), &added.recipients[..2]);
        let named = envelope("archive@a", &["ann@b", "Archive@A"]);
        assert_eq!((named.recipients.len(), named.archive_position()), (2, None));
        assert_eq!(named.own_recipients(), named.recipients);
        let alone = Envelope { recipients: vec![added.recipients[2].clone()], ..added };
        assert_eq!((alone.archive_position(), alone.own_recipients().len()), (Some(0), 1));
    }
}

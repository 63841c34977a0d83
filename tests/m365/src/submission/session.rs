//! One SMTP conversation as a value: bytes in, steps out.
//!
//! ```text
//!  Command ⇄ Challenge (AUTH in steps)      Command ─► Data / Chunk ─► Command      any ─► Closed
//! ```
//! Invariants: nothing is done for a command line before its CRLF; input behind STARTTLS and behind the end of a
//! conversation is thrown away; a refusal is never sent faster than the tarpit allows. What happened is noted in the
//! [`Office`]. It refuses to know sockets and clocks.

use jiff::Timestamp;

use super::{
    authentication::{Challenge, Login},
    command::Command,
    data::{Content, DataReader},
    service::Allowance,
    speech::ehlo_lines,
    transaction::Transaction,
};
use crate::{
    dialogue::Speaker,
    faults::Stage,
    mailbox::{ConnectionFacts, Face},
    office::Office,
    relay::PresentedCertificate,
    replies::Line,
    violations::Kind,
};

/// What the connection is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Wait so many milliseconds.
    Wait(u64),
    /// From here on wait so many milliseconds after each byte that is sent.
    Drip(u64),
    /// Begin the TLS handshake; afterwards call [`Session::secured`].
    StartTls,
    /// The reply to a message is out: give up the place among submitting connections.
    Submitted,
    /// Close the connection in good order.
    Close,
    /// Cut the connection.
    Cut,
}

/// What a TLS handshake told.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// Negotiated version, such as `TLSv1_3`.
    pub version: String,
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// The client's certificate.
    pub certificate: Option<PresentedCertificate>,
}

/// Who speaks with whom.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The connection as it will be recorded.
    pub facts: ConnectionFacts,
    /// Our front-end host, such as `FR0P281CA0064`.
    pub host: String,
    /// Session id, 16 hexadecimal digits in upper case.
    pub session: String,
}

/// The conversation.
#[derive(Debug)]
pub struct Session {
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    pub(super) login: Option<Login>,
    /// Text of the refusal when AUTH failed; MAIL quotes it.
    pub(super) failed_login: Option<String>,
    pub(super) transaction: Option<Transaction>,
    pub(super) buffer: Vec<u8>,
    /// Whether the banner was sent.
    begun: bool,
    greeted: bool,
    pub(super) errors: u32,
}

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Phase {
    /// A command line.
    Command,
    /// The answer to a challenge of AUTH.
    Challenge(Challenge),
    /// The message.
    Data(DataReader),
    /// So many bytes of a chunk; whether it is the last, and whether it was refused with its command.
    Chunk { size: usize, left: usize, last: bool, is_refused: bool },
    /// Nothing; input is thrown away.
    Closed,
}

/// One turn of the conversation: what is known and what came of it.
pub(super) struct Turn<'a> {
    pub office: &'a mut Office,
    pub now: Timestamp,
    pub steps: Vec<Step>,
}

impl Session {
    /// A conversation that is about to begin.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            phase: Phase::Command,
            login: None,
            failed_login: None,
            transaction: None,
            buffer: Vec::new(),
            begun: false,
            greeted: false,
            errors: 0,
        }
    }

    /// The banner.
    pub fn greet(&mut self, office: &mut Office, now: Timestamp) -> Vec<Step> {
        self.begun = true;
        let mut turn = Turn { office, now, steps: Vec::new() };
        self.staged(Some(Stage::Connect), &mut turn, |session, turn| session.say(turn, Line::Banner));
        self.record_steps(&mut turn);
        turn.steps
    }

    /// The handshake is done: the conversation begins anew (RFC 3207 section 4.2).
    pub fn secured(&mut self, handshake: Handshake, office: &mut Office, now: Timestamp) {
        let Handshake { version, sni, certificate } = handshake;
        let (id, face) = (self.peer.facts.id, self.peer.facts.face);
        office.check_server_name(now, id, face, sni.as_deref());
        let reason = certificate.as_ref().and_then(|certificate| certificate.distrusted.clone());
        if let Some(reason) = reason {
            let detail = format!("the client's certificate does not chain to a trusted root: {reason}");
            office.violation(now, id, Kind::UntrustedCertificate, detail);
        }
        let asked = sni.as_deref().unwrap_or("none");
        office.transcribe(now, id, Speaker::Event, &format!("({version}, server name {asked})"));
        let facts = ConnectionFacts {
            tls_version: Some(version),
            sni,
            certificate,
            ehlo: String::new(),
            ..self.peer.facts.clone()
        };
        *self = Self { begun: true, ..Self::new(Peer { facts, ..self.peer.clone() }) };
    }

    /// Takes bytes from the client.
    pub fn receive(&mut self, bytes: &[u8], office: &mut Office, now: Timestamp) -> Vec<Step> {
        let mut turn = Turn { office, now, steps: Vec::new() };
        self.buffer.extend_from_slice(bytes);
        while self.advance(&mut turn) {}
        self.record_steps(&mut turn);
        turn.steps
    }

    /// Nothing came for too long.
    pub fn timed_out(&mut self, office: &mut Office, now: Timestamp) -> Vec<Step> {
        let mut turn = Turn { office, now, steps: Vec::new() };
        self.say(&mut turn, Line::TimedOut);
        self.close(&mut turn, Step::Close);
        self.record_steps(&mut turn);
        turn.steps
    }

    /// The reply to a message was sent.
    pub fn submitted(&mut self, office: &mut Office) {
        if let Some(login) = &self.login {
            office.usage.leave(&login.mailbox, self.peer.facts.id);
        }
    }

    /// The connection is gone.
    pub fn ended(&mut self, office: &mut Office, now: Timestamp) {
        self.submitted(office);
        if !matches!(self.phase, Phase::Closed) && !self.buffer.is_empty() {
            let detail =
                format!("the connection ended with {} bytes of an unfinished line", self.buffer.len());
            office.violation(now, self.peer.facts.id, Kind::UnfinishedLine, detail);
        }
    }

    /// Whether nothing more will be said.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether not even the banner was sent.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        !self.begun
    }

    /// Number of the connection.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.peer.facts.id
    }

    pub(super) fn carry_out(&mut self, turn: &mut Turn<'_>, command: Command) {
        match command {
            Command::Ehlo(name) => self.hello(turn, name, true),
            Command::Helo(name) => self.hello(turn, name, false),
            Command::StartTls => self.start_tls(turn),
            Command::Auth(mechanism, initial) => self.authenticate(turn, &mechanism, initial),
            Command::Mail(path) => self.mail(turn, path),
            Command::Rcpt(path) => self.recipient(turn, path),
            Command::Data => self.data(turn),
            Command::Bdat(size, last) => self.chunk(turn, size, last),
            Command::Rset => {
                self.transaction = None;
                self.submitted(turn.office);
                self.say(turn, Line::Resetting);
            }
            Command::Noop => self.say(turn, Line::Ok),
            Command::Vrfy => self.say(turn, Line::CannotVerify),
            Command::Quit => {
                self.say(turn, Line::Closing);
                self.close(turn, Step::Close);
            }
        }
    }

    fn hello(&mut self, turn: &mut Turn<'_>, name: String, extended: bool) {
        self.greeted = true;
        self.transaction = None;
        self.peer.facts.ehlo = name;
        if !extended {
            return self.say(turn, Line::Hello);
        }
        let first = self.filled(turn, Line::Hello.text(), &[]);
        let size = Allowance::of(self.peer.facts.face, &turn.office.config).size;
        let reply = ehlo_lines(&first, self.extension(turn.office), size);
        turn.steps.push(Step::Send(reply.into_bytes()));
    }

    /// The extension whose place in EHLO depends on TLS.
    fn extension(&self, office: &Office) -> Option<&'static str> {
        let face = self.peer.facts.face;
        if self.is_secure() {
            (face != Face::Relay).then_some("AUTH LOGIN XOAUTH2")
        } else {
            let withheld = office.faults.of(face).is_some_and(|faults| faults.without_start_tls);
            (!withheld).then_some("STARTTLS")
        }
    }

    fn start_tls(&mut self, turn: &mut Turn<'_>) {
        let faults = turn.office.faults.of(self.peer.facts.face);
        let withheld = faults.is_some_and(|faults| faults.without_start_tls);
        if self.is_secure() || withheld {
            turn.violation(self, Kind::Protocol, "STARTTLS where it was not offered");
            return self.refuse(turn, Line::BadSequence);
        }
        if !self.greeted {
            return self.refuse(turn, Line::HelloFirst);
        }
        self.say(turn, Line::TlsReady);
        turn.steps.push(Step::StartTls);
        self.buffer.clear();
    }

    pub(super) fn end_of_data(&mut self, turn: &mut Turn<'_>, content: Content) {
        self.record_message(turn, content.length);
        self.staged(Some(Stage::EndOfData), turn, |session, turn| match session.peer.facts.face {
            Face::Relay => session.relay_accept(turn, content),
            _ => session.accept(turn, content),
        });
        turn.steps.push(Step::Submitted);
    }

    /// Whether the conversation is inside TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.peer.facts.tls_version.is_some()
    }

    /// Whether EHLO or HELO came.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }
}

impl Turn<'_> {
    /// Notes a breach of this conversation.
    pub(super) fn violation(&mut self, session: &Session, kind: Kind, detail: impl Into<String>) {
        self.office.violation(self.now, session.id(), kind, detail);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

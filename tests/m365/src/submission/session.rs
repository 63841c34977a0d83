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
    speech::ehlo_lines,
    transaction::Transaction,
};
use crate::{
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
    pub(crate) peer: Peer,
    pub(super) phase: Phase,
    pub(super) login: Option<Login>,
    /// Text of the refusal when AUTH failed; MAIL quotes it.
    pub(super) failed_login: Option<String>,
    pub(crate) transaction: Option<Transaction>,
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
    /// So many bytes of a chunk; whether it is the last.
    Chunk { size: usize, left: usize, last: bool },
    /// Nothing; input is thrown away.
    Closed,
}

/// One turn of the conversation: what is known and what came of it.
pub(crate) struct Turn<'a> {
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
        turn.steps
    }

    /// Nothing came for too long.
    pub fn timed_out(&mut self, office: &mut Office, now: Timestamp) -> Vec<Step> {
        let mut turn = Turn { office, now, steps: Vec::new() };
        self.say(&mut turn, Line::TimedOut);
        self.close(&mut turn, Step::Close);
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
        let reply =
            ehlo_lines(&first, self.extension(turn.office), turn.office.config.limits.advertised_size);
        turn.steps.push(Step::Send(reply.into_bytes()));
    }

    /// The extension whose place in EHLO depends on TLS.
    fn extension(&self, office: &Office) -> Option<&'static str> {
        let face = self.peer.facts.face;
        if self.is_secure() {
            (face == Face::Submission).then_some("AUTH LOGIN XOAUTH2")
        } else {
            (!office.faults.of(face).without_start_tls).then_some("STARTTLS")
        }
    }

    fn start_tls(&mut self, turn: &mut Turn<'_>) {
        let withheld = turn.office.faults.of(self.peer.facts.face).without_start_tls;
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
        self.staged(Some(Stage::EndOfData), turn, |session, turn| match session.peer.facts.face {
            Face::Submission => session.accept(turn, content),
            Face::Relay => session.relay_accept(turn, content),
        });
        turn.steps.push(Step::Submitted);
    }

    /// Whether the conversation is inside TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.peer.facts.tls_version.is_some()
    }

    /// Whether EHLO or HELO came.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeted
    }
}

impl Turn<'_> {
    /// Notes a breach of this conversation.
    pub(crate) fn violation(&mut self, session: &Session, kind: Kind, detail: impl Into<String>) {
        self.office.violation(self.now, session.id(), kind, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, OverRate},
        directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT},
        entra::AccessTokenKey,
        faults::{Rule, SmtpAction},
        submission::{line::MAX_LINE, xoauth2},
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn office() -> Office {
        Office::new(Config::contoso(), AccessTokenKey::generate(), vec!["localhost".into()])
    }

    /// A conversation that is logged in.
    fn logged_in(office: &mut Office) -> Session {
        let mut session = Session::new(Peer::default());
        let handshake =
            Handshake { version: "TLSv1_3".into(), sni: Some("localhost".into()), certificate: None };
        session.secured(handshake, office, now());
        let payload = xoauth2::render(SAMPLE_MAILBOX, &office.sample_token(SAMPLE_SUBJECT, now(), 600));
        session.receive(format!("EHLO a\r\nAUTH XOAUTH2 {payload}\r\n").as_bytes(), office, now());
        assert!(session.login.is_some());
        session
    }

    fn waits(steps: &[Step]) -> Vec<u64> {
        steps.iter().filter_map(|step| if let Step::Wait(time) = step { Some(*time) } else { None }).collect()
    }

    #[test]
    fn a_permanent_refusal_waits_and_nothing_else_does() {
        let mut office = office();
        let mut session = Session::new(Peer::default());
        assert_eq!(waits(&session.receive(b"EHLO a\r\nNOOP\r\n", &mut office, now())), Vec::<u64>::new());
        let steps = session.receive(b"XYZZY\r\n", &mut office, now());
        assert!(
            matches!(&steps[..], [Step::Wait(5000), Step::Send(text)] if text.starts_with(b"500 5.3.3 "))
        );
    }

    #[test]
    fn over_the_rate_mail_may_be_delayed_until_the_minute_has_room() {
        let mut office = office();
        office.config.limits.messages_per_minute = 1;
        office.config.limits.over_rate = OverRate::Delay;
        let mut session = logged_in(&mut office);
        let mail = b"MAIL FROM:<noreply@contoso.com>\r\nRSET\r\n";
        assert_eq!(waits(&session.receive(mail, &mut office, now())), Vec::<u64>::new());
        assert_eq!(waits(&session.receive(mail, &mut office, now())), [60_000]);
    }

    /// A service with one fault at a stage.
    fn office_with(stage: Stage, action: SmtpAction) -> Office {
        let mut office = office();
        office.faults.submission.rules = vec![Rule::always(stage, action)];
        office
    }

    #[test]
    fn a_reply_may_be_dripped_and_the_next_one_is_not() {
        let mut office = office_with(Stage::Ehlo, SmtpAction::Drip(7));
        let mut session = Session::new(Peer::default());
        let steps = session.receive(b"HELO a\r\nNOOP\r\n", &mut office, now());
        assert!(
            matches!(&steps[..], [Step::Drip(7), Step::Send(_), Step::Drip(0), Step::Send(noop)] if noop.starts_with(b"250 2.0.0"))
        );
    }

    #[test]
    fn plaintext_may_come_in_the_packet_of_the_reply_to_starttls() {
        let mut office = office_with(Stage::StartTls, SmtpAction::Append("250 injected\r\n".into()));
        let mut session = Session::new(Peer::default());
        let steps = session.receive(b"HELO a\r\nSTARTTLS\r\n", &mut office, now());
        let [Step::Send(_), Step::Send(reply), Step::StartTls] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(reply, b"220 2.0.0 SMTP server ready\r\n250 injected\r\n");
    }

    #[test]
    fn a_message_takes_its_time_before_its_reply() {
        let mut office = office();
        office.config.pace.message_milliseconds = 50;
        let mut session = logged_in(&mut office);
        let message = b"MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n\
                        From: noreply@contoso.com\r\n\r\n.\r\n";
        assert_eq!(waits(&session.receive(message, &mut office, now())), [50]);
    }

    #[test]
    fn a_line_without_end_is_cut_off_early() {
        let (mut office, mut session) = (office(), Session::new(Peer::default()));
        session.receive(&vec![b'x'; MAX_LINE + 1], &mut office, now());
        assert!(session.is_over());
        session.receive(&vec![b'x'; 1 << 20], &mut office, now());
        assert_eq!(session.buffer.len(), 0);
    }

    #[test]
    fn no_input_makes_the_session_fail_or_grow() {
        let words: [&[u8]; 14] = [
            b"EHLO a",
            b"MAIL FROM:<noreply@contoso.com>",
            b"RCPT TO:<a@b.example>",
            b"DATA",
            b"BDAT 5 LAST",
            b"BDAT 0",
            b"RSET",
            b"AUTH XOAUTH2",
            b"AUTH LOGIN",
            b"\r\n",
            b"\n",
            b".",
            b"\0\xff",
            b" ",
        ];
        // A linear congruential generator (Numerical Recipes): the same conversations on every run.
        let mut state = 1_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..300 {
            let mut office = office();
            let mut session = logged_in(&mut office);
            for _ in 0..60 {
                let word = words[next(words.len())];
                session.receive(word, &mut office, now());
                if next(3) > 0 {
                    session.receive(b"\r\n", &mut office, now());
                }
                assert!(session.buffer.len() <= MAX_LINE);
            }
            session.ended(&mut office, now());
        }
    }
}

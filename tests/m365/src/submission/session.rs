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
    transaction::Transaction,
};
use crate::{
    faults::{SmtpAction, Stage},
    mailbox::ConnectionFacts,
    office::Office,
    replies::{Line, fill},
    violations::Kind,
};

/// Longest command line, line end excluded: RFC 4954 section 4 allows 12 288 octets for AUTH.
const MAX_LINE: usize = 12_288;

/// Refused commands after which Exchange hangs up (`MaxProtocolErrors`).
const MAX_ERRORS: u32 = 5;

/// What the connection is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Wait so many milliseconds.
    Wait(u64),
    /// Begin the TLS handshake; afterwards call [`Session::secured`].
    StartTls,
    /// The reply to a message is out: give up the place among submitting connections.
    Submitted,
    /// Close the connection in good order.
    Close,
    /// Cut the connection.
    Cut,
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
    buffer: Vec<u8>,
    /// Whether the banner was sent.
    begun: bool,
    greeted: bool,
    errors: u32,
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
        turn.steps
    }

    /// The handshake is done: the conversation begins anew (RFC 3207 section 4.2).
    pub fn secured(
        &mut self,
        version: Option<String>,
        sni: Option<String>,
        office: &mut Office,
        now: Timestamp,
    ) {
        office.check_server_name(now, self.peer.facts.id, sni.as_deref());
        let fresh = Self::new(Peer {
            facts: ConnectionFacts {
                tls_version: version,
                sni,
                ehlo: String::new(),
                ..self.peer.facts.clone()
            },
            ..self.peer.clone()
        });
        *self = Self { begun: true, ..fresh };
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

    /// Uses up some of the buffer; false when it needs more.
    fn advance(&mut self, turn: &mut Turn<'_>) -> bool {
        match &mut self.phase {
            Phase::Closed => {
                self.buffer.clear();
                false
            }
            Phase::Data(reader) => {
                let (used, content) = reader.read(&self.buffer);
                self.buffer.drain(..used);
                content.is_some_and(|content| {
                    self.phase = Phase::Command;
                    self.end_of_data(turn, content);
                    true
                })
            }
            Phase::Chunk { .. } => self.take_chunk(turn),
            Phase::Command | Phase::Challenge(_) => self.take_line(turn),
        }
    }

    fn take_chunk(&mut self, turn: &mut Turn<'_>) -> bool {
        let Phase::Chunk { size, left, last } = &mut self.phase else { return false };
        let used = (*left).min(self.buffer.len());
        *left -= used;
        let (size, done, last) = (*size, *left == 0, *last);
        let keep = turn.office.config.limits.advertised_size + 1;
        let chunk: Vec<u8> = self.buffer.drain(..used).collect();
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks.push_chunk(&chunk, keep);
        }
        if !done {
            return false;
        }
        self.phase = Phase::Command;
        if last {
            let content =
                self.transaction.as_mut().map(|open| std::mem::take(&mut open.chunks)).unwrap_or_default();
            self.end_of_data(turn, content);
        } else {
            self.say_with(turn, Line::ChunkOk.text(), &[("octets", &size.to_string())]);
        }
        true
    }

    fn take_line(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            if self.buffer.len() > MAX_LINE {
                turn.violation(self, Kind::Protocol, "a command line without end");
                self.say(turn, Line::LineTooLong);
                self.close(turn, Step::Close);
            }
            return false;
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        match complete_line(&line) {
            Ok(text) => self.obey_line(turn, &text),
            Err((kind, detail)) => {
                turn.violation(self, kind, detail);
                self.refuse(turn, Line::Unrecognized);
            }
        }
        true
    }

    fn obey_line(&mut self, turn: &mut Turn<'_>, line: &str) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Challenge(challenge) => {
                self.staged(None, turn, |session, turn| session.answer(turn, challenge, line));
            }
            _ => match Command::parse(line) {
                Ok(command) => self.obey(turn, command),
                Err(reply) => {
                    let verb = line.split(' ').next().unwrap_or_default();
                    let kind =
                        if reply == Line::InvalidDomain { Kind::InvalidEhloName } else { Kind::Protocol };
                    turn.violation(self, kind, format!("{} is answered {}", printable(verb), reply.text()));
                    self.refuse(turn, reply);
                }
            },
        }
    }

    fn obey(&mut self, turn: &mut Turn<'_>, command: Command) {
        if command.ends_group() && !self.buffer.is_empty() {
            self.note_pipelined(turn, &command);
        }
        self.staged(command.stage(), turn, |session, turn| session.carry_out(turn, command));
    }

    fn note_pipelined(&mut self, turn: &mut Turn<'_>, command: &Command) {
        if *command == Command::StartTls {
            let detail = format!("{} bytes behind STARTTLS were thrown away", self.buffer.len());
            turn.violation(self, Kind::DataBehindStartTls, detail);
            self.buffer.clear();
        } else {
            let detail =
                format!("{} bytes were sent behind a command that must end its group", self.buffer.len());
            turn.violation(self, Kind::PipeliningPastGroup, detail);
        }
    }

    /// Runs `work` as the faults of `stage` have it.
    pub(super) fn staged(
        &mut self,
        stage: Option<Stage>,
        turn: &mut Turn<'_>,
        work: impl FnOnce(&mut Self, &mut Turn<'_>),
    ) {
        let (delay, action) = stage.map_or((0, None), |stage| turn.office.faults.submission.take(stage));
        if delay > 0 {
            turn.steps.push(Step::Wait(delay));
        }
        let before = turn.steps.len();
        match action {
            Some(SmtpAction::Reply(reply)) => self.answer_with_fault(turn, stage, reply.template()),
            Some(SmtpAction::Cut) => self.close(turn, Step::Cut),
            Some(SmtpAction::CutBeforeReply) => {
                work(self, turn);
                turn.steps.truncate(before);
                self.close(turn, Step::Cut);
            }
            Some(SmtpAction::CutAfterReply) => {
                work(self, turn);
                self.close(turn, Step::Cut);
            }
            Some(SmtpAction::Delay(_)) | None => work(self, turn),
        }
    }

    fn answer_with_fault(&mut self, turn: &mut Turn<'_>, stage: Option<Stage>, template: &str) {
        if stage == Some(Stage::EndOfData) {
            self.transaction = None;
        }
        let text = self.say_with(turn, template, &[]);
        if stage == Some(Stage::Auth) {
            self.failed_login = Some(text);
        }
        if template.starts_with("421") {
            self.close(turn, Step::Close);
        }
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, command: Command) {
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
        if self.is_secure() {
            Some("AUTH LOGIN XOAUTH2")
        } else {
            (!office.faults.submission.without_start_tls).then_some("STARTTLS")
        }
    }

    fn start_tls(&mut self, turn: &mut Turn<'_>) {
        if self.is_secure() || turn.office.faults.submission.without_start_tls {
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

    fn end_of_data(&mut self, turn: &mut Turn<'_>, content: Content) {
        self.staged(Some(Stage::EndOfData), turn, |session, turn| session.accept(turn, content));
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

    /// Says a line of the catalogue that needs no further blanks.
    pub(super) fn say(&mut self, turn: &mut Turn<'_>, line: Line) {
        self.say_with(turn, line.text(), &[]);
    }

    /// Says a reply with its blanks filled, a permanent refusal after the tarpit. Gives the text.
    pub(super) fn say_with(
        &mut self,
        turn: &mut Turn<'_>,
        template: &str,
        blanks: &[(&str, &str)],
    ) -> String {
        let text = self.filled(turn, template, blanks);
        let tarpit = turn.office.config.pace.tarpit_milliseconds;
        if text.starts_with('5') && tarpit > 0 {
            turn.steps.push(Step::Wait(tarpit));
        }
        if text.starts_with(['4', '5']) {
            tracing::info!(connection = self.id(), "refused: {text}");
        }
        turn.steps.push(Step::Send(format!("{text}\r\n").into_bytes()));
        text
    }

    /// Refuses a command; after too many of them the connection is closed.
    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, line: Line) {
        self.say(turn, line);
        self.errors += 1;
        if self.errors >= MAX_ERRORS {
            self.say(turn, Line::TooManyErrors);
            self.close(turn, Step::Close);
        }
    }

    /// Ends the conversation.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, step: Step) {
        self.phase = Phase::Closed;
        turn.steps.push(step);
    }

    /// The text of a reply; refusals end with host, time and session, unless they name the host themselves.
    fn filled(&self, turn: &Turn<'_>, template: &str, blanks: &[(&str, &str)]) -> String {
        let host = format!("{}.outlook.office365.com", self.peer.host);
        let internal = format!("{}.PROD.OUTLOOK.COM", self.peer.host);
        let date = turn.now.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
        let mut all = vec![
            ("host", host.as_str()),
            ("internal", &internal),
            ("date", &date),
            ("session", &self.peer.session),
            ("client", &self.peer.facts.client),
        ];
        all.extend_from_slice(blanks);
        let text = fill(template, &all);
        if !text.starts_with(['4', '5']) || text.ends_with(']') {
            return text;
        }
        format!("{text} [{internal} {} {}]", turn.now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"), self.peer.session)
    }
}

impl Turn<'_> {
    /// Notes a breach of this conversation.
    pub(super) fn violation(&mut self, session: &Session, kind: Kind, detail: impl Into<String>) {
        self.office.violation(self.now, session.id(), kind, detail);
    }
}

/// Microsoft's list, in its order; `extension` stands where STARTTLS or AUTH does.
fn ehlo_lines(first: &str, extension: Option<&str>, size: usize) -> String {
    let hello = first.split_once(' ').map_or(first, |(_, rest)| rest);
    let size = format!("SIZE {size}");
    let mut lines = vec![hello, &size, "PIPELINING", "DSN", "ENHANCEDSTATUSCODES"];
    lines.extend(extension);
    lines.extend(["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]);
    let last = lines.len() - 1;
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' }))
        .collect()
}

/// The text of a line that ends with CRLF and holds no control character, or what is wrong with it.
fn complete_line(line: &[u8]) -> Result<String, (Kind, &'static str)> {
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err((Kind::BareLineFeed, "a command line ended with a bare line feed"));
    };
    if text.contains(&b'\r') {
        return Err((Kind::BareCarriageReturn, "a bare carriage return in a command line"));
    }
    if text.contains(&0) {
        return Err((Kind::NulByte, "a NUL in a command line"));
    }
    if text.len() > MAX_LINE {
        return Err((Kind::Protocol, "a command line over 12288 octets"));
    }
    String::from_utf8(text.to_vec()).map_err(|_| (Kind::EightBitCommand, "a command line that is not UTF-8"))
}

/// A word of the client for a detail: short, and without anything that is not plain text.
fn printable(word: &str) -> String {
    word.chars()
        .take(16)
        .map(|character| if character.is_ascii_graphic() { character } else { '?' })
        .collect()
}

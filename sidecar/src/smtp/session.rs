//! One conversation with a client, as a value: octets go in, steps come out.
//!
//! ```text
//!          EHLO        MAIL        RCPT            DATA          end of data
//!   Fresh ──────► Greeted ───► Sender ───► Recipients ───► Body ───────────► Storing
//!                    ▲  ▲──────── RSET, EHLO ──────┘        │ refused           │ answered
//!                    └──────────────────────────────────────┴───────────────────┘
//!   AUTH leaves Greeted and comes back to it; STARTTLS leaves it for Fresh.   From everywhere: QUIT, what is not SMTP, too many errors, time ──► Closed
//! ```
//!
//! Owns the order of commands and every limit that is counted in octets, lines or recipients. Refuses to know time,
//! sockets and what becomes of a message.
//!
//! Invariants: how the input is cut into pieces changes nothing but how often [`Step::Read`] comes; memory is bounded
//! by [`super::line::MAX_COMMAND_LINE`], the recipients and a few replies; behind an answer that closes, no input is looked at.

mod commands;
mod login;

use std::sync::Arc;

use super::answer::{Answer, Refusal};
use super::auth::{Awaited, Credentials, Gathering, Next};
use super::line::{Framed, LineReader};
use super::reply::Reply;
use super::transaction::{Incoming, Settings, Transaction};
use crate::message::envelope::Address;

/// Errors that a session may make without a message being accepted in between, before it is closed: few enough that the
/// rest of a message which ended too early is not tried line by line. A session that sends mail may stay open for days,
/// and its users mistype addresses.
pub const MAX_ERRORS: u32 = 10;

/// Logins that a session may fail before it is closed.
pub const MAX_FAILED_LOGINS: u32 = 3;

/// Replies are handed out once this much has gathered, also while more commands are at hand.
const MAX_PENDING_OUTPUT: usize = 4096;

/// What the session wants done next.
#[derive(Debug)]
#[must_use = "a step that is not carried out leaves the client without its answer"]
pub enum Step {
    /// All input is used up: call again with more.
    Read,
    /// Send these octets.
    Write(Vec<u8>),
    /// A message begins; from now on its octets are appended to the `message` of [`Session::step`].
    Begin,
    /// The message will be refused: what was taken in of it can go. Nothing more is appended.
    Abandon,
    /// The message is complete. Store it, then say with [`Session::stored`] what the client is told.
    Store(Box<Transaction>),
    /// Whose credentials are these? Then say so with [`Session::verified`].
    Verify(Credentials),
    /// Start TLS: when the client has sent nothing more, send these octets, shake hands and say [`Session::secured`]; otherwise
    /// [`Session::refuse_tls`].
    StartTls(Vec<u8>),
    /// Something was refused: to be counted.
    Refused(Refusal),
    /// Close the connection.
    Close,
}

/// One conversation.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    phase: Phase,
    client: Option<Client>,
    line: LineReader,
    output: Vec<u8>,
    refusals: Vec<Refusal>,
    errors: u32,
    commands: u64,
    transactions: u64,
    /// TLS protects what is said.
    tls: bool,
    logged_in: bool,
    failed_logins: u32,
    /// No message is taken for now.
    throttled: bool,
    behind_data: bool,
    /// The recipient that was refused last because the route does not allow it.
    unlisted: Option<Address>,
}

#[derive(Debug)]
struct Client {
    name: String,
    extended: bool,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    Greeted,
    Auth(Awaited, Gathering),
    Login(Credentials),
    Verifying,
    StartTls,
    Handshake,
    Sender { transaction: Box<Transaction>, refused_any: bool },
    Recipients(Box<Transaction>),
    Body(Box<Incoming>),
    Complete(Box<Transaction>),
    Storing,
    Closed,
}

impl Session {
    /// A session with a client that has just connected. Its first step is the greeting.
    pub fn new(settings: Arc<Settings>) -> Self {
        let output = format!("220 {} ESMTP MailRoute\r\n", settings.host_name).into_bytes();
        Self {
            settings,
            phase: Phase::Fresh,
            client: None,
            line: LineReader::default(),
            output,
            refusals: Vec::new(),
            errors: 0,
            commands: 0,
            transactions: 0,
            tls: false,
            logged_in: false,
            failed_logins: 0,
            throttled: false,
            behind_data: false,
            unlisted: None,
        }
    }

    /// Takes octets from the front of `input` and says what is to be done. Decoded octets of a message are appended
    /// to `message`: altogether at most twice as many as were taken, eight times where the header is encoded, and now and
    /// then some that were held back before.
    pub fn step(&mut self, input: &mut &[u8], message: &mut Vec<u8>) -> Step {
        loop {
            if let Some(refusal) = self.refusals.pop() {
                return Step::Refused(refusal);
            }
            if self.output.len() >= MAX_PENDING_OUTPUT {
                return self.write();
            }
            if let Some(step) = self.advance(input, message) {
                return step;
            }
        }
    }

    /// What the client is told about the message of [`Step::Store`]. When it was accepted, errors are counted from zero.
    pub fn stored(&mut self, reply: &Reply) {
        if (200..300).contains(&reply.code) {
            self.errors = 0;
        }
        self.output.extend_from_slice(reply.to_string().as_bytes());
        // 421 announces that the connection is closed (RFC 5321 §3.8), whoever says it.
        self.phase = if reply.code == 421 { Phase::Closed } else { Phase::Greeted };
        self.behind_data = true;
    }

    /// Refuses the message that is being taken in, at its end. Nothing happens outside of one.
    pub fn refuse_message(&mut self, answer: Answer) {
        if let Phase::Body(incoming) = &mut self.phase {
            incoming.fail(answer);
        }
    }

    /// Ends the session with a last answer.
    pub fn end(&mut self, answer: Answer) {
        self.say(answer);
        self.phase = Phase::Closed;
    }

    /// Replaces the settings, from the next MAIL on.
    pub fn configure(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Whether messages are refused for now, from the next MAIL on: the client has sent too many.
    pub fn throttle(&mut self, throttled: bool) {
        self.throttled = throttled;
    }

    /// Takes the recipient that was refused last because the route does not allow it, for the log.
    pub fn take_unlisted(&mut self) -> Option<Address> {
        self.unlisted.take()
    }

    /// Whether the session waits for a message's octets, not for a command.
    pub fn is_in_data(&self) -> bool {
        matches!(self.phase, Phase::Body(_))
    }

    /// Whether nothing is lost when the session ends now: no transaction is open and no command half received.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.phase, Phase::Fresh | Phase::Greeted | Phase::Auth(..)) && self.line.is_empty()
    }

    /// Commands received so far, complete lines only: how a client that works is told from one that drips.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Transactions begun so far: how a client that sends mail is told from one that only keeps its session alive.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// One move. `None`: look again.
    fn advance(&mut self, input: &mut &[u8], message: &mut Vec<u8>) -> Option<Step> {
        match &mut self.phase {
            Phase::Closed => {
                *input = &[];
                Some(if self.output.is_empty() { Step::Close } else { self.write() })
            }
            Phase::Body(_) if !input.is_empty() => self.data(input, message),
            Phase::Complete(_) if !self.output.is_empty() => Some(self.write()),
            Phase::Complete(_) => match std::mem::replace(&mut self.phase, Phase::Storing) {
                Phase::Complete(transaction) => Some(Step::Store(transaction)),
                _ => None,
            },
            // Nobody said what became of the message, so it was not taken.
            Phase::Storing => {
                self.stored(&Answer::NoStorage.reply());
                None
            }
            Phase::Login(_) | Phase::StartTls if !self.output.is_empty() => Some(self.write()),
            Phase::Login(_) | Phase::Verifying | Phase::StartTls | Phase::Handshake => self.wait_for_caller(),
            _ if input.is_empty() => Some(if self.output.is_empty() { Step::Read } else { self.write() }),
            _ => self.command_line(input),
        }
    }

    fn write(&mut self) -> Step {
        Step::Write(std::mem::take(&mut self.output))
    }

    fn say(&mut self, answer: Answer) {
        self.say_as(answer, &answer.reply());
    }

    fn say_as(&mut self, answer: Answer, reply: &Reply) {
        self.output.extend_from_slice(reply.to_string().as_bytes());
        self.refusals.extend(answer.row().refusal);
        if answer.closes() {
            self.phase = Phase::Closed;
        }
    }

    /// Says what comes of a command, and counts errors.
    fn answer(&mut self, answer: Answer) {
        self.answer_as(answer, &answer.reply());
    }

    /// The same with a reply of its own.
    fn answer_as(&mut self, answer: Answer, reply: &Reply) {
        self.say_as(answer, reply);
        self.errors += u32::from(answer.is_error());
        if self.errors > MAX_ERRORS && !answer.closes() {
            self.say(Answer::TooManyErrors);
        }
    }

    fn command_line(&mut self, input: &mut &[u8]) -> Option<Step> {
        let (verifies, responds) = (self.verifies(), matches!(self.phase, Phase::Auth(..)));
        let is_longer = |front: &[u8]| verifies && (responds || is_auth(front));
        match self.line.take_longer(input, is_longer) {
            Framed::Unfinished => None,
            Framed::Broken(answer) => {
                self.answer(answer);
                None
            }
            Framed::Complete(mut line) => {
                self.commands += 1;
                let step = match std::mem::replace(&mut self.phase, Phase::Greeted) {
                    Phase::Auth(awaited, gathering) => {
                        self.respond(awaited, gathering, &line);
                        None
                    }
                    phase => {
                        self.phase = phase;
                        self.command(&line)
                    }
                };
                if verifies {
                    wipe(&mut line);
                }
                step
            }
        }
    }

    /// A response of an exchange that was begun.
    fn respond(&mut self, awaited: Awaited, mut gathering: Gathering, line: &[u8]) {
        let mut next = awaited.take(line);
        if self.verifies() {
            next = gathering.gather(next, line);
        }
        self.auth_goes_on(next, gathering);
    }

    fn auth_goes_on(&mut self, next: Next, gathering: Gathering) {
        match next {
            Next::Ask(awaited) => {
                self.phase = Phase::Auth(awaited, gathering);
                self.answer(awaited.challenge());
            }
            Next::Verify(credentials) => self.phase = Phase::Login(credentials),
            Next::Over(answer) => {
                self.logged_in |= answer == Answer::LoggedIn;
                self.answer(answer);
            }
        }
    }

    /// Takes in octets of a message.
    fn data(&mut self, input: &mut &[u8], message: &mut Vec<u8>) -> Option<Step> {
        let Phase::Body(incoming) = &mut self.phase else { return None };
        let was_refused = incoming.refusal().is_some();
        let ended = incoming.take(input, message);
        let abandon = incoming.refusal().is_some() && !was_refused;
        if ended {
            self.end_of_data();
        }
        abandon.then_some(Step::Abandon)
    }

    fn end_of_data(&mut self) {
        let Phase::Body(incoming) = std::mem::replace(&mut self.phase, Phase::Greeted) else { return };
        match incoming.refusal() {
            Some(answer) => {
                self.behind_data = true;
                self.answer_as(answer, &incoming.refusal_reply(answer));
            }
            None => self.phase = Phase::Complete(incoming.finish()),
        }
    }
}

/// Whether a line is the command AUTH.
fn is_auth(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|front| front.eq_ignore_ascii_case(b"AUTH "))
}

/// Overwrites credentials.
fn wipe(line: &mut [u8]) {
    line.fill(0);
    std::hint::black_box(line);
}

//! One connection: octets between a socket and a [`Session`], the message's octets into a [`Writer`], and the clock.
//!
//! Owns every wait. Waits for the client are bounded ([`super::timeouts`]), also for it to take an answer. Only [`super::Accept`] is
//! waited for without bound: it has bounds of its own.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout, timeout_at};

use super::network::{Entered, Verified};
use super::stream::ClientStream;
use super::timeouts::{SessionProgress, SessionTimeouts};
use super::{Observer, Refusal, Service};
use crate::message::body::{Body, Writer};
use crate::message::envelope::{Address, Envelope, QueueId};
use crate::smtp::answer::Answer;
use crate::smtp::auth::Credentials;
use crate::smtp::header::rules::Applied;
use crate::smtp::rule_action::RuleAction;
use crate::smtp::session::{Session, Step};
use crate::smtp::trace::{Arrival, stamp};
use crate::smtp::transaction::Transaction;

/// Read at once while commands are expected: a pipelined group of a hundred recipients.
const COMMAND_BUFFER: usize = 4 * 1024;

/// Read at once while a message comes in.
const DATA_BUFFER: usize = 16 * 1024;

/// Most addresses that one log line names.
const MAX_LOGGED: usize = 50;

/// After the last answer, what the client still sends is read and thrown away up to these bounds. Closing with unread
/// octets would make the system send a reset, which can take the answer away from the client.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves one client to its end. Where it comes from the network, it has `entered`.
pub(super) async fn run(
    stream: TcpStream,
    peer: IpAddr,
    service: Arc<Service>,
    entered: Option<Entered>,
    stop: watch::Receiver<bool>,
) {
    let _open = Open::new(Arc::clone(&service.observer));
    // Answers are written whole, so there is nothing to gain from waiting for more.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let gives_way = entered.as_ref().map(Entered::gives_way);
    let gives_way = async {
        match gives_way {
            Some(gives_way) => gives_way.await,
            None => pending().await,
        }
    };
    let mut connection = Connection {
        stream: ClientStream::Plain(stream),
        peer,
        entered,
        user: None,
        session: Session::new((service.settings)()),
        input: Vec::new(),
        writer: None,
        timeouts: SessionTimeouts::new(service.limits, Instant::now()),
        service,
        stop,
    };
    // Nothing of a message is lost: whoever sends one gives way to nobody.
    let ended = tokio::select! {
        biased;
        () = gives_way => connection.give_way().await,
        ended = connection.converse() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "the client disconnected");
    }
}

/// Counts a session as open for as long as it lives, also when it ends by a panic.
struct Open {
    observer: Arc<dyn Observer>,
    since: Instant,
}

impl Open {
    fn new(observer: Arc<dyn Observer>) -> Self {
        observer.session_opened();
        Self { observer, since: Instant::now() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observer.session_closed(self.since.elapsed());
    }
}

struct Connection {
    stream: ClientStream,
    peer: IpAddr,
    entered: Option<Entered>,
    /// Who has logged in.
    user: Option<Arc<str>>,
    session: Session,
    /// Octets received and not yet taken by the session.
    input: Vec<u8>,
    /// The message that is coming in.
    writer: Option<Writer>,
    timeouts: SessionTimeouts,
    service: Arc<Service>,
    stop: watch::Receiver<bool>,
}

/// How waiting for the client ended.
enum Waited {
    Octets(usize),
    Ended(Answer),
}

impl Connection {
    /// Carries out the session's steps until it or the client ends.
    async fn converse(&mut self) -> io::Result<()> {
        let mut taken = 0;
        loop {
            match self.step(&mut taken) {
                Step::Write(answers) => self.write(&answers).await?,
                Step::Begin => {
                    self.entered.as_mut().map_or(Ok(()), Entered::settle)?;
                    self.writer = Some(Writer::new(Arc::clone(&self.service.scratch)));
                }
                Step::Abandon => self.writer = None,
                Step::Store(transaction) => self.store(*transaction).await,
                Step::Verify(credentials) => {
                    // What was taken holds them, too.
                    self.input[..taken].fill(0);
                    self.verify(credentials).await?;
                }
                Step::StartTls(reply) => self.start_tls(&reply, &mut taken).await?,
                Step::Refused(reason) => self.refused(reason),
                Step::Close => return self.close().await,
                Step::Read => {
                    taken = 0;
                    self.spill().await;
                    if !self.read().await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn step(&mut self, taken: &mut usize) -> Step {
        let mut discarded = Vec::new();
        let message = self.writer.as_mut().map_or(&mut discarded, Writer::buffer);
        let mut rest = &self.input[*taken..];
        let step = self.session.step(&mut rest, message);
        *taken = self.input.len() - rest.len();
        step
    }

    /// Waits for more input; false when the client will send no more. When time runs out, the session is informed: its next steps tell
    /// the client and close.
    async fn read(&mut self) -> io::Result<bool> {
        let wanted = if self.session.is_in_data() { DATA_BUFFER } else { COMMAND_BUFFER };
        self.input.clear();
        self.input.shrink_to(wanted);
        self.input.reserve_exact(wanted);
        let waited = self.wait().await?;
        self.session.configure((self.service.settings)());
        self.throttle();
        match waited {
            Waited::Octets(len) => Ok(len > 0),
            Waited::Ended(answer) => {
                self.session.end(answer);
                Ok(true)
            }
        }
    }

    async fn wait(&mut self) -> io::Result<Waited> {
        let progress = SessionProgress::of(&self.session);
        let (deadline, late) = self.timeouts.deadline(progress, Instant::now());
        let leave = self.timeouts.leave(progress);
        let mut draining = self.service.draining.clone();
        let sent_away = async {
            if draining.wait_for(|&draining| draining).await.is_err() {
                pending::<()>().await;
            }
            sleep_until(leave).await;
        };
        let may_stop = self.session.is_between_messages();
        let may_leave = may_stop && self.entered.is_some();
        tokio::select! {
            read = timeout_at(deadline, self.stream.read_buf(&mut self.input)) => {
                read.map_or(Ok(Waited::Ended(late)), |read| read.map(Waited::Octets))
            }
            _ = self.stop.wait_for(|&stop| stop), if may_stop => Ok(Waited::Ended(Answer::ShuttingDown)),
            () = sent_away, if may_leave => Ok(Waited::Ended(Answer::ShuttingDown)),
        }
    }

    /// Keeps the memory for a message bounded. Where there is no room on disk, the message is refused at its end.
    async fn spill(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.spill().await
        {
            self.refuse_for_storage(&error);
        }
    }

    fn refuse_for_storage(&mut self, error: &io::Error) {
        tracing::error!(%error, directory = %self.service.scratch.directory().display(), "cannot receive a message");
        self.writer = None;
        self.session.refuse_message(Answer::NoStorage);
    }

    fn refused(&mut self, reason: Refusal) {
        self.service.observer.refused(reason);
        if let Some(recipient) = self.session.take_unlisted() {
            tracing::warn!(%recipient, "refused a recipient that recipients.allow of the route does not list");
        }
    }

    fn throttle(&mut self) {
        if let Some(entered) = &self.entered {
            self.session.throttle(entered.is_throttled());
        }
    }

    async fn verify(&mut self, credentials: Credentials) -> io::Result<()> {
        let verified = match &self.entered {
            Some(entered) => entered.verify(credentials).await,
            None => Verified::Unavailable,
        };
        let result = verified.result();
        self.service.observer.login(result);
        if let Verified::Accepted(user) = verified {
            tracing::debug!(client = %self.peer, %user, "logged in");
            self.user = Some(user);
            self.entered.as_mut().map_or(Ok(()), Entered::logged_in)?;
        }
        self.session.verified(result);
        Ok(())
    }

    /// Tells the client that another one needs its place. If that was in the middle of an answer or of a handshake, it only sees the
    /// connection end.
    async fn give_way(&mut self) -> io::Result<()> {
        self.service.observer.refused(Refusal::Sessions);
        let answer = Answer::TooManySessions.reply().to_string();
        let told = async {
            self.stream.write_all(answer.as_bytes()).await?;
            self.stream.shutdown().await
        };
        timeout(LINGER, told).await.unwrap_or(Ok(()))
    }

    /// Answers STARTTLS and shakes hands, unless the client has not waited for the answer.
    async fn start_tls(&mut self, reply: &[u8], taken: &mut usize) -> io::Result<()> {
        if *taken < self.input.len() || self.stream.has_more() {
            *taken = self.input.len();
            self.session.refuse_tls();
            return Ok(());
        }
        let Some(config) = self.entered.as_ref().and_then(Entered::tls) else {
            self.session.end(Answer::NoTls);
            return Ok(());
        };
        self.write(reply).await?;
        let handshake = timeout(self.service.limits.handshake, self.stream.start_tls(config)).await;
        if let Err(error) = handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            self.service.observer.refused(Refusal::Tls);
            return Err(io::Error::new(error.kind(), format!("TLS handshake: {error}")));
        }
        (self.input, *taken) = (Vec::new(), 0);
        self.session.secured();
        self.user = None;
        Ok(())
    }

    async fn store(&mut self, transaction: Transaction) {
        let started = Instant::now();
        let reply = match self.complete(transaction).await {
            Ok((envelope, body)) => {
                let bytes = body.len();
                self.came_from_network(&envelope);
                let reply = self.service.accept.accept(envelope, body).await;
                self.service.observer.answered(&reply, bytes, started.elapsed());
                reply
            }
            Err(error) => {
                self.refuse_for_storage(&error);
                self.service.observer.refused(Refusal::Storage);
                Answer::NoStorage.reply()
            }
        };
        self.session.stored(&reply);
        self.throttle();
        self.timeouts.answered(Instant::now());
    }

    /// Counts a message from the network, and logs whose it is.
    fn came_from_network(&self, envelope: &Envelope) {
        if let Some(entered) = &self.entered {
            entered.message();
            let user = self.user.as_deref().unwrap_or_default();
            tracing::info!(queue_id = %envelope.id, client = %self.peer, user, "message from the network");
        }
    }

    /// Puts the stamp in front of the message that came in.
    async fn complete(&mut self, transaction: Transaction) -> io::Result<(Envelope, Body)> {
        let at = Timestamp::now();
        let id = QueueId::new(at, random()?);
        let original_to = transaction.original_to();
        let stamp = stamp(
            &Arrival {
                client_name: &transaction.client_name,
                client: self.peer,
                protocol: transaction.protocol,
                host_name: &transaction.settings.host_name,
                id: &id,
                at,
                author: transaction.author(),
                mailbox: transaction.settings.senders.mailbox.as_deref(),
                original_to: original_to.as_deref(),
                fields: &transaction.settings.fields,
            },
            &transaction.headers,
        );
        if transaction.repaired {
            tracing::debug!(queue_id = %id, "line ends other than CR LF were corrected");
        }
        if transaction.headers.encoded > 0 {
            self.service.observer.header_encoded(transaction.headers.encoded);
            tracing::debug!(queue_id = %id, fields = transaction.headers.encoded, "raw UTF-8 in the header was encoded");
        }
        self.rules_applied(&id, &transaction);
        let writer =
            self.writer.take().ok_or_else(|| io::Error::other("a message ended that did not begin"))?;
        let body = writer.finish(stamp.lines).await?;
        Ok((transaction.into_envelope(id, stamp.message_id), body))
    }

    /// Counts and logs what the route's rules did to a message.
    fn rules_applied(&self, id: &QueueId, transaction: &Transaction) {
        let observer = &self.service.observer;
        self.fields_changed(id, transaction);
        if transaction.archive().is_some() {
            observer.rule_applied(RuleAction::ArchiveAdded, 1);
        }
        let redirected = &transaction.redirected;
        if !redirected.is_empty() {
            observer.rule_applied(RuleAction::RecipientRedirected, redirected.len() as u64);
            let named: Vec<_> = redirected.iter().take(MAX_LOGGED).map(Address::as_str).collect();
            tracing::info!(queue_id = %id, recipients = redirected.len(), named = named.join(" "), "recipients were redirected, as the route says");
        }
    }

    /// Counts and logs what became of header fields that the route removes or sets.
    fn fields_changed(&self, id: &QueueId, transaction: &Transaction) {
        let (rules, fates) = (&transaction.settings.fields, &transaction.headers.fates);
        let applied = rules.applied(fates);
        let actions = [
            (RuleAction::HeaderRemoved, applied.removed),
            (RuleAction::HeaderSet, applied.set),
            (RuleAction::HeaderKept, applied.kept),
            (RuleAction::SignatureBroken, applied.broken),
        ];
        let taken = actions.into_iter().filter(|(_, times)| *times > 0);
        taken.for_each(|(action, times)| self.service.observer.rule_applied(action, times.into()));
        let Applied { removed, set, kept, broken } = applied;
        if kept + broken > 0 {
            let fields = rules.covered(fates).collect::<Vec<_>>().join(" ");
            tracing::warn!(queue_id = %id, removed, set, kept, broken, fields, "a signature of the message covers header fields that the route changes");
        } else if removed + set > 0 {
            tracing::info!(queue_id = %id, removed, set, "header fields were changed, as the route says");
        }
    }

    async fn write(&mut self, answers: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(answers).await?;
            self.stream.flush().await
        };
        let sent = timeout(self.service.limits.data, sent).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answers"))?
    }

    /// Closes in a way that lets the last answer arrive.
    async fn close(&mut self) -> io::Result<()> {
        let until_silent = async {
            self.stream.shutdown().await?;
            let (mut thrown_away, mut read) = ([0; 1024], 0);
            while read < LINGER_BYTES {
                match self.stream.read(&mut thrown_away).await? {
                    0 => break,
                    len => read += len,
                }
            }
            Ok(())
        };
        timeout(LINGER, until_silent).await.unwrap_or(Ok(()))
    }
}

/// What tells the ids of two sidecars' messages apart that arrive in the same microsecond.
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(u64::from_le_bytes(bytes))
}

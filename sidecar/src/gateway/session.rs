//! One connection of a sidecar, or of another gateway: commands in, replies out, messages to the queue.
//!
//! Owns what is checked before a message counts as taken over: that head, progress and octets belong together. Its octets go to the
//! spool's scratch as they come in, so that a large message takes the memory of a small one.
//!
//! Invariant: 250 only when the message is synced, or known to be here or gone.

use std::io;
use std::time::Duration;

use mailroute_route::identity::Role;
use mailroute_route::text::chain;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::time::timeout;

use super::identity::Peer;
use super::protocol::{Command, CommandError, MAX_LINE_BYTES, Transfer, Update, XSPOOL};
use super::server::Shared;
use crate::message::body::{Body, Writer};
use crate::message::envelope::QueueId;
use crate::outcome::queued::TakeOverOutcome;
use crate::queue::{ProgressUpdate, UpdateError};
use crate::smtp::reply::{EnhancedCode, Reply};
use crate::spool::{Entry, Progress, SpoolError, format};

/// For a command to come.
const COMMAND: Duration = Duration::from_secs(15);

/// For the next octets of a message, and for a reply to be taken.
const BLOCK: Duration = Duration::from_secs(20);

/// For one message: 160 MiB in this time is 90 KiB a second.
const MESSAGE: Duration = Duration::from_secs(30 * 60);

/// Octets read at once.
const BUFFER: usize = 16 * 1024;

/// After a reply that ends the session, what still comes is thrown away for so long, so that the reply arrives.
const LINGER: Duration = Duration::from_secs(1);

/// A session over `S`.
pub(super) struct Session<'a, S> {
    input: BufReader<S>,
    peer: Peer,
    shared: &'a Shared,
}

/// What a head and a progress say of the message behind them.
struct Announced {
    entry: Entry,
    progress: Progress,
    crc32: u32,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    /// A session with `peer`, of which nothing was read.
    pub fn new(stream: S, peer: Peer, shared: &'a Shared) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, stream), peer, shared }
    }

    /// Talks to the peer until it ends, or `stop` comes between two commands.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        self.say(&plain(220, "mailroute gateway ESMTP")).await?;
        loop {
            let line = tokio::select! {
                line = timeout(COMMAND, self.line()) => Some(line),
                _ = stop.wait_for(|&stop| stop) => None,
            };
            let Some(line) = line else { return self.end(&shutting_down()).await };
            let Ok(line) = line else { return self.end(&reply(421, (4, 4, 2), "no command in time")).await };
            let Some(line) = line? else { return Ok(()) };
            let answer = match Command::parse(&line) {
                Ok(Command::Hello) => {
                    let lines = vec!["mailroute gateway".to_owned(), XSPOOL.to_owned()];
                    Reply { code: 250, enhanced: None, lines }
                }
                Ok(Command::Noop) => reply(250, (2, 0, 0), "OK"),
                Ok(Command::Quit) => return self.end(&reply(221, (2, 0, 0), "bye")).await,
                Ok(Command::Spool(_)) if self.is_refused() => return self.end(&shutting_down()).await,
                Ok(Command::Spool(transfer)) => in_time(self.spool(&transfer)).await?,
                Ok(Command::State(update)) => in_time(self.state(&update)).await?,
                // What follows may be octets of a message.
                Err(error) => return self.end(&of_error(error)).await,
            };
            self.say(&answer).await?;
        }
    }

    /// Two gateways that end at the same time would hand the same messages to and fro.
    fn is_refused(&self) -> bool {
        self.peer.role == Role::Gateway && *self.shared.ending.borrow()
    }

    async fn spool(&mut self, transfer: &Transfer) -> io::Result<Reply> {
        let (outcome, answer) = self.take_over(transfer).await?;
        self.shared.metrics.taken_over(outcome, transfer.message);
        Ok(answer)
    }

    async fn take_over(&mut self, transfer: &Transfer) -> io::Result<(TakeOverOutcome, Reply)> {
        let Transfer { id, shelf, head, state, message } = transfer;
        let shared = self.shared;
        let Some(_room) = shared.room(head + state).await else {
            self.skip((head + state) as u64 + message).await?;
            return Ok((TakeOverOutcome::Failed, busy()));
        };
        let octets = self.octets(head + state).await?;
        let announced = announced(transfer, &octets);
        drop(octets);
        let Announced { entry, progress, crc32 } = match announced {
            Ok(announced) => announced,
            Err(met) => {
                tracing::error!(queue_id = %id, peer = self.peer.uri, met, "a message cannot be taken over");
                self.skip(*message).await?;
                return Ok((TakeOverOutcome::Invalid, reply(554, (5, 6, 0), met)));
            }
        };
        let incoming = shared.incoming(id);
        if incoming.is_none() || shared.queue.knows(id) {
            self.skip(*message).await?;
            return Ok(match incoming {
                Some(_) => self.known(id, progress).await,
                None => {
                    (TakeOverOutcome::Failed, reply(451, (4, 3, 0), format!("{id} is coming in already")))
                }
            });
        }
        let body = match self.receive(*message).await? {
            Ok(body) if body.crc32() == crc32 => body,
            Ok(_) => {
                let met = "the message does not match its CRC-32";
                tracing::error!(queue_id = %id, peer = self.peer.uri, met, "a message cannot be taken over");
                return Ok((TakeOverOutcome::Invalid, reply(554, (5, 6, 0), met)));
            }
            Err(error) => return Ok(self.not_stored(id, &error, error.kind() == io::ErrorKind::StorageFull)),
        };
        let recipients = progress.waiting();
        match shared.queue.take_over(*shelf, &entry, progress, &body).await {
            Ok(()) => {
                let (message_id, peer) = (&entry.envelope.message_id, &self.peer.uri);
                tracing::info!(queue_id = %id, message_id, peer, recipients, ?shelf, "taken over");
                Ok((TakeOverOutcome::Stored, reply(250, (2, 0, 0), format!("{id} is stored"))))
            }
            Err(error) => Ok(self.not_stored(id, &error, matches!(error, SpoolError::Full(_)))),
        }
    }

    /// The answer for a message that is here, or was: the peer has not seen the first one, and may have tried it meanwhile.
    async fn known(&self, id: &QueueId, offered: Progress) -> (TakeOverOutcome, Reply) {
        if offered.is_settled() {
            match self.shared.queue.join(id, offered).await {
                Ok(Some(ProgressUpdate { before, after })) => {
                    tracing::info!(queue_id = %id, peer = self.peer.uri, %before, %after, "known here, and further there");
                }
                Ok(None) => {}
                Err(UpdateError::Unknown) => {
                    return (
                        TakeOverOutcome::Failed,
                        reply(451, (4, 3, 0), format!("{id} has left meanwhile")),
                    );
                }
                Err(error) => return (TakeOverOutcome::Failed, not_updated(&error)),
            }
        }
        (TakeOverOutcome::Known, reply(250, (2, 0, 0), format!("{id} is known here")))
    }

    fn not_stored(
        &self,
        id: &QueueId,
        error: &(dyn std::error::Error + 'static),
        is_full: bool,
    ) -> (TakeOverOutcome, Reply) {
        tracing::error!(queue_id = %id, peer = self.peer.uri, error = chain(error), "a message cannot be taken over");
        if is_full {
            (TakeOverOutcome::Full, reply(452, (4, 3, 1), "the gateway's spool is full"))
        } else {
            (TakeOverOutcome::Failed, reply(451, (4, 3, 0), "the gateway's spool cannot be written"))
        }
    }

    async fn state(&mut self, update: &Update) -> io::Result<Reply> {
        let Update { id, state } = update;
        let Some(_room) = self.shared.room(*state).await else {
            self.skip(*state as u64).await?;
            return Ok(busy());
        };
        let octets = self.octets(*state).await?;
        Ok(match self.shared.queue.update(id, &octets).await {
            Ok(Some(ProgressUpdate { before, after })) => {
                tracing::info!(queue_id = %id, peer = self.peer.uri, %before, %after, "told what came of an attempt elsewhere");
                reply(250, (2, 0, 0), "OK")
            }
            Ok(None) => reply(250, (2, 0, 0), "it is gone already"),
            Err(error) => not_updated(&error),
        })
    }

    /// The octets of a message, in bounded memory. The inner error is the disk's: the rest was skipped.
    async fn receive(&mut self, octets: u64) -> io::Result<io::Result<Body>> {
        let (mut writer, mut left) = (Writer::new(self.shared.scratch.clone()), octets);
        while left > 0 {
            let piece = fill(&mut self.input).await?;
            let taken = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            writer.buffer().extend_from_slice(&piece[..taken]);
            self.input.consume(taken);
            left -= taken as u64;
            if let Err(error) = writer.spill().await {
                drop(writer);
                self.skip(left).await?;
                return Ok(Err(error));
            }
        }
        Ok(writer.finish("").await)
    }

    async fn octets(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut octets = vec![0; len];
        let read = timeout(MESSAGE.min(BLOCK * 3), self.input.read_exact(&mut octets)).await;
        read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(octets)
    }

    async fn skip(&mut self, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let piece = fill(&mut self.input).await?;
            let taken = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            self.input.consume(taken);
            left -= taken as u64;
        }
        Ok(())
    }

    /// The next line, without its line end; nothing at the end.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let piece = self.input.fill_buf().await?;
            if piece.is_empty() {
                return Ok(None);
            }
            let end = piece.iter().position(|&octet| octet == b'\n');
            let taken = end.map_or(piece.len(), |end| end + 1);
            line.extend_from_slice(&piece[..taken.min(MAX_LINE_BYTES + 1)]);
            self.input.consume(taken);
            if line.len() > MAX_LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if end.is_some() {
                let text = line.strip_suffix(b"\r\n").unwrap_or(&line);
                return Ok(Some(text.to_vec()));
            }
        }
    }

    async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        let said = async {
            self.input.write_all(reply.to_string().as_bytes()).await?;
            self.input.flush().await
        };
        timeout(BLOCK, said).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The last reply, in a way that lets it arrive.
    async fn end(&mut self, reply: &Reply) -> io::Result<()> {
        self.say(reply).await?;
        timeout(BLOCK, self.input.shutdown()).await.unwrap_or(Ok(()))?;
        let silence = async {
            while let Ok(piece) = self.input.fill_buf().await {
                let len = piece.len();
                if len == 0 {
                    break;
                }
                self.input.consume(len);
            }
        };
        let _ = timeout(LINGER, silence).await;
        Ok(())
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(MESSAGE, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What came in and was not looked at yet, never empty.
async fn fill<S: AsyncRead + AsyncWrite + Unpin>(input: &mut BufReader<S>) -> io::Result<&[u8]> {
    let piece = timeout(BLOCK, input.fill_buf()).await;
    let piece = piece.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if piece.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(piece) }
}

/// What `octets`, a head and a progress, say of the message; or why they are not of it.
fn announced(transfer: &Transfer, octets: &[u8]) -> Result<Announced, &'static str> {
    let (head, state) = octets.split_at(transfer.head.min(octets.len()));
    let head = format::parse_entry(head).map_err(|_| "the head of the message cannot be read")?;
    let format::Head { entry, bytes, crc32, len } = head;
    if entry.envelope.id != transfer.id || bytes != transfer.message || len != transfer.head {
        return Err("the head is of another message");
    }
    let progress = format::parse_progress(state, entry.envelope.recipients.len());
    let progress = progress.map_err(|_| "the progress of the message cannot be read")?;
    Ok(Announced { entry, progress, crc32 })
}

fn not_updated(error: &UpdateError) -> Reply {
    match error {
        UpdateError::Busy | UpdateError::Disk => reply(451, (4, 3, 0), error.to_string()),
        UpdateError::Unknown => reply(550, (5, 1, 0), error.to_string()),
        UpdateError::Format(_) => reply(554, (5, 6, 0), error.to_string()),
    }
}

fn reply(code: u16, (class, subject, detail): (u8, u16, u16), text: impl Into<String>) -> Reply {
    Reply::new(code, EnhancedCode::new(class, subject, detail), text)
}

fn plain(code: u16, text: &str) -> Reply {
    Reply { code, enhanced: None, lines: vec![text.to_owned()] }
}

fn busy() -> Reply {
    reply(451, (4, 3, 2), "too many messages come in at once")
}

fn shutting_down() -> Reply {
    reply(421, (4, 3, 2), "the gateway is shutting down")
}

fn of_error(error: CommandError) -> Reply {
    match error {
        CommandError::Unknown => reply(500, (5, 5, 1), error.to_string()),
        CommandError::Arguments => reply(501, (5, 5, 4), error.to_string()),
        CommandError::TooLarge => reply(552, (5, 3, 4), error.to_string()),
    }
}

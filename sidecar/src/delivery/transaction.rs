//! One message over one connection: envelope, content, verdict.
//!
//! [`PartialDelivery`] says what happens when some recipients are refused. Where nothing speaks against it, MAIL, every RCPT and
//! DATA go out together (RFC 2920): one round trip before the content. Only [`PartialDelivery::Never`] with several recipients
//! waits for their replies first: an application that is answered for the message as a whole gets it refused often
//! enough to be worth a connection. The others cannot hurt: a 354 that is not wanted, as a recipient was refused for
//! good, is left by closing the connection, and without an end of the data the upstream drops the message (RFC 5321
//! §4.1.1.4). With nobody accepted, the empty message is ended at once, and refused. A refused archive copy stops nothing.
//!
//! Invariants: the body follows only after 354 to DATA; a refused transaction is closed (empty dot or RSET) before the
//! connection is said to be clean; after an error the connection is not.

use std::time::Duration;

use mailroute_route::condition::Reason;
use tokio::time::timeout;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::envelope_verdict::{EnvelopeVerdict, judge, no_reply};
use super::error::ConnectionError;
use super::timeouts;
use crate::message::body::Body;
use crate::message::envelope::{BodyType, Envelope};
use crate::outcome::classify::{Stage, classify};
use crate::outcome::{DeliveryOutcome, PartialDelivery, RefusedRecipient, Verdict};
use crate::smtp::data::Encoder;
use crate::smtp::reply::{EnhancedCode, Reply};

/// Most commands in one write: their replies must fit into the buffers between the two ends (RFC 2920 §3.1).
pub(super) const PIPELINE: usize = 100;

/// How long to look for a reply after the upstream stopped taking the message.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A transaction that came to an end.
#[derive(Debug)]
pub struct TransactionEnd {
    /// The fate of the message.
    pub verdict: Verdict,
    /// Recipients that were refused.
    pub refused: Vec<RefusedRecipient>,
    /// Whether a recipient was accepted.
    pub accepted: bool,
    /// Whether another transaction may follow on the connection.
    pub clean: bool,
}

impl TransactionEnd {
    /// An end for all recipients alike, after which the connection is of no more use.
    pub const fn without(verdict: Verdict) -> Self {
        Self { verdict, refused: Vec::new(), accepted: false, clean: false }
    }
}

/// A transaction that broke off. The connection is of no more use.
#[derive(Debug)]
pub struct Interruption {
    /// Why.
    pub error: ConnectionError,
    /// Whether the upstream cannot have taken the message, so that another attempt cannot make a duplicate.
    pub undelivered: bool,
    /// Whether the next connection may be tried at once where this one was kept from an earlier message: nothing of this one had been
    /// sent yet, or nothing was answered, as by an upstream that has closed the connection.
    pub repeatable: bool,
}

/// Sends one message to whomever `partial` allows.
///
/// # Errors
/// When the connection breaks off before the verdict.
pub async fn send(
    connection: &mut Connection,
    envelope: &Envelope,
    body: &Body,
    partial: PartialDelivery,
) -> Result<TransactionEnd, Interruption> {
    if let Some(refused) = unsupported(connection.capabilities, envelope, body.len()) {
        return Ok(refused);
    }
    let commands = commands(connection.capabilities, envelope, body.len(), partial);
    let early = |error| Interruption { error, undelivered: true, repeatable: true };
    let replies = timeout(timeouts::ENVELOPE, converse(connection, &commands)).await;
    let replies = replies.unwrap_or(Err(ConnectionError::Timeout(Stage::Rcpt))).map_err(early)?;
    let EnvelopeVerdict { stop, refused, accepted } = judge(&replies, envelope, partial);
    let data = match replies.get(1 + envelope.recipients.len()) {
        Some(reply) => Some(reply.clone()),
        None if stop.is_none() => Some(connection.command(Stage::Data, "DATA\r\n").await.map_err(early)?),
        None => None,
    };
    match (stop, data) {
        (Some(verdict), data) => {
            let clean = close(connection, &replies, data.as_ref(), accepted).await;
            Ok(TransactionEnd { verdict, refused, accepted: accepted > 0, clean })
        }
        (None, Some(data)) if data.code == 354 => {
            let ended = content(connection, body).await?;
            Ok(TransactionEnd { refused, ..ended })
        }
        (None, data) => {
            let reply = data.unwrap_or_else(no_reply);
            let clean = close(connection, &replies, Some(&reply), accepted).await;
            let verdict = Verdict::of_reply(classify(Stage::Data, &reply), reply);
            Ok(TransactionEnd { verdict, refused, accepted: accepted > 0, clean })
        }
    }
}

/// A transaction without its message.
#[derive(Debug)]
pub struct DryTransaction {
    /// The replies to MAIL and RCPT, as far as it came.
    pub replies: Vec<(Stage, Reply)>,
    /// Why a message would go no further, when it would not.
    pub stop: Option<Verdict>,
    /// Whether a recipient was accepted.
    pub accepted: bool,
}

/// Says MAIL and RCPT as [`send`] would for a small message, and takes it back.
///
/// # Errors
/// When the connection breaks off.
pub async fn dry_run(
    connection: &mut Connection,
    envelope: &Envelope,
) -> Result<DryTransaction, ConnectionError> {
    if let Some(refused) = unsupported(connection.capabilities, envelope, 0) {
        return Ok(DryTransaction { replies: vec![], stop: Some(refused.verdict), accepted: false });
    }
    let commands = envelope_commands(connection.capabilities, envelope, 0);
    let replies = timeout(timeouts::ENVELOPE, converse(connection, &commands)).await;
    let replies = replies.unwrap_or(Err(ConnectionError::Timeout(Stage::Rcpt)))?;
    let EnvelopeVerdict { stop, accepted, .. } = judge(&replies, envelope, PartialDelivery::Never);
    close(connection, &replies, None, accepted).await;
    let replies = commands.iter().map(|(stage, _)| *stage).zip(replies).collect();
    Ok(DryTransaction { replies, stop, accepted: accepted > 0 })
}

/// The end of a message that the upstream cannot take at all, with the reply that it would give.
pub(super) fn unsupported(
    capabilities: Capabilities,
    envelope: &Envelope,
    len: u64,
) -> Option<TransactionEnd> {
    let refuse = |code, subject, detail, text: &str| {
        let reply = Reply::new(code, EnhancedCode::new(5, subject, detail), text);
        let verdict = Verdict::of_reply(DeliveryOutcome::RejectMessage(None), reply);
        Some(TransactionEnd { clean: true, ..TransactionEnd::without(verdict) })
    };
    if envelope.body == BodyType::EightBitMime && !capabilities.eight_bit_mime {
        return refuse(554, 6, 3, "The upstream takes 7-bit messages only (no 8BITMIME)");
    }
    if needs_utf8(envelope) && !capabilities.smtp_utf8 {
        return refuse(553, 6, 7, "The upstream takes ASCII addresses only (no SMTPUTF8)");
    }
    if capabilities.max_size.is_some_and(|max| len > max) {
        return refuse(552, 3, 4, "The message is larger than the upstream takes");
    }
    None
}

fn needs_utf8(envelope: &Envelope) -> bool {
    let addresses = envelope.reverse_path.address().into_iter().chain(&envelope.recipients);
    envelope.smtp_utf8 || addresses.into_iter().any(|address| !address.is_ascii())
}

/// MAIL, every RCPT, and DATA when it need not wait for their replies.
fn commands(
    capabilities: Capabilities,
    envelope: &Envelope,
    len: u64,
    partial: PartialDelivery,
) -> Vec<(Stage, String)> {
    let mut commands = envelope_commands(capabilities, envelope, len);
    if capabilities.pipelining && (partial != PartialDelivery::Never || envelope.recipients.len() == 1) {
        commands.push((Stage::Data, "DATA\r\n".to_owned()));
    }
    commands
}

/// MAIL and every RCPT.
pub(super) fn envelope_commands(
    capabilities: Capabilities,
    envelope: &Envelope,
    len: u64,
) -> Vec<(Stage, String)> {
    let mut mail = format!("MAIL FROM:{}", envelope.reverse_path);
    if capabilities.size {
        mail.push_str(&format!(" SIZE={len}"));
    }
    if envelope.body == BodyType::EightBitMime {
        mail.push_str(" BODY=8BITMIME");
    }
    if needs_utf8(envelope) {
        mail.push_str(" SMTPUTF8");
    }
    let mut commands = vec![(Stage::Mail, format!("{mail}\r\n"))];
    commands.extend(envelope.recipients.iter().map(|to| (Stage::Rcpt, format!("RCPT TO:<{to}>\r\n"))));
    commands
}

/// Sends the commands, many at a time if the upstream pipelines, and gives the replies in order. Stops after a refused
/// MAIL, as everything behind it would be refused too.
async fn converse(
    connection: &mut Connection,
    commands: &[(Stage, String)],
) -> Result<Vec<Reply>, ConnectionError> {
    let batch = if connection.capabilities.pipelining { PIPELINE } else { 1 };
    let mut replies: Vec<Reply> = Vec::with_capacity(commands.len());
    for commands in commands.chunks(batch) {
        let together: String = commands.iter().map(|(_, command)| command.as_str()).collect();
        let mut stages = commands.iter().map(|(stage, _)| *stage);
        if let Some(first) = stages.next() {
            replies.push(connection.command(first, &together).await?);
        }
        for stage in stages {
            if replies.last().is_some_and(|reply| reply.code == 421) {
                // The upstream closes after 421; what is still to be read would only be the end.
                return Ok(replies);
            }
            replies.push(connection.reply(stage).await?);
        }
        if replies.first().is_some_and(|mail| !mail.is_positive()) {
            break;
        }
    }
    Ok(replies)
}

/// Ends a transaction that goes no further, with `accepted` recipients in it. Says whether the connection is clean.
async fn close(
    connection: &mut Connection,
    replies: &[Reply],
    data: Option<&Reply>,
    accepted: usize,
) -> bool {
    if replies.iter().chain(data).any(|reply| reply.code == 421) {
        return false;
    }
    if data.is_some_and(|data| data.code == 354) {
        if accepted > 0 {
            // Any end of the data would send them an empty message.
            return false;
        }
        // Nobody is left to receive it, so the upstream refuses the empty message. If it does not, or says anything
        // else unexpected, nobody knows where the two stand.
        let refused =
            connection.command(Stage::Message, ".\r\n").await.is_ok_and(|reply| !reply.is_positive());
        if !refused {
            return false;
        }
    }
    connection.command(Stage::Mail, "RSET\r\n").await.is_ok_and(|reply| reply.is_positive())
}

/// Sends the content and reads the verdict.
async fn content(connection: &mut Connection, body: &Body) -> Result<TransactionEnd, Interruption> {
    let streamed = timeout(timeouts::content(body.len()), stream(connection, body)).await;
    match streamed.unwrap_or(Err(Stopped::Upstream(ConnectionError::Timeout(Stage::Message)))) {
        Ok(()) => {}
        Err(Stopped::Local(error)) => return Ok(unreadable(&error)),
        Err(Stopped::Upstream(error)) => return last_words(connection, error).await,
    }
    let unknown = |error| Interruption { error, undelivered: false, repeatable: false };
    let reply = connection.reply(Stage::Message).await.map_err(unknown)?;
    let clean = reply.code != 421 && reply.code / 100 != 3;
    let verdict = Verdict::of_reply(classify(Stage::Message, &reply), reply);
    Ok(TransactionEnd { accepted: true, clean, ..TransactionEnd::without(verdict) })
}

/// The end of a message of which a part cannot be read. Without its end the upstream drops it with the connection.
pub(super) fn unreadable(error: &std::io::Error) -> TransactionEnd {
    let text = format!("the message could not be read from the local disk: {error}");
    let verdict = Verdict::without_reply(DeliveryOutcome::Transient(None), text);
    TransactionEnd { accepted: true, ..TransactionEnd::without(verdict) }
}

/// Why the content was not sent to its end.
pub(super) enum Stopped {
    /// It cannot be read.
    Local(std::io::Error),
    /// It was not taken.
    Upstream(ConnectionError),
}

/// Writes the encoded content. The end goes out with the last piece, so that a small message is one write.
async fn stream(connection: &mut Connection, body: &Body) -> Result<(), Stopped> {
    let (mut reader, mut encoder) = (body.reader(), Encoder::default());
    // Room for doubled dots and the end.
    let size = usize::try_from(body.len()).unwrap_or(usize::MAX).min(crate::message::body::MEMORY_BYTES);
    let mut out = Vec::with_capacity(size + 64);
    while let Some(piece) = reader.next().await.map_err(Stopped::Local)? {
        if out.len() + piece.len() > crate::message::body::MEMORY_BYTES {
            connection.write(&out).await.map_err(Stopped::Upstream)?;
            out.clear();
        }
        encoder.encode(&piece, &mut out);
    }
    encoder.finish(&mut out);
    connection.write(&out).await.map_err(Stopped::Upstream)?;
    connection.flush().await.map_err(Stopped::Upstream)
}

/// What the upstream may have said before it stopped taking the message, such as that it is too large.
async fn last_words(
    connection: &mut Connection,
    error: ConnectionError,
) -> Result<TransactionEnd, Interruption> {
    match timeout(LAST_WORDS, connection.reply(Stage::Message)).await {
        Ok(Ok(reply)) if !reply.is_positive() => {
            let verdict = Verdict::of_reply(classify(Stage::Message, &reply), reply);
            Ok(TransactionEnd { accepted: true, ..TransactionEnd::without(verdict) })
        }
        // The end of the data may have been among what was written last.
        _ => Err(Interruption { error, undelivered: false, repeatable: false }),
    }
}

impl Interruption {
    /// The verdict on the message.
    pub fn verdict(&self) -> Verdict {
        let reason = self.error.reason().unwrap_or(Reason::UpstreamProtocolError);
        let fate = if self.undelivered { "" } else { "; whether the message was accepted is unknown" };
        Verdict::without_reply(DeliveryOutcome::Transient(Some(reason)), format!("{}{fate}", self.error))
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
pub(super) mod tests;

//! One message in one flight: MAIL, RCPT and `BDAT n LAST` with the content behind them, all before the first reply (RFC 3030,
//! RFC 2920). One round trip in place of two, no dot is doubled, and the content goes octet for octet.
//!
//! ```text
//!  MAIL, RCPT …, BDAT n LAST, content ─► a reply to each ─► taken
//!                                                        ─► nobody left to take it: as with DATA
//!                                                        ─► BDAT refused, or no reply: DATA
//! ```
//!
//! What has left cannot be called back. So a message goes this way only where a refused recipient keeps it from nobody else: it has one
//! recipient, or all that are accepted are to have it.
//!
//! Servers are known that refuse BDAT although they offer it, and others that do not answer. Owns what the replies come to; refuses to
//! know what is done about such a server.

use std::time::Duration;

use tokio::time::timeout;

use super::capabilities::Capabilities;
use super::connection::Connection;
use super::envelope_verdict::{self, EnvelopeVerdict};
use super::error::ConnectionError;
use super::timeouts;
use super::transaction::{self, Interruption, Stopped, TransactionEnd};
use crate::message::body::{Body, MEMORY_BYTES};
use crate::message::envelope::Envelope;
use crate::outcome::classify::{Stage, classify};
use crate::outcome::{PartialDelivery, Verdict};
use crate::smtp::reply::Reply;

/// Most octets of a message that is sent like this. For a larger one a round trip matters little, and servers are known that stall on
/// large chunks.
const MAX_OCTETS: u64 = 1 << 20;

/// Longest wait for the reply to the message: much longer than any server takes that works, and shorter than after DATA, since there
/// is another way.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a flight ended.
#[derive(Debug)]
pub enum FlightEnd {
    /// As a transaction with DATA may.
    Ended(TransactionEnd),
    /// The server does not take BDAT, for all that is known: it refused it for good, although it has recipients for the message. On the
    /// connection another transaction may follow, if it is `clean`.
    Refused {
        /// Its words.
        reply: Reply,
        /// Whether the connection can still be used.
        clean: bool,
    },
    /// There was no reply in time. The server may have the message.
    Silent,
}

/// Whether a message may go in one flight to a server that can do this.
pub fn is_possible(
    capabilities: Capabilities,
    envelope: &Envelope,
    len: u64,
    partial: PartialDelivery,
) -> bool {
    let recipients = envelope.recipients.len();
    capabilities.chunking
        && capabilities.pipelining
        && len <= MAX_OCTETS
        && recipients + 2 <= transaction::PIPELINE
        && (recipients == 1 || partial == PartialDelivery::Always)
}

/// Sends one message for which this [is possible](is_possible).
///
/// # Errors
/// When the connection breaks off before the verdict.
pub async fn send(
    connection: &mut Connection,
    envelope: &Envelope,
    body: &Body,
    partial: PartialDelivery,
) -> Result<FlightEnd, Interruption> {
    if let Some(refused) = transaction::unsupported(connection.capabilities, envelope, body.len()) {
        return Ok(FlightEnd::Ended(refused));
    }
    let commands = transaction::envelope_commands(connection.capabilities, envelope, body.len());
    let mut text: String = commands.iter().map(|(_, command)| command.as_str()).collect();
    text.push_str(&format!("BDAT {} LAST\r\n", body.len()));
    let streamed = timeout(timeouts::content(body.len()), stream(connection, text, body)).await;
    if let Ok(Err(Stopped::Local(error))) = streamed {
        return Ok(FlightEnd::Ended(transaction::unreadable(&error)));
    }
    // Where the server stopped taking it, it may have said why.
    let stages = commands.iter().map(|(stage, _)| *stage).chain([Stage::Message]);
    let (replies, error) = replies(connection, stages).await;
    let Some(judged) = judge(&replies, envelope, partial) else {
        return match error {
            Some(ConnectionError::Timeout(_)) | None => Ok(FlightEnd::Silent),
            Some(error) => Err(Interruption { error, undelivered: false, repeatable: replies.is_empty() }),
        };
    };
    let is_over = error.is_some() || replies.iter().any(|reply| reply.code == 421);
    let is_taken = replies.last().is_some_and(Reply::is_positive);
    // After a refusal the state of the transaction is anybody's guess (RFC 3030 section 2).
    let clean = !is_over && (is_taken || reset(connection).await);
    Ok(match judged {
        Judged::Ended(ended) => FlightEnd::Ended(TransactionEnd { clean, ..ended }),
        Judged::Refused(reply) => FlightEnd::Refused { reply, clean },
    })
}

/// Writes the commands and the content, a small message in one piece.
async fn stream(connection: &mut Connection, commands: String, body: &Body) -> Result<(), Stopped> {
    let (mut reader, mut out) = (body.reader(), commands.into_bytes());
    while let Some(piece) = reader.next().await.map_err(Stopped::Local)? {
        if out.len() + piece.len() > 2 * MEMORY_BYTES {
            connection.write(&out).await.map_err(Stopped::Upstream)?;
            out.clear();
        }
        out.extend_from_slice(&piece);
    }
    connection.write(&out).await.map_err(Stopped::Upstream)?;
    connection.flush().await.map_err(Stopped::Upstream)
}

/// The replies, up to one that is the last or to what kept the next from being read.
async fn replies(
    connection: &mut Connection,
    stages: impl Iterator<Item = Stage>,
) -> (Vec<Reply>, Option<ConnectionError>) {
    let mut replies = Vec::new();
    for stage in stages {
        let reply = timeout(PATIENCE, connection.reply(stage)).await;
        match reply.unwrap_or(Err(ConnectionError::Timeout(stage))) {
            Ok(reply) => replies.push(reply),
            Err(error) => return (replies, Some(error)),
        }
        // The server closes after 421; what is still to be read would only be the end.
        if replies.last().is_some_and(|reply| reply.code == 421) {
            break;
        }
    }
    (replies, None)
}

/// What the replies come to.
#[derive(Debug)]
enum Judged {
    Ended(TransactionEnd),
    /// BDAT was refused for good.
    Refused(Reply),
}

/// Pure. Nothing when they do not say whether the message was taken.
fn judge(replies: &[Reply], envelope: &Envelope, partial: PartialDelivery) -> Option<Judged> {
    let mail = replies.first()?;
    let of_envelope = replies.get(..=envelope.recipients.len());
    let is_farewell = replies.last().is_some_and(|reply| reply.code == 421);
    if of_envelope.is_none() && mail.is_positive() && !is_farewell {
        return None;
    }
    let EnvelopeVerdict { stop, refused, accepted } =
        envelope_verdict::judge(of_envelope.unwrap_or(replies), envelope, partial);
    let accepted = accepted > 0;
    if let Some(verdict) = stop {
        return Some(Judged::Ended(TransactionEnd { verdict, refused, accepted, clean: false }));
    }
    let reply = replies.get(1 + envelope.recipients.len())?;
    if reply.code / 100 == 5 {
        return Some(Judged::Refused(reply.clone()));
    }
    let verdict = Verdict::of_reply(classify(Stage::Message, reply), reply.clone());
    Some(Judged::Ended(TransactionEnd { verdict, refused, accepted, clean: false }))
}

async fn reset(connection: &mut Connection) -> bool {
    connection.command(Stage::Mail, "RSET\r\n").await.is_ok_and(|reply| reply.is_positive())
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;

//! One message over one connection: envelope, content, verdict.
//!
//! [`Partial`] says what happens when some recipients are refused. Where nothing speaks against it, MAIL, every RCPT and
//! DATA go out together (RFC 2920): one round trip before the content. Only [`Partial::Never`] with several recipients
//! waits for their replies first: an application that is answered for the message as a whole gets it refused often
//! enough to be worth a connection. The others cannot hurt: a 354 that is not wanted, as a recipient was refused for
//! good, is left by closing the connection, and without an end of the data the upstream drops the message (RFC 5321
//! §4.1.1.4). With nobody accepted, the empty message is ended at once, and refused.
//!
//! Invariants: the body follows only after 354 to DATA; a refused transaction is closed (empty dot or RSET) before the
//! connection is said to be clean; after an error the connection is not.

use std::time::Duration;

use mailroute_route::condition::Reason;
use tokio::time::timeout;

use super::capabilities::Capabilities;
use super::classify::{Stage, classify};
use super::connection::{Connection, ConnectionError};
use super::limit;
use super::outcome::{Outcome, Partial, Refused, Verdict};
use crate::body::Body;
use crate::envelope::{BodyType, Envelope};
use crate::smtp::data::Encoder;
use crate::smtp::reply::{EnhancedCode, Reply};

/// Most commands in one write: their replies must fit into the buffers between the two ends (RFC 2920 §3.1).
const PIPELINE: usize = 100;

/// How long to look for a reply after the upstream stopped taking the message.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A transaction that came to an end.
#[derive(Debug)]
pub struct Ended {
    /// The fate of the message.
    pub verdict: Verdict,
    /// Recipients that were refused.
    pub refused: Vec<Refused>,
    /// Whether a recipient was accepted.
    pub accepted: bool,
    /// Whether another transaction may follow on the connection.
    pub clean: bool,
}

impl Ended {
    /// An end for all recipients alike, after which the connection is of no more use.
    pub const fn without(verdict: Verdict) -> Self {
        Self { verdict, refused: Vec::new(), accepted: false, clean: false }
    }
}

/// A transaction that broke off. The connection is of no more use.
#[derive(Debug)]
pub struct Interrupted {
    /// Why.
    pub error: ConnectionError,
    /// Whether the upstream cannot have taken the message, so that another attempt cannot make a duplicate.
    pub undelivered: bool,
    /// Whether nothing of the message had been sent yet.
    pub before_data: bool,
}

/// Sends one message to whomever `partial` allows.
///
/// # Errors
/// When the connection breaks off before the verdict.
pub async fn send(
    connection: &mut Connection,
    envelope: &Envelope,
    body: &Body,
    partial: Partial,
) -> Result<Ended, Interrupted> {
    if let Some(reply) = unsupported(connection.capabilities, envelope, body.len()) {
        let verdict = Verdict::of_reply(Outcome::RejectMessage(None), reply);
        return Ok(Ended { clean: true, ..Ended::without(verdict) });
    }
    let commands = commands(connection.capabilities, envelope, body.len(), partial);
    let early = |error| Interrupted { error, undelivered: true, before_data: true };
    let replies = timeout(limit::ENVELOPE, converse(connection, &commands)).await;
    let replies = replies.unwrap_or(Err(ConnectionError::Timeout(Stage::Rcpt))).map_err(early)?;
    let Judged { stop, refused, accepted } = judge(&replies, envelope, partial);
    let data = match replies.get(1 + envelope.recipients.len()) {
        Some(reply) => Some(reply.clone()),
        None if stop.is_none() => Some(connection.command(Stage::Data, "DATA\r\n").await.map_err(early)?),
        None => None,
    };
    match (stop, data) {
        (Some(verdict), data) => {
            let clean = close(connection, &replies, data.as_ref(), accepted).await;
            Ok(Ended { verdict, refused, accepted: accepted > 0, clean })
        }
        (None, Some(data)) if data.code == 354 => {
            let ended = content(connection, body).await?;
            Ok(Ended { refused, ..ended })
        }
        (None, data) => {
            let reply = data.unwrap_or_else(no_reply);
            let clean = close(connection, &replies, Some(&reply), accepted).await;
            let verdict = Verdict::of_reply(classify(Stage::Data, &reply), reply);
            Ok(Ended { verdict, refused, accepted: accepted > 0, clean })
        }
    }
}

/// A transaction that was only tried on.
#[derive(Debug)]
pub struct Tried {
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
pub async fn rehearse(connection: &mut Connection, envelope: &Envelope) -> Result<Tried, ConnectionError> {
    if let Some(reply) = unsupported(connection.capabilities, envelope, 0) {
        let stop = Some(Verdict::of_reply(Outcome::RejectMessage(None), reply));
        return Ok(Tried { replies: vec![], stop, accepted: false });
    }
    let mut commands = commands(connection.capabilities, envelope, 0, Partial::Never);
    commands.retain(|(stage, _)| *stage != Stage::Data);
    let replies = timeout(limit::ENVELOPE, converse(connection, &commands)).await;
    let replies = replies.unwrap_or(Err(ConnectionError::Timeout(Stage::Rcpt)))?;
    let Judged { stop, accepted, .. } = judge(&replies, envelope, Partial::Never);
    close(connection, &replies, None, accepted).await;
    let replies = commands.iter().map(|(stage, _)| *stage).zip(replies).collect();
    Ok(Tried { replies, stop, accepted: accepted > 0 })
}

/// Why the upstream cannot take this message at all, as the reply it would give.
fn unsupported(capabilities: Capabilities, envelope: &Envelope, len: u64) -> Option<Reply> {
    let refuse = |code, subject, detail, text: &str| {
        Some(Reply::new(code, EnhancedCode::new(5, subject, detail), text))
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
    partial: Partial,
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
    if capabilities.pipelining && (partial != Partial::Never || envelope.recipients.len() == 1) {
        commands.push((Stage::Data, "DATA\r\n".to_owned()));
    }
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
            replies.push(connection.command(first, together).await?);
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

/// What the replies to the envelope come to.
struct Judged {
    /// The fate of the message, when it goes no further.
    stop: Option<Verdict>,
    /// The recipients that were refused.
    refused: Vec<Refused>,
    /// How many were accepted.
    accepted: usize,
}

fn judge(replies: &[Reply], envelope: &Envelope, partial: Partial) -> Judged {
    let verdict = |stage, reply: &Reply| Verdict::of_reply(classify(stage, reply), reply.clone());
    let stopped = |verdict| Judged { stop: Some(verdict), refused: vec![], accepted: 0 };
    let Some((mail, rest)) = replies.split_first() else {
        return stopped(Verdict::of_reply(Outcome::Transient(None), no_reply()));
    };
    if mail.code / 100 != 2 {
        return stopped(verdict(Stage::Mail, mail));
    }
    let answers = rest.iter().take(envelope.recipients.len()).enumerate();
    let refused: Vec<Refused> = answers
        .clone()
        .filter(|(_, reply)| reply.code / 100 != 2)
        .map(|(recipient, reply)| Refused { recipient, verdict: verdict(Stage::Rcpt, reply) })
        .collect();
    let accepted = answers.len() - refused.len();
    // The end of the conversation is about those that it left without an answer, too, and about those accepted before.
    let farewell = refused.last().filter(|last| last.verdict.reply.as_ref().is_some_and(|it| it.code == 421));
    let stop = if farewell.is_some() || answers.len() < envelope.recipients.len() {
        let silence = || Verdict::of_reply(Outcome::Transient(None), no_reply());
        Some(farewell.map_or_else(silence, |last| last.verdict.clone()))
    } else if accepted == 0 || stops(&refused, partial) {
        gravest(&refused).cloned()
    } else {
        None
    };
    Judged { stop, refused, accepted }
}

/// Whether these refusals keep the message from those who were accepted.
fn stops(refused: &[Refused], partial: Partial) -> bool {
    match partial {
        Partial::Never => !refused.is_empty(),
        Partial::UnlessRejected => refused
            .iter()
            .any(|one| matches!(one.verdict.outcome, Outcome::RejectRecipient | Outcome::RejectMessage(_))),
        Partial::Always => false,
    }
}

/// The refusal that speaks for the message: what stops the route before what will never work before what may.
fn gravest(refused: &[Refused]) -> Option<&Verdict> {
    let rank = |outcome: Outcome| match outcome {
        Outcome::RouteFault(_) | Outcome::Quota(_) => 0,
        Outcome::RejectMessage(_) | Outcome::RejectRecipient => 1,
        _ => 2,
    };
    refused.iter().map(|one| &one.verdict).min_by_key(|verdict| rank(verdict.outcome))
}

fn no_reply() -> Reply {
    Reply::new(451, EnhancedCode::new(4, 4, 2), "the upstream closed the connection")
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
async fn content(connection: &mut Connection, body: &Body) -> Result<Ended, Interrupted> {
    let streamed = timeout(limit::content(body.len()), stream(connection, body)).await;
    match streamed.unwrap_or(Err(Stopped::Upstream(ConnectionError::Timeout(Stage::Message)))) {
        Ok(()) => {}
        Err(Stopped::Local(error)) => {
            // Without its end the upstream drops the message with the connection.
            let text = format!("the message could not be read from the local disk: {error}");
            let verdict = Verdict::without_reply(Outcome::Transient(None), text);
            return Ok(Ended { accepted: true, ..Ended::without(verdict) });
        }
        Err(Stopped::Upstream(error)) => return last_words(connection, error).await,
    }
    let unknown = |error| Interrupted { error, undelivered: false, before_data: false };
    let reply = connection.reply(Stage::Message).await.map_err(unknown)?;
    let clean = reply.code != 421 && reply.code / 100 != 3;
    let verdict = Verdict::of_reply(classify(Stage::Message, &reply), reply);
    Ok(Ended { accepted: true, clean, ..Ended::without(verdict) })
}

enum Stopped {
    Local(std::io::Error),
    Upstream(ConnectionError),
}

/// Writes the encoded content. The end goes out with the last piece, so that a small message is one write.
async fn stream(connection: &mut Connection, body: &Body) -> Result<(), Stopped> {
    let (mut reader, mut encoder) = (body.reader(), Encoder::default());
    // Room for doubled dots and the end.
    let size = usize::try_from(body.len()).unwrap_or(usize::MAX).min(crate::body::MEMORY_BYTES);
    let mut out = Vec::with_capacity(size + 64);
    while let Some(piece) = reader.next().await.map_err(Stopped::Local)? {
        if out.len() + piece.len() > crate::body::MEMORY_BYTES {
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
async fn last_words(connection: &mut Connection, error: ConnectionError) -> Result<Ended, Interrupted> {
    match timeout(LAST_WORDS, connection.reply(Stage::Message)).await {
        Ok(Ok(reply)) if !reply.is_positive() => {
            let verdict = Verdict::of_reply(classify(Stage::Message, &reply), reply);
            Ok(Ended { accepted: true, ..Ended::without(verdict) })
        }
        // The end of the data may have been among what was written last.
        _ => Err(Interrupted { error, undelivered: false, before_data: false }),
    }
}

impl Interrupted {
    /// The verdict on the message.
    pub fn verdict(&self) -> Verdict {
        let reason = self.error.reason().unwrap_or(Reason::UpstreamProtocolError);
        let fate = if self.undelivered { "" } else { "; whether the message was accepted is unknown" };
        Verdict::without_reply(Outcome::Transient(Some(reason)), format!("{}{fate}", self.error))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::delivery::connection::tests::{Peer, connection};
    use crate::envelope::{Address, QueueId, ReversePath};

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            id: QueueId::new(Timestamp::UNIX_EPOCH, 1),
            message_id: "<1@contoso.com>".into(),
            client_name: "app".into(),
            reverse_path: ReversePath::Address(Address::parse("noreply@contoso.com").unwrap()),
            recipients: recipients.iter().map(|to| Address::parse(to).unwrap()).collect(),
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
        }
    }

    const EXCHANGE: Capabilities = Capabilities {
        pipelining: true,
        eight_bit_mime: true,
        smtp_utf8: true,
        size: true,
        max_size: Some(1000),
        xoauth2: true,
        login: true,
        starttls: false,
    };

    fn wire(capabilities: Capabilities, envelope: &Envelope, partial: Partial) -> String {
        commands(capabilities, envelope, 42, partial).into_iter().map(|(_, command)| command).collect()
    }

    fn replies(lines: &[&str]) -> Vec<Reply> {
        let parse = |line: &&str| Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0;
        lines.iter().map(parse).collect()
    }

    const ALL: [Partial; 3] = [Partial::Never, Partial::UnlessRejected, Partial::Always];

    /// The outcome that stops the message, and the positions of those refused.
    fn judged(lines: &[&str], to: &[&str], partial: Partial) -> (Option<Outcome>, Vec<usize>) {
        let Judged { stop, refused, .. } = judge(&replies(lines), &envelope(to), partial);
        (stop.map(|verdict| verdict.outcome), refused.iter().map(|one| one.recipient).collect())
    }

    #[test]
    fn one_recipient_is_one_round_trip() {
        for partial in ALL {
            assert_eq!(
                wire(EXCHANGE, &envelope(&["a@b.example"]), partial),
                "MAIL FROM:<noreply@contoso.com> SIZE=42\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
            );
        }
    }

    #[test]
    fn several_recipients_are_one_round_trip_unless_it_is_all_or_none() {
        let to = envelope(&["a@b.example", "c@d.example"]);
        for (partial, end) in ALL.into_iter().zip(["RCPT TO:<c@d.example>\r\n", "DATA\r\n", "DATA\r\n"]) {
            assert!(wire(EXCHANGE, &to, partial).ends_with(end), "{partial:?}");
        }
    }

    #[test]
    fn extensions_are_used_only_when_announced() {
        let mut envelope = envelope(&["é@b.example"]);
        envelope.body = BodyType::EightBitMime;
        assert!(
            wire(EXCHANGE, &envelope, Partial::Never)
                .starts_with("MAIL FROM:<noreply@contoso.com> SIZE=42 BODY=8BITMIME SMTPUTF8\r\n")
        );
        let plain = Capabilities { size: false, pipelining: false, ..EXCHANGE };
        assert_eq!(
            wire(plain, &self::envelope(&["a@b.example"]), Partial::Always),
            "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<a@b.example>\r\n"
        );
    }

    #[test]
    fn what_the_upstream_cannot_take_is_refused_before_it_is_asked() {
        let mut message = envelope(&["a@b.example"]);
        assert_eq!(unsupported(EXCHANGE, &message, 1000), None);
        assert_eq!(unsupported(EXCHANGE, &message, 1001).unwrap().code, 552);
        message.body = BodyType::EightBitMime;
        let seven_bit = Capabilities { eight_bit_mime: false, ..EXCHANGE };
        assert_eq!(unsupported(seven_bit, &message, 1).unwrap().code, 554);
        let ascii = Capabilities { smtp_utf8: false, ..EXCHANGE };
        assert_eq!(unsupported(ascii, &envelope(&["é@b.example"]), 1).unwrap().code, 553);
    }

    const TWO: [&str; 2] = ["a@b.example", "c@d.example"];
    const UNKNOWN: &str = "550 5.1.1 unknown";
    const BUSY: &str = "450 4.2.1 busy";

    #[test]
    fn all_accepted_is_no_refusal() {
        for partial in ALL {
            assert_eq!(judged(&["250 ok", "250 ok", "354 go"], &["a@b.example"], partial), (None, vec![]));
        }
    }

    #[test]
    fn all_or_none_is_stopped_by_any_refusal() {
        let to = ["a@b.example", "c@d.example", "e@f.example"];
        let (stop, refused) = judged(&["250 ok", BUSY, UNKNOWN, "250 ok"], &to, Partial::Never);
        assert_eq!((stop, refused), (Some(Outcome::RejectRecipient), vec![0, 1]));
        let (stop, refused) = judged(&["250 ok", "250 ok", BUSY, "250 ok"], &to, Partial::Never);
        assert_eq!((stop, refused), (Some(Outcome::Transient(None)), vec![1]));
    }

    #[test]
    fn a_refusal_for_now_keeps_the_message_from_nobody_else() {
        for partial in [Partial::UnlessRejected, Partial::Always] {
            assert_eq!(judged(&["250 ok", BUSY, "250 ok", "354 go"], &TWO, partial), (None, vec![0]));
        }
    }

    #[test]
    fn a_refusal_for_good_stops_the_message_while_the_application_waits() {
        let lines = ["250 ok", UNKNOWN, "250 ok", "354 go"];
        let rejected = (Some(Outcome::RejectRecipient), vec![0]);
        assert_eq!(judged(&lines, &TWO, Partial::UnlessRejected), rejected);
        assert_eq!(judged(&lines, &TWO, Partial::Always), (None, vec![0]));
    }

    #[test]
    fn nobody_accepted_is_the_end_whatever_is_allowed() {
        for partial in ALL {
            let (stop, refused) = judged(&["250 ok", BUSY, UNKNOWN, "354 go"], &TWO, partial);
            assert_eq!((stop, refused), (Some(Outcome::RejectRecipient), vec![0, 1]), "{partial:?}");
        }
    }

    #[test]
    fn a_fault_of_the_route_speaks_before_a_refused_recipient() {
        let lines = ["250 ok", UNKNOWN, "550 5.7.705 Access denied"];
        let (stop, _) = judged(&lines, &TWO, Partial::Never);
        assert_eq!(stop, Some(Outcome::RouteFault(Reason::TenantBlocked)));
    }

    #[test]
    fn replies_that_never_came_are_transient_for_those_without_one() {
        let three = ["a@b.example", "c@d.example", "e@f.example"];
        for partial in ALL {
            let (stop, refused) = judged(&["250 ok", UNKNOWN, "421 4.3.2 closing"], &three, partial);
            assert_eq!(stop, Some(Outcome::Transient(Some(Reason::UpstreamUnavailable))));
            assert_eq!(refused, [0, 1]);
            let (stop, _) = judged(&["250 ok"], &TWO, partial);
            assert!(matches!(stop, Some(Outcome::Transient(_))));
        }
    }

    /// Sends to these recipients while the peer plays its part, and gives both ends of the story.
    async fn conversation<T>(
        to: &[&str],
        partial: Partial,
        play: impl AsyncFnOnce(&mut Peer) -> T,
    ) -> (Result<Ended, Interrupted>, T) {
        let (mut connection, mut peer) = connection("mx").await;
        let (to, body) = (envelope(to), Body::new("", "Subject: x\r\n\r\n.x\r\n"));
        tokio::join!(send(&mut connection, &to, &body, partial), play(&mut peer))
    }

    async fn lines(peer: &mut Peer, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(peer.line().await);
        }
        lines
    }

    const REJECTED: &str = "550 5.1.1 unknown\r\n";

    #[tokio::test(start_paused = true)]
    async fn the_whole_envelope_is_sent_before_anything_is_answered() {
        let (ended, ()) = conversation(&TWO, Partial::Always, async |peer| {
            // Would wait for ever if the client waited for a reply.
            assert_eq!(lines(peer, 4).await[3], "DATA\r\n");
            peer.say(&format!("250 ok\r\n{REJECTED}250 ok\r\n354 go\r\n")).await;
            assert_eq!(lines(peer, 4).await.concat(), "Subject: x\r\n\r\n..x\r\n.\r\n");
            peer.say("250 2.0.0 taken\r\n").await;
        })
        .await;
        let ended = ended.unwrap();
        assert_eq!((ended.verdict.outcome, ended.accepted, ended.clean), (Outcome::Delivered, true, true));
        assert_eq!(ended.refused.len(), 1);
        assert_eq!(ended.refused[0].verdict.outcome, Outcome::RejectRecipient);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_for_good_while_the_application_waits_leaves_no_message_behind() {
        let (ended, rest) = conversation(&TWO, Partial::UnlessRejected, async |peer| {
            lines(peer, 4).await;
            peer.say(&format!("250 ok\r\n{REJECTED}250 ok\r\n354 go\r\n")).await;
            peer.silence(Duration::from_secs(60)).await
        })
        .await;
        let ended = ended.unwrap();
        assert_eq!((ended.verdict.outcome, ended.clean), (Outcome::RejectRecipient, false));
        assert_eq!(rest, "", "no end of the data, which would send an empty message");
    }

    #[tokio::test(start_paused = true)]
    async fn a_354_for_nobody_is_ended_at_once_and_the_connection_goes_on() {
        for partial in [Partial::UnlessRejected, Partial::Always] {
            let (ended, ()) = conversation(&TWO, partial, async |peer| {
                lines(peer, 4).await;
                peer.say(&format!("250 ok\r\n{REJECTED}{REJECTED}354 go\r\n")).await;
                assert_eq!(peer.line().await, ".\r\n");
                peer.say("554 5.5.1 no valid recipients\r\n").await;
                assert_eq!(peer.line().await, "RSET\r\n");
                peer.say("250 2.0.0 reset\r\n").await;
            })
            .await;
            let ended = ended.unwrap();
            assert_eq!((ended.verdict.outcome, ended.clean), (Outcome::RejectRecipient, true), "{partial:?}");
            assert_eq!(ended.refused.len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_at_any_point_is_transient_and_the_connection_is_not_used_again() {
        let before = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n"];
        for said in before {
            let (ended, ()) = conversation(&TWO, Partial::Always, async |peer| {
                lines(peer, 4).await;
                peer.say(&format!("{said}421 4.3.2 closing\r\n")).await;
            })
            .await;
            let ended = ended.unwrap();
            assert!(matches!(ended.verdict.outcome, Outcome::Transient(_)), "{said}: {:?}", ended.verdict);
            assert!(!ended.clean, "{said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_before_the_content_cannot_have_delivered_and_one_behind_it_can() {
        let (ended, ()) = conversation(&TWO, Partial::Always, async |peer| {
            lines(peer, 4).await;
            peer.say("250 ok\r\n250 ok\r\n").await;
            peer.hang_up();
        })
        .await;
        let cut = ended.unwrap_err();
        assert!(cut.before_data && cut.undelivered, "{cut:?}");
        let (ended, ()) = conversation(&TWO, Partial::Always, async |peer| {
            lines(peer, 4).await;
            peer.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n").await;
            lines(peer, 4).await;
            peer.hang_up();
        })
        .await;
        let cut = ended.unwrap_err();
        assert!(!cut.before_data && !cut.undelivered, "{cut:?}");
        assert!(cut.verdict().text.contains("unknown"), "{:?}", cut.verdict());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_drips_does_not_collect_the_limits_of_all_replies() {
        let started = crate::clock::now();
        let many: Vec<String> = (0..90).map(|n| format!("reader{n}@fabrikam.com")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let ((mut connection, mut peer), to) = (connection("mx").await, envelope(&many));
        let body = Body::new("", "x\r\n");
        let drip = async {
            lines(&mut peer, 92).await;
            peer.drip(&format!("250 {}\r\n", "ok ".repeat(60)).repeat(92)).await;
        };
        let ended = tokio::select! {
            ended = send(&mut connection, &to, &body, Partial::Always) => ended,
            () = drip => panic!("the replies ended"),
        };
        assert!(matches!(ended.unwrap_err().error, ConnectionError::Timeout(_)));
        assert_eq!(started.elapsed(), limit::ENVELOPE);
    }
}

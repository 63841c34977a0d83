//! Makes notifications and keeps them like any other message: they are tried, put off and given up as others are, but
//! for one thing: a notification never causes another.

use bytes::Bytes;
use jiff::Timestamp;
use mailroute_route::RouteFile;
use mailroute_route::file::Method;

use super::fates::EXPIRED;
use super::notification::{self, Notice, Unreached};
use super::{Queue, chain};
use crate::body::Body;
use crate::clock;
use crate::envelope::{BodyType, Envelope, QueueId, ReversePath};
use crate::spool::{Entry, Fate, Kind, Progress, Trouble};

/// Tells the sender about the recipients at `failed`, where the route says so. The notification is durable before the
/// failure counts as told.
pub(super) async fn sender(
    queue: &Queue,
    route: &RouteFile,
    (entry, progress): (&Entry, &Progress),
    failed: &[usize],
    now: Timestamp,
) {
    if !route.delivery.dead_letters.notify_sender || entry.kind == Kind::Notification {
        return;
    }
    let header = match queue.spool.load(&entry.envelope.id).await {
        Ok(kept) => header_of(&kept.body).await,
        Err(_) => Bytes::new(),
    };
    let Some((note, body)) = compose(route, (entry, progress), failed, &header, now) else { return };
    let progress = Progress::fresh(&note);
    let id = note.envelope.id.clone();
    match queue.keep(note, &body, progress, false).await {
        Ok(()) => {
            queue.metrics.notified();
            tracing::info!(queue_id = %entry.envelope.id, notification = %id, "queued a notification for the sender");
        }
        Err(error) => {
            tracing::error!(queue_id = %entry.envelope.id, error = chain(&error), "the notification for the sender could not be queued");
        }
    }
}

/// The notification about the recipients at `failed`, as a message of its own.
fn compose(
    route: &RouteFile,
    (entry, progress): (&Entry, &Progress),
    failed: &[usize],
    header: &[u8],
    now: Timestamp,
) -> Option<(Entry, Body)> {
    let unreached: Vec<Unreached<'_>> = failed
        .iter()
        .filter_map(|&position| match progress.fates.get(position)? {
            Fate::Failed(trouble) => unreached(&entry.envelope, position, trouble),
            Fate::Waiting | Fate::Delivered => None,
        })
        .collect();
    let id = QueueId::new(now, random());
    let from = author(route);
    let notice = Notice {
        host_name: &route.ehlo_name,
        from: &from,
        id: id.as_str(),
        original: &entry.envelope,
        accepted: entry.accepted,
        unreached: &unreached,
        header,
        now,
    };
    let text = notice.compose()?;
    let to = notification::addressee(&entry.envelope, header)?.clone();
    let envelope = Envelope {
        message_id: format!("<{id}@{}>", route.ehlo_name),
        id,
        client_name: route.ehlo_name.clone(),
        // RFC 5321 §4.5.5: a notification has no reverse path, so that none can follow it.
        reverse_path: ReversePath::Null,
        body: if text.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
        smtp_utf8: !to.is_ascii(),
        recipients: vec![to],
        size: None,
    };
    let note = Entry { envelope, kind: Kind::Notification, accepted: now };
    Some((note, Body::new("", Bytes::from(text))))
}

fn unreached<'a>(envelope: &'a Envelope, position: usize, trouble: &'a Trouble) -> Option<Unreached<'a>> {
    Some(Unreached {
        recipient: envelope.recipients.get(position)?,
        text: &trouble.text,
        host: trouble.host.as_deref(),
        at: trouble.at,
        expired: trouble.outcome == EXPIRED,
    })
}

/// An address that the upstream lets the route send from.
fn author(route: &RouteFile) -> String {
    match &route.method {
        Method::ClientSubmission(submission) => submission.mailbox.clone(),
        Method::SmtpRelay(relay) => postmaster(&relay.accepted_domains, &route.ehlo_name),
        Method::DirectSend(direct) => postmaster(&direct.accepted_domains, &route.ehlo_name),
    }
}

fn postmaster(domains: &[String], otherwise: &str) -> String {
    format!("postmaster@{}", domains.first().map_or(otherwise, String::as_str))
}

/// The beginning of a message, as far as its header goes.
pub(crate) async fn header_of(body: &Body) -> Bytes {
    let (mut reader, mut beginning) = (body.reader(), Vec::new());
    loop {
        if let Some(header) = notification::header_of(&beginning) {
            return Bytes::copy_from_slice(header);
        }
        match reader.next().await {
            Ok(Some(piece)) => beginning.extend_from_slice(&piece),
            // The whole message is its header, or the rest cannot be read.
            Ok(None) | Err(_) => return beginning.into(),
        }
    }
}

/// What tells the ids of two messages apart that are made in the same microsecond.
fn random() -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = clock::nonce();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

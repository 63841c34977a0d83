//! Makes notifications and keeps them like any other message: they are tried, put off and given up as others are, but
//! for one thing: a notification never causes another.

use bytes::Bytes;
use jiff::Timestamp;
use mailroute_route::RouteFile;
use mailroute_route::file::Method;
use mailroute_route::text::chain;

use super::Queue;
use super::notification::{self, Notice, Unreached};
use super::recipients::EXPIRED;
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use crate::smtp::recipients::{Judgement, Recipients};
use crate::spool::{DeliveryProblem, Entry, Kind, Progress, RecipientStatus};

/// What a message failed at.
pub(super) struct Failure<'a> {
    /// The message.
    pub entry: &'a Entry,
    /// What has become of its recipients.
    pub progress: &'a Progress,
    /// Positions of the recipients that it has failed for now.
    pub failed: &'a [usize],
}

/// Tells the sender of a failure, where the route says so. The notification is durable before the failure counts as
/// reported.
pub(super) async fn sender(queue: &Queue, route: &RouteFile, failure: Failure<'_>, now: Timestamp) {
    let entry = failure.entry;
    if !route.delivery.dead_letters.notify_sender || entry.kind == Kind::Notification {
        return;
    }
    let header = match queue.spool.load(&entry.envelope.id).await {
        Ok(kept) => header_of(&kept.body).await,
        Err(_) => Bytes::new(),
    };
    let Some(Notification { entry: note, body }) = compose(route, &failure, &header, now) else { return };
    let progress = Progress::fresh(&note);
    match queue.store(&note, progress, &body, false).await {
        Ok(()) => {
            queue.metrics.notified();
            let (queue_id, notification) = (&entry.envelope.id, &note.envelope.id);
            tracing::info!(%queue_id, %notification, "queued a notification for the sender");
        }
        Err(error) => {
            tracing::error!(queue_id = %entry.envelope.id, error = chain(&error), "the notification for the sender could not be queued");
        }
    }
}

/// A notification, as a message of its own.
struct Notification {
    entry: Entry,
    body: Body,
}

fn compose(route: &RouteFile, failure: &Failure<'_>, header: &[u8], now: Timestamp) -> Option<Notification> {
    let &Failure { entry, progress, failed } = failure;
    let unreached: Vec<Unreached<'_>> = failed
        .iter()
        .filter_map(|&position| match progress.statuses.get(position)? {
            RecipientStatus::Failed(problem) => unreached(&entry.envelope, position, problem),
            RecipientStatus::Waiting | RecipientStatus::Delivered => None,
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
    let message = notice.compose()?;
    let to = allowed(route, notification::addressee(&entry.envelope, header)?)?;
    let envelope = Envelope {
        message_id: format!("<{id}@{}>", route.ehlo_name),
        id,
        client_name: route.ehlo_name.clone(),
        // RFC 5321 §4.5.5: a notification has no reverse path, so that none can follow it.
        reverse_path: ReversePath::Null,
        body: if message.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime },
        smtp_utf8: !to.is_ascii(),
        recipients: vec![to],
        size: None,
        archive: None,
        mailbox: entry.envelope.mailbox.clone(),
    };
    let entry = Entry { envelope, kind: Kind::Notification, accepted: now };
    Some(Notification { entry, body: Body::new("", Bytes::from(message)) })
}

fn unreached<'a>(
    envelope: &'a Envelope,
    position: usize,
    problem: &'a DeliveryProblem,
) -> Option<Unreached<'a>> {
    Some(Unreached {
        recipient: envelope.recipients.get(position)?,
        text: &problem.text,
        host: problem.host.as_deref(),
        at: problem.at,
        expired: problem.outcome == EXPIRED,
    })
}

/// Whom a notification for `addressee` may go to by the route's rule on recipients; nothing when it may go to nobody.
fn allowed(route: &RouteFile, addressee: &Address) -> Option<Address> {
    let Some(rule) = Recipients::of(route) else { return Some(addressee.clone()) };
    match rule.judge(addressee) {
        Judgement::Allowed => Some(addressee.clone()),
        Judgement::Redirected(to) => Some(to.clone()),
        Judgement::Refused(_) => None,
    }
}

/// An address that the upstream lets the route send from.
fn author(route: &RouteFile) -> String {
    match &route.method {
        Method::ClientSubmission(submission) => submission.mailbox.clone(),
        Method::Graph(graph) => graph.mailbox.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::SAMPLE;

    #[test]
    fn a_notification_goes_to_nobody_whom_a_message_may_not_go_to() {
        let mut route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        let address = |text: &str| Address::parse(text).unwrap();
        let (app, ann) = (address("app@contoso.com"), address("ann@fabrikam.com"));
        assert_eq!(allowed(&route, &ann), Some(ann.clone()));
        let mut rule =
            mailroute_route::file::Recipients { allow: vec!["*@contoso.com".into()], redirect_to: None };
        route.recipients = Some(rule.clone());
        assert_eq!((allowed(&route, &app), allowed(&route, &ann)), (Some(app.clone()), None));
        rule.redirect_to = Some("staging@contoso.com".into());
        route.recipients = Some(rule);
        assert_eq!(
            (allowed(&route, &app), allowed(&route, &ann)),
            (Some(app), Some(address("staging@contoso.com")))
        );
    }
}

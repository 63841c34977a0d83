//! The body of an admitted request: whether the message is accepted, and what Exchange does with it after the 202.
//!
//! Pure. The order: base64, size, From, recipients. Everything later is Exchange's, which tells the mailbox by a non-delivery
//! report, not the client.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use super::{
    admission::{Admitted, Head, throttled},
    mime::{self, addresses},
};
use crate::{
    config::{OverRate, Oversize},
    faults::GraphAnswer,
    limits::Counter,
    mailbox::{ConnectionFacts, Message, Recipient},
    office::Office,
    records::NonDeliveryReport,
    relay::attribution::{Attribution, By},
    replies::{Line, fill},
    submission::message::{all, careless_fields, headers},
    tenant_limits,
    violations::Kind,
};

/// The body of a request.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// As many bytes as are kept.
    pub bytes: Vec<u8>,
    /// How many there were.
    pub octets: usize,
}

/// A message that Graph takes.
#[derive(Debug)]
pub(super) struct Taken {
    mime: Vec<u8>,
    recipients: Vec<String>,
    from: Vec<String>,
}

/// Whether the message is taken.
///
/// # Errors
/// The refusal; for a message that is silently dropped it is a 200.
pub(super) fn take(
    office: &mut Office,
    head: &Head,
    admitted: &Admitted,
    body: &Body,
    now: Timestamp,
) -> Result<Taken, GraphAnswer> {
    let graph = &office.config.graph;
    let (window, seconds) = ((graph.upload_bytes, graph.upload_milliseconds), graph.retry_after_seconds);
    let counted_by = admitted.counted_by();
    if office.usage.spend((Counter::GraphUpload, &counted_by), body.octets as u64, window, now).is_err() {
        let detail = format!("more than {} bytes in {} ms", window.0, window.1);
        office.violation(now, head.connection, Kind::UploadRate, detail);
        return Err(throttled("Application is over its upload limit.", seconds));
    }
    if head.content_type.split(';').next().map(str::trim) != Some("text/plain") {
        let detail = format!("the content type {:?} is not that of MIME", head.content_type);
        office.violation(now, head.connection, Kind::Protocol, detail);
        return Err(GraphAnswer::new(400).code("UnableToDeserializePostBody"));
    }
    let mime = if body.octets > body.bytes.len() {
        return Err(oversize(office, head, body.octets / 4 * 3, now));
    } else {
        decoded(&body.bytes).ok_or(GraphAnswer::new(400).code("ErrorMimeContentInvalidBase64String"))?
    };
    if mime.len() > office.config.graph.mime_bytes {
        return Err(oversize(office, head, mime.len(), now));
    }
    let found = addresses(&mime);
    let mailbox = office.config.directory.mailbox(&admitted.mailbox).map(|(_, mailbox)| mailbox);
    if !found.from.iter().all(|from| mailbox.is_some_and(|mailbox| mailbox.may_send_as(from))) {
        return Err(GraphAnswer::new(403).code("ErrorSendAsDenied"));
    }
    if found.invalid || found.recipients.is_empty() {
        return Err(GraphAnswer::new(400).code("ErrorInvalidRecipients"));
    }
    Ok(Taken { mime, recipients: found.recipients, from: found.from })
}

/// Base64 in one line or many.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let whole: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD.decode(whole).ok().filter(|mime| !mime.is_empty())
}

fn oversize(office: &mut Office, head: &Head, bytes: usize, now: Timestamp) -> GraphAnswer {
    let detail = format!("{bytes} bytes, over {}", office.config.graph.mime_bytes);
    office.violation(now, head.connection, Kind::MessageSize, detail);
    match office.config.graph.oversize {
        Oversize::EntityTooLarge => GraphAnswer::new(413).code("RequestEntityTooLarge").html(),
        Oversize::MessageSizeExceeded => GraphAnswer::new(400).code("ErrorMessageSizeExceeded"),
        Oversize::SilentlyDropped => GraphAnswer::new(200),
    }
}

/// What Exchange does with a message that Graph has taken: delivers it, so many times, or reports that it does not.
pub(super) fn deliver(
    office: &mut Office,
    admitted: &Admitted,
    taken: &Taken,
    facts: &ConnectionFacts,
    copies: usize,
    now: Timestamp,
) {
    let fields = headers(&taken.mime);
    for (kind, detail) in careless_fields(&fields) {
        office.violation(now, facts.id, kind, detail);
    }
    let given = all(&fields, "Message-ID").next().filter(|id| id.starts_with('<')).map(str::to_owned);
    let made = || format!("<{:x}{:04x}@PROD.OUTLOOK.COM>", now.as_millisecond(), office.accepted + 1);
    let message_id = given.unwrap_or_else(made);
    if let Err((line, breach)) = within_limits(office, admitted, taken, now) {
        office.violation(now, facts.id, breach.0, breach.1);
        office.report_non_delivery(NonDeliveryReport {
            at: now,
            mailbox: admitted.mailbox.clone(),
            message_id,
            recipients: taken.recipients.clone(),
            reason: fill(line.text(), &[]),
        });
        return;
    }
    let graph = &office.config.graph;
    let seen = |name: &str| {
        !graph.removes_unseen_headers || graph.seen_headers.iter().any(|seen| seen.eq_ignore_ascii_case(name))
    };
    let data = mime::delivered(&taken.mime, seen);
    for _ in 0..copies {
        office.accepted += 1;
        let recipient = |address: &String| Recipient { address: address.clone(), parameters: Vec::new() };
        let attribution =
            Attribution { tenant: admitted.token.tenant.clone(), by: By::Login, connector: None };
        let message = Message {
            id: office.accepted,
            received_at: now,
            mailbox: admitted.mailbox.clone(),
            sent_items: true,
            attribution: Some(attribution),
            mail_from: admitted.mailbox.clone(),
            mail_parameters: Vec::new(),
            recipients: taken.recipients.iter().map(recipient).collect(),
            message_id: message_id.clone(),
            headers: headers(&data),
            data: data.clone(),
            token: admitted.token.clone(),
            connection: facts.clone(),
        };
        office.keep(message, data.len());
    }
}

/// Exchange's limits, shared with client submission of the same mailbox. A message above the rate is delivered late, which here is
/// at once, when that is what happens at client submission.
fn within_limits(
    office: &mut Office,
    admitted: &Admitted,
    taken: &Taken,
    now: Timestamp,
) -> Result<(), (Line, (Kind, String))> {
    let Office { config, usage, violations, .. } = office;
    let limits = &config.limits;
    let Some((tenant, mailbox)) = config.directory.mailbox(&admitted.mailbox) else { return Ok(()) };
    let most = mailbox.recipient_limit.unwrap_or(limits.recipients_per_message);
    if taken.recipients.len() > most {
        let detail = format!("more than {most} recipients in a message");
        return Err((Line::RecipientLimit, (Kind::RecipientsPerMessage, detail)));
    }
    if usage.start_message(&mailbox.address, limits, now).is_err() {
        let detail = "more messages in a minute than the mailbox may send".to_owned();
        if limits.over_rate == OverRate::Refuse {
            return Err((Line::MessageRate, (Kind::MessageRate, detail)));
        }
        violations.push(crate::violations::Violation {
            at: now,
            connection: 0,
            kind: Kind::MessageRate,
            detail,
        });
    }
    let senders: Vec<&str> =
        std::iter::once(mailbox.address.as_str()).chain(taken.from.iter().map(String::as_str)).collect();
    let recipients: Vec<&str> = taken.recipients.iter().map(String::as_str).collect();
    tenant_limits::spend(usage, limits, tenant, &senders, &recipients, now)
        .map_err(|(line, kind, detail)| (line, (kind, detail)))?;
    if !usage.spend_recipients(&mailbox.address, recipients.len(), limits, now) {
        let detail = format!("more than {} recipients in a day", limits.recipients_per_day);
        return Err((Line::DailyRecipients, (Kind::RecipientsPerDay, detail)));
    }
    Ok(())
}

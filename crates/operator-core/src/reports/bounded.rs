//! What is taken of a report: its numbers are bounded, its texts are bounded and stripped of control characters, and observations
//! that contradict the list of reasons are left out.

use jiff::Timestamp;
use mailroute_route::condition::ConditionType;
use mailroute_route::control::{
    MAX_LEFT, MAX_MESSAGE_BYTES, MAX_MESSAGE_ID_BYTES, MailboxReport, Observation, Queue, Report, Usage,
};
use mailroute_route::file::MAX_MAILBOXES;

/// The most messages or recipients that one pod is believed to have. More than any spool holds or mailbox sends; the sum of all pods
/// stays a number that a status can hold, and no pod can bring a counter to its end.
pub(super) const MOST: u64 = 1_000_000;

/// The greatest age that a pod is believed, seconds: a year.
pub(super) const OLDEST_SECONDS: u64 = 365 * 24 * 60 * 60;

/// The report as far as it is believed.
pub(super) fn bounded(report: Report, now: Timestamp) -> Report {
    let mut observations: Vec<_> =
        ConditionType::OBSERVED.iter().filter_map(|condition| observation(&report, *condition)).collect();
    for observation in &mut observations {
        observation.message = plain(&observation.message);
        observation.at = observation.at.clamp(0, now.as_second().max(0));
    }
    Report {
        route: report.route,
        sidecar_version: plain(&report.sidecar_version),
        config_error: report.config_error.as_deref().map(plain),
        observations,
        queue: Queue {
            messages: report.queue.messages.min(MOST),
            oldest_seconds: report.queue.oldest_seconds.min(OLDEST_SECONDS),
            dead_letters: report.queue.dead_letters.min(MOST),
        },
        usage: usage(report.usage),
        gateway_error: report.gateway_error.as_deref().map(plain),
        // Leases are given out by it, and nobody reads it again.
        claim: None,
        mailboxes: report.mailboxes.iter().take(MAX_MAILBOXES).map(|of| mailbox(of, now)).collect(),
        left: report.left.iter().filter(|id| is_message_id(id)).take(MAX_LEFT).cloned().collect(),
        ..report
    }
}

fn mailbox(report: &MailboxReport, now: Timestamp) -> MailboxReport {
    let sensible =
        |met: &&Observation| met.reason.condition() == met.condition && !met.holds && !met.reason.holds();
    let trouble = report.trouble.as_ref().filter(sensible).map(|met| Observation {
        message: plain(&met.message),
        at: met.at.clamp(0, now.as_second().max(0)),
        ..met.clone()
    });
    MailboxReport { mailbox: plain(&report.mailbox), trouble, usage: usage(report.usage), claim: None }
}

fn usage(usage: Usage) -> Usage {
    Usage {
        messages_last_minute: usage.messages_last_minute.min(MOST),
        recipients_last_24h: usage.recipients_last_24h.min(MOST),
    }
}

/// Whether it can be printed as the Message-ID that it claims to be.
fn is_message_id(id: &str) -> bool {
    id.len() <= MAX_MESSAGE_ID_BYTES && id.chars().all(|c| !c.is_control() && !c.is_whitespace())
}

/// What the report says of a condition, if that makes sense. The last one counts.
fn observation(report: &Report, condition: ConditionType) -> Option<Observation> {
    let sensible = |o: &&Observation| {
        o.condition == condition && o.reason.condition() == condition && o.reason.holds() == o.holds
    };
    report.observations.iter().rfind(sensible).cloned()
}

fn plain(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)];
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

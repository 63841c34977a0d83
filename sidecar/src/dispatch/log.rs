//! The one log line for each attempt, and for each probe.

use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;

use super::Origin;
use crate::body::Body;
use crate::delivery::outcome::{Attempt, Outcome, Probe, Verdict};
use crate::envelope::Envelope;

/// The line for an attempt.
pub(super) fn attempt(
    route: &RouteFile,
    envelope: &Envelope,
    body: &Body,
    attempt: &Attempt,
    (origin, took): (Origin, Duration),
) {
    let Verdict { outcome, text, .. } = &attempt.verdict;
    let number = match origin {
        Origin::Live => 0,
        Origin::Queue(number) | Origin::ByHand(number) => number,
    };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                queue_id = %envelope.id,
                message_id = envelope.message_id,
                route = route.name,
                mailbox = route.method.mailbox(),
                sender = %envelope.reverse_path,
                recipients = envelope.recipients.len(),
                refused = attempt.refused.len(),
                bytes = body.len(),
                attempt = number,
                host = attempt.host,
                reply = text,
                outcome = outcome.as_str(),
                reason = outcome.reason().map(Reason::as_str),
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "delivery"
            )
        };
    }
    if *outcome == Outcome::Delivered {
        line!(info);
    } else {
        line!(warn);
    }
}

/// The line for a probe.
pub(super) fn probe(probe: &Probe) {
    match probe.met.last() {
        Some(last) if probe.is_well() => {
            tracing::info!(reason = last.reason.as_str(), met = last.text, "probe")
        }
        Some(last) => tracing::warn!(reason = last.reason.as_str(), met = last.text, "probe"),
        None => {}
    }
}

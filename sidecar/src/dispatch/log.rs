//! The log line for an attempt, and for a probe. A fault of the route is not written once for each message that meets it.

use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;

use super::{Origin, concerns_the_route};
use crate::body::Body;
use crate::delivery::outcome::{Attempt, Outcome, Probe, Verdict};
use crate::envelope::Envelope;
use crate::logging::faults::Due;

/// The line for an attempt. `due` is for one that met a fault of the route: a line of its own only when it is time for one,
/// or a person asked for the attempt.
pub(super) fn attempt(
    route: &RouteFile,
    envelope: &Envelope,
    body: &Body,
    attempt: &Attempt,
    (origin, took): (Origin, Duration),
    due: Option<Due>,
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
                repeated = due.map(|due| due.repeated).filter(|&repeated| repeated > 0),
                "delivery"
            )
        };
    }
    if *outcome == Outcome::Delivered {
        line!(info);
    } else if due.is_none() && concerns_the_route(*outcome) && !matches!(origin, Origin::ByHand(_)) {
        line!(debug);
    } else {
        line!(warn);
    }
}

/// The line for a probe that found the way open, or a fault when it is time for a line.
pub(super) fn probe(probe: &Probe, due: Option<Due>) {
    match probe.met.last() {
        Some(last) if probe.is_well() => {
            tracing::info!(reason = last.reason.as_str(), met = last.text, "probe")
        }
        Some(last) if due.is_some() => {
            tracing::warn!(reason = last.reason.as_str(), met = last.text, "probe")
        }
        Some(last) => tracing::debug!(reason = last.reason.as_str(), met = last.text, "probe"),
        None => {}
    }
}

//! The log line for an attempt, and for a probe. A fault of the route is not written once for each message that meets it.

use std::time::Duration;

use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;

use super::{Attempt, Origin};
use crate::logging::faults::Due;
use crate::outcome::effect::concerns_route;
use crate::outcome::{AttemptResult, DeliveryOutcome, Probe, Verdict};

/// The line for an attempt. `due` is for one that met a fault of the route: a line of its own only when it is time for one,
/// or a person asked for the attempt.
pub(super) fn attempt(
    route: &RouteFile,
    attempt: &Attempt<'_>,
    result: &AttemptResult,
    took: Duration,
    due: Option<Due>,
) {
    let Attempt { envelope, body, origin, .. } = *attempt;
    let Verdict { outcome, text, .. } = &result.verdict;
    let number = match origin {
        Origin::Live => 0,
        Origin::Queue(number) | Origin::Command(number) => number,
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
                refused = result.refused.len(),
                archive = envelope.archive_position().map(|at| result.verdict_for(at).outcome.as_str()),
                bytes = body.len(),
                attempt = number,
                host = result.host,
                reply = text,
                outcome = outcome.as_str(),
                reason = outcome.reason().map(Reason::as_str),
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                repeated = due.map(|due| due.repeated).filter(|&repeated| repeated > 0),
                "delivery"
            )
        };
    }
    if *outcome == DeliveryOutcome::Delivered {
        line!(info);
    } else if due.is_none() && concerns_route(*outcome) && !matches!(origin, Origin::Command(_)) {
        line!(debug);
    } else {
        line!(warn);
    }
}

/// The line for a probe that worked, or a fault when it is time for a line.
pub(super) fn probe(probe: &Probe, due: Option<Due>) {
    match probe.observations.last() {
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

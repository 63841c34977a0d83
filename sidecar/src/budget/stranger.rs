//! The turns of a sidecar that the operator has never answered, so that mail trickles where it would stop.
//!
//! Owns how a stranger's slice becomes a turn. Its slice follows from the pod's uid, from which the operator knows it too, and
//! leaves room for it as soon as it sees a pod of which nothing is heard.

use std::time::Duration;

use mailroute_limits::strangers;
use mailroute_route::control::Turn;

use super::{Limits, Spans};

/// The turn of the pod with this uid. None by limits so small that nothing can be kept free.
pub fn turn(uid: &str, limits: Limits, spans: Spans) -> Option<Turn> {
    if limits.messages.is_some_and(|messages| messages < 4) {
        return None;
    }
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let (minute, skew) = (spans.minute, spans.minute / 30);
    Some(Turn {
        index: strangers::slice(uid),
        of: strangers::SLICES,
        slice_millis: millis(minute).max(1),
        messages: 1,
        // As with all turns, clocks may differ a little, and neighbours do not meet.
        begin_millis: millis(2 * skew),
        last_millis: millis(minute / 2),
        cut_millis: millis(minute - 2 * skew),
        after_millis: millis(strangers::AFTER * minute),
        recipients: strangers::RECIPIENTS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_slice_that_the_operator_expects() {
        let limits = |messages| Limits { messages, recipients: None, connections: 1 };
        for uid in ["6c9e8e0a-1f7b-4b62-9d0e-000000000001", "6c9e8e0a-1f7b-4b62-9d0e-000000000002"] {
            let turn = turn(uid, limits(Some(30)), Spans::default()).unwrap();
            assert_eq!((turn.index, turn.of), (strangers::slice(uid), strangers::SLICES));
        }
        assert_eq!(turn("uid", limits(Some(3)), Spans::default()), None);
    }
}

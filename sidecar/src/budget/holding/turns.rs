//! Turns: the slices of time in which a sidecar sends while it does not reach the operator.

use std::time::Duration;

use mailroute_route::control::Turn;

/// The number of the slice that runs now and when it has to be over; none when it is another's, or too early or too late to
/// begin anything in it.
pub(super) fn running(turn: Turn, now: Duration) -> Option<(u64, Duration)> {
    let length = u128::from(turn.slice_millis.max(1));
    let number = u64::try_from(now.as_millis() / length).ok()?;
    let within = u64::try_from(now.as_millis() % length).ok()?;
    let mine = number % u64::from(turn.of.max(1)) == u64::from(turn.index);
    let begins = within >= turn.begin_millis && within <= turn.last_millis;
    let cut = now + Duration::from_millis(turn.cut_millis.saturating_sub(within));
    (mine && begins).then_some((number, cut))
}

/// When one begins next.
pub(super) fn next(turn: Turn, now: Duration) -> Duration {
    let (length, of) = (u128::from(turn.slice_millis.max(1)), u128::from(turn.of.max(1)));
    let (cycle, begin) = (length * of, length * u128::from(turn.index) + u128::from(turn.begin_millis));
    let millis = now.as_millis();
    let next = begin + cycle * (millis.saturating_sub(begin) / cycle + 1);
    let due = if begin > millis { begin } else { next };
    Duration::from_millis(u64::try_from(due).unwrap_or(u64::MAX))
}

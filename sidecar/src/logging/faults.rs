//! How often a fault is written to the log: where it begins, at growing pauses while it lasts, and where it ends, however
//! many messages meet it.
//!
//! Pure: time is passed in. Memory is bounded by the number of reasons.

use std::collections::BTreeMap;
use std::time::Duration;

use mailroute_route::condition::{ConditionType, Reason};

use crate::clock::Instant;

/// The pause after the first line; doubles with each further one.
const FIRST: Duration = Duration::from_secs(60);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(3600);

/// The faults that last, as the log has them.
#[derive(Debug, Default)]
pub struct FaultLog {
    faults: BTreeMap<Reason, Fault>,
}

#[derive(Debug)]
struct Fault {
    since: Instant,
    /// How often it was met.
    times: u64,
    /// How often since the last line.
    repeated: u64,
    next: Instant,
    pause: Duration,
}

/// A line that is due: a fault was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// How often it was met since the line before, that line and this one not counted.
    pub repeated: u64,
}

/// A line that is due: a fault is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which.
    pub reason: Reason,
    /// How long it lasted.
    pub lasted: Duration,
    /// How often it was met.
    pub times: u64,
}

impl FaultLog {
    /// A fault was met. Says whether it is time for a line.
    pub fn met(&mut self, reason: Reason, now: Instant) -> Option<Due> {
        let new = Fault { since: now, times: 0, repeated: 0, next: now, pause: FIRST };
        let fault = self.faults.entry(reason).or_insert(new);
        fault.times += 1;
        if now < fault.next {
            fault.repeated += 1;
            return None;
        }
        (fault.next, fault.pause) = (now + fault.pause, fault.pause.saturating_mul(2).min(LONGEST));
        Some(Due { repeated: std::mem::take(&mut fault.repeated) })
    }

    /// Everything works: all faults are over.
    pub fn works(&mut self, now: Instant) -> Vec<Over> {
        self.over(|_| true, now)
    }

    /// These conditions hold: the faults of them are over.
    pub fn holds(&mut self, conditions: &[ConditionType], now: Instant) -> Vec<Over> {
        self.over(|reason| conditions.contains(&reason.condition()), now)
    }

    fn over(&mut self, which: impl Fn(Reason) -> bool, now: Instant) -> Vec<Over> {
        let over = self.faults.extract_if(.., |reason, _| which(*reason));
        over.map(|(reason, fault)| Over {
            reason,
            lasted: now.saturating_duration_since(fault.since),
            times: fault.times,
        })
        .collect()
    }
}

/// A line that others may cause as often as they like: one in a minute is written.
#[derive(Debug, Default)]
pub struct Repeated {
    next: Option<Instant>,
    repeated: u64,
}

impl Repeated {
    /// Says whether it is time for a line.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.next.is_some_and(|next| now < next) {
            self.repeated += 1;
            return None;
        }
        self.next = Some(now + FIRST);
        Some(Due { repeated: std::mem::take(&mut self.repeated) })
    }
}

/// Writes the lines for faults that are over.
pub fn write(over: Vec<Over>) {
    for Over { reason, lasted, times } in over {
        tracing::info!(reason = reason.as_str(), seconds = lasted.as_secs(), times, "the fault is over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);
    const FAULT: Reason = Reason::FederationNotTrusted;

    #[test]
    fn a_fault_that_many_messages_meet_is_a_line_at_its_begin_at_growing_pauses_and_at_its_end() {
        let (mut log, start) = (FaultLog::default(), clock::now());
        let mut lines = Vec::new();
        // Three messages a second for an hour.
        for third in 0..3 * 3600_u32 {
            if log.met(FAULT, start + SECOND * third / 3).is_some() {
                lines.push(third / 3);
            }
        }
        assert_eq!(lines, [0, 60, 180, 420, 900, 1860]);
        let over = log.works(start + 3600 * SECOND);
        assert_eq!(over, [Over { reason: FAULT, lasted: 3600 * SECOND, times: 3 * 3600 }]);
        assert!(log.works(start + 3601 * SECOND).is_empty(), "once");
        assert_eq!(log.met(FAULT, start + 3602 * SECOND), Some(Due { repeated: 0 }), "it begins anew");
    }

    #[test]
    fn a_line_that_others_cause_is_written_once_a_minute() {
        let (mut line, start) = (Repeated::default(), clock::now());
        let lines: Vec<_> = (0..150_u32).filter_map(|n| line.due(start + SECOND * n)).collect();
        assert_eq!(lines, [0, 59, 59].map(|repeated| Due { repeated }));
    }

    #[test]
    fn faults_that_alternate_have_each_their_own_pauses() {
        let (mut log, now) = (FaultLog::default(), clock::now());
        let alternating = [FAULT, Reason::ConnectFailed].into_iter().cycle().take(100);
        assert_eq!(alternating.filter_map(|reason| log.met(reason, now)).count(), 2);
        let due = log.met(FAULT, now + FIRST);
        assert_eq!(due, Some(Due { repeated: 49 }));
    }

    #[test]
    fn what_holds_ends_only_the_faults_of_its_condition() {
        let (mut log, now) = (FaultLog::default(), clock::now());
        log.met(FAULT, now);
        log.met(Reason::DailyQuotaExceeded, now);
        let over = log.holds(&[FAULT.condition()], now);
        assert_eq!(over.iter().map(|over| over.reason).collect::<Vec<_>>(), [FAULT]);
        assert_eq!(log.works(now).len(), 1);
    }
}

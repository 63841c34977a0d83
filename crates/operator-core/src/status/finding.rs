//! One condition as it should be, before it is compared with the one that is there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use mailroute_route::condition::{ConditionType, Reason};

pub(super) const TRUE: &str = "True";
pub(super) const FALSE: &str = "False";
pub(super) const UNKNOWN: &str = "Unknown";

/// What a condition should say.
pub(super) struct ConditionFinding {
    pub(super) condition: ConditionType,
    pub(super) status: &'static str,
    pub(super) reason: String,
    pub(super) message: String,
    /// The generation of the spec that it was found with.
    pub(super) generation: Option<i64>,
}

impl ConditionFinding {
    /// What is said with one of our reasons.
    pub(super) fn new(
        condition: ConditionType,
        status: &'static str,
        reason: Reason,
        message: String,
        generation: Option<i64>,
    ) -> Self {
        Self { condition, status, reason: reason.as_str().to_owned(), message, generation }
    }

    /// What a condition that somebody finds out says already.
    pub(super) fn kept(old: &Condition) -> Option<Self> {
        let found_out = ConditionType::OBSERVED.into_iter().chain([ConditionType::DnsPublished]);
        let condition = found_out.into_iter().find(|condition| condition.as_str() == old.type_)?;
        let status = [TRUE, FALSE, UNKNOWN].into_iter().find(|status| *status == old.status)?;
        let (reason, message) = (old.reason.clone(), old.message.clone());
        Some(Self { condition, status, reason, message, generation: old.observed_generation })
    }

    /// The condition to write, which has the transition time of the one before when the status is the same.
    pub(super) fn into_condition(self, previous: &[Condition], now: Timestamp) -> Condition {
        let before = find(previous, self.condition).filter(|condition| condition.status == self.status);
        Condition {
            type_: self.condition.as_str().to_owned(),
            status: self.status.to_owned(),
            reason: self.reason,
            message: self.message,
            observed_generation: self.generation,
            last_transition_time: before
                .map_or_else(|| Time(whole_second(now)), |condition| condition.last_transition_time.clone()),
        }
    }
}

/// The condition of that type.
pub(super) fn find(conditions: &[Condition], condition: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|candidate| candidate.type_ == condition.as_str())
}

/// metav1.Time has whole seconds; what is finer would differ from what is read back.
fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

//! What this sidecar met last on the way to Microsoft 365, one observation for each condition.
//!
//! [`Health`] is a value: observations in, conditions out, time passed in. [`SharedHealth`] shares it. Refuses to know who
//! observes and who reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::{self, MAX_MESSAGE_BYTES};
use mailroute_route::text::shortened;
use tokio::sync::watch;

use crate::clock;
use crate::outcome::Observation;

/// The last observation of each condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    last: BTreeMap<ConditionType, control::Observation>,
    egress: Option<IpAddr>,
}

impl Health {
    /// Takes in what was met at `at`, seconds since the epoch. Says whether a condition or its reason changed; words and
    /// times alone are no change.
    pub fn record(&mut self, observations: &[Observation], at: i64) -> bool {
        let before = self.summary();
        for met in observations {
            self.egress = met.egress.or(self.egress);
            let message = shortened(&met.text, MAX_MESSAGE_BYTES).into_owned();
            let (condition, reason) = (met.condition(), met.reason);
            let observation = control::Observation { condition, holds: reason.holds(), reason, message, at };
            self.last.insert(condition, observation);
        }
        before != self.summary()
    }

    /// Forgets everything, as after a change of configuration.
    pub fn reset(&mut self) -> bool {
        let changed = !self.last.is_empty();
        *self = Self::default();
        changed
    }

    /// Every observation, in the order in which the conditions are met.
    pub fn observations(&self) -> impl Iterator<Item = &control::Observation> {
        ConditionType::OBSERVED.iter().filter_map(|condition| self.last.get(condition))
    }

    /// The address that the upstream saw us come from last, when it said so.
    pub const fn egress(&self) -> Option<IpAddr> {
        self.egress
    }

    /// The first condition that does not hold: the cause to name.
    pub fn trouble(&self) -> Option<&control::Observation> {
        self.observations().find(|observation| !observation.holds)
    }

    /// Whether the way is known to be open up to mail, and nothing is known to be wrong. Where there is a log-in, what
    /// came of it was met together with the connection; where there is none, the first message tells.
    pub fn is_well(&self) -> bool {
        self.trouble().is_none() && self.last.contains_key(&ConditionType::UpstreamReachable)
    }

    /// Whether something that holds asks to be seen to: a certificate that ends soon, say.
    pub fn warns(&self) -> bool {
        self.observations().any(|observation| observation.reason.warns())
    }

    /// Whether only a message can tell: the way is open, and what is wrong came up with a message.
    pub fn waits_for_mail(&self) -> bool {
        self.trouble().is_some_and(|trouble| trouble.reason.is_met_by_mail())
    }

    fn summary(&self) -> Vec<(ConditionType, Reason)> {
        self.observations().map(|observation| (observation.condition, observation.reason)).collect()
    }
}

/// The shared health. Readers are woken when a condition or reason changes.
#[derive(Clone, Debug)]
pub struct SharedHealth(watch::Sender<Health>);

impl Default for SharedHealth {
    fn default() -> Self {
        Self(watch::Sender::new(Health::default()))
    }
}

impl SharedHealth {
    /// Takes in what was met now.
    pub fn record(&self, observations: &[Observation]) {
        let at = clock::unix_seconds();
        self.0.send_if_modified(|health| health.record(observations, at));
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.0.send_if_modified(Health::reset);
    }

    /// Sees every change from now on, and the newest words at any time.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(reason: Reason) -> Observation {
        Observation::new(reason, format!("met {reason}"))
    }

    #[test]
    fn a_failure_is_replaced_by_a_later_success_of_the_same_condition() {
        let mut health = Health::default();
        assert!(health.record(&[met(Reason::TokenAcquired), met(Reason::ConnectFailed)], 1));
        assert_eq!(health.trouble().unwrap().reason, Reason::ConnectFailed);
        assert!(health.record(&[met(Reason::Connected), met(Reason::LoggedIn)], 2));
        assert!(health.is_well());
    }

    #[test]
    fn the_first_failing_condition_is_the_trouble() {
        let mut health = Health::default();
        health.record(&[met(Reason::SendAsDenied)], 1);
        assert!(health.waits_for_mail());
        health.record(&[met(Reason::TenantNotFound)], 2);
        assert_eq!(health.trouble().unwrap().reason, Reason::TenantNotFound);
        assert!(!health.waits_for_mail());
    }

    #[test]
    fn other_words_for_the_same_reason_are_no_change() {
        let mut health = Health::default();
        assert!(health.record(&[Observation::new(Reason::LoginFailed, "one")], 1));
        assert!(!health.record(&[Observation::new(Reason::LoginFailed, "two")], 2));
        let newest = health.trouble().unwrap();
        assert_eq!((newest.message.as_str(), newest.at), ("two", 2));
    }

    #[test]
    fn what_holds_with_a_remedy_warns_until_it_holds_without() {
        let mut health = Health::default();
        health.record(&[met(Reason::CertificateExpiring), met(Reason::Connected)], 1);
        assert!(health.is_well() && health.warns());
        health.record(&[met(Reason::CertificateValid)], 2);
        assert!(health.is_well() && !health.warns());
    }

    #[test]
    fn the_last_address_that_the_upstream_named_is_kept() {
        let mut health = Health::default();
        let seen =
            |egress: &str| Observation { egress: Some(egress.parse().unwrap()), ..met(Reason::Connected) };
        health.record(&[seen("203.0.113.7")], 1);
        assert!(!health.record(&[met(Reason::Connected)], 2), "an address alone is no change");
        assert_eq!(health.egress(), Some([203, 0, 113, 7].into()));
        health.record(&[seen("203.0.113.8")], 3);
        assert_eq!(health.egress(), Some([203, 0, 113, 8].into()));
        health.reset();
        assert_eq!(health.egress(), None);
    }

    #[test]
    fn nothing_observed_is_not_well() {
        assert!(!Health::default().is_well());
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        let mut health = Health::default();
        health.record(&[Observation::new(Reason::LoginFailed, "é".repeat(1000))], 1);
        assert_eq!(health.trouble().unwrap().message.len(), MAX_MESSAGE_BYTES);
    }
}

//! What this sidecar met last on the way to Microsoft 365, one observation for each condition.
//!
//! [`Health`] is a value: observations in, conditions out, time passed in. [`SharedHealth`] shares it. Refuses to know who
//! observes and who reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::{self, MAX_MESSAGE_BYTES};
use mailroute_route::text::shortened;
use tokio::sync::watch;

use crate::clock;
use crate::lock;
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

    /// Takes in what another mailbox met, of which only what is worse than what is known counts. `mailbox` names it.
    fn add(&mut self, other: &Self, mailbox: Option<&str>) {
        self.egress = other.egress.or(self.egress);
        for met in other.last.values() {
            // What does not hold is worst, then what warns.
            let severity = |met: &control::Observation| (!met.holds, met.reason.warns());
            let known = self.last.get(&met.condition);
            if known.is_none_or(|known| severity(met) > severity(known)) {
                let mut met = met.clone();
                if let Some(mailbox) = mailbox {
                    met.message =
                        shortened(&format!("{mailbox}: {}", met.message), MAX_MESSAGE_BYTES).into_owned();
                }
                self.last.insert(met.condition, met);
            }
        }
    }

    fn summary(&self) -> Vec<(ConditionType, Reason)> {
        self.observations().map(|observation| (observation.condition, observation.reason)).collect()
    }
}

/// The shared health. Readers are woken when a condition or reason changes.
#[derive(Clone, Debug, Default)]
pub struct SharedHealth {
    own: watch::Sender<Health>,
    /// Where it counts as a part.
    whole: Option<Arc<Whole>>,
}

/// What several mailboxes met, and all of them together.
#[derive(Debug)]
pub struct HealthOfAll(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    /// Of each lane, with its mailbox while it has a route.
    parts: Mutex<Vec<(watch::Sender<Health>, Option<String>)>>,
    sum: watch::Sender<Health>,
}

impl HealthOfAll {
    /// For so many lanes.
    pub fn new(lanes: usize) -> Self {
        let parts = (0..lanes).map(|_| (watch::Sender::default(), None)).collect();
        Self(Arc::new(Whole { parts: Mutex::new(parts), sum: watch::Sender::default() }))
    }

    /// The health of one lane, which counts for all.
    pub fn lane(&self, at: usize) -> SharedHealth {
        let own = lock(&self.0.parts).get(at).map(|(own, _)| own.clone()).unwrap_or_default();
        SharedHealth { own, whole: Some(Arc::clone(&self.0)) }
    }

    /// Names the mailbox of a lane, or nobody while it has none.
    pub fn name(&self, at: usize, mailbox: Option<&str>) {
        if let Some((_, named)) = lock(&self.0.parts).get_mut(at) {
            *named = mailbox.map(str::to_owned);
        }
        self.0.add_up();
    }

    /// Sees every change of the whole from now on.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.sum.subscribe()
    }
}

impl Whole {
    fn add_up(&self) {
        let parts = lock(&self.parts);
        let several = parts.iter().filter(|(_, mailbox)| mailbox.is_some()).count() > 1;
        let mut sum = Health::default();
        for (part, mailbox) in parts.iter() {
            sum.add(&part.borrow(), mailbox.as_deref().filter(|_| several));
        }
        // Under the lock, so that an older sum never replaces a newer one.
        self.sum.send_if_modified(|known| {
            let is_news = known.summary() != sum.summary();
            *known = sum;
            is_news
        });
        drop(parts);
    }
}

impl SharedHealth {
    /// Takes in what was met now.
    pub fn record(&self, observations: &[Observation]) {
        let at = clock::unix_seconds();
        self.own.send_if_modified(|health| health.record(observations, at));
        self.add_up();
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.own.send_if_modified(Health::reset);
        self.add_up();
    }

    fn add_up(&self) {
        self.whole.iter().for_each(|whole| whole.add_up());
    }

    /// Sees every change from now on, and the newest words at any time.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.own.subscribe()
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
    fn the_worst_of_several_mailboxes_speaks_for_all_and_is_named() {
        let all = HealthOfAll::new(3);
        let (one, two) = (all.lane(0), all.lane(1));
        let sum = all.subscribe();
        let told = || sum.borrow().trouble().map(|met| (met.reason, met.message.clone()));
        all.name(0, Some("one@contoso.com"));
        one.record(&[met(Reason::LoginFailed)]);
        assert_eq!(told(), Some((Reason::LoginFailed, "met LoginFailed".into())), "one alone is not named");
        all.name(1, Some("two@contoso.com"));
        one.record(&[met(Reason::LoggedIn)]);
        two.record(&[met(Reason::LoginFailed)]);
        one.record(&[met(Reason::LoggedIn)]);
        assert_eq!(told(), Some((Reason::LoginFailed, "two@contoso.com: met LoginFailed".into())));
        assert!(one.subscribe().borrow().trouble().is_none(), "each has its own");
        two.reset();
        assert_eq!(told(), None);
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

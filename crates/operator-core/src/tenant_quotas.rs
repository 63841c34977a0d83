//! Which routes met the limit of external recipients that Microsoft has for a whole tenant, and who tries next. Pure.
//!
//! The limit (TERRL) is a sliding sum over 24 hours. A sidecar that met it holds its mail and tries one message after a pause. Of the
//! sidecars of one namespace that say that they met it, one at a time gets a lease to try; when one gets a message through, all do.
//!
//! Namespaces do not trust each other, so what one says never holds the mail of another. Each has its own turn to try; a sidecar waits
//! for it only after what it met itself; and what others hear of it is a condition that is `Unknown`. What one can do with a false
//! report of success is to have others try sooner, within the pauses of their own circuit breakers.
//!
//! Refuses to know Communication Services, High Volume Email and Direct Send: their mail does not count.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::control::{Observation, Report};
use mailroute_route::file::{Method, SubmissionService};

use crate::STALE_AFTER;

/// Time between two tries of one namespace: the first pause of a sidecar's circuit breaker.
const TRY_INTERVAL: SignedDuration = SignedDuration::from_mins(2);

/// How long one sidecar has to get a lease for its try.
const TURN: SignedDuration = SignedDuration::from_secs(30);

/// How long it counts that a message got through: longer than the longest pause of a circuit breaker.
const RECOVERY_KEPT: SignedDuration = SignedDuration::from_mins(30);

/// What is known of all tenants, by tenant id.
#[derive(Clone, Debug, Default)]
pub struct TenantQuotas(HashMap<String, TenantQuota>);

/// A sidecar's turn to try.
#[derive(Clone, Debug)]
struct Turn {
    pod: String,
    since: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct TenantQuota {
    /// Namespace and name of the routes that met the limit, and when they last said so.
    met: HashMap<(String, String), Timestamp>,
    /// By namespace.
    turns: HashMap<String, Turn>,
    /// When a sidecar that had met the limit got a message through.
    recovered: Option<Timestamp>,
}

/// The tenant whose limit the mail of a route counts against.
pub fn tenant_of(file: &RouteFile, tenant: &str) -> Option<String> {
    let counts = match &file.method {
        Method::ClientSubmission(submission) => submission.service == SubmissionService::ExchangeOnline,
        Method::Graph(_) | Method::SmtpRelay(_) => true,
        Method::DirectSend(_) => false,
    };
    counts.then(|| tenant.to_ascii_lowercase())
}

/// What a report says of the tenant's limit, if the sidecar met that last.
pub fn refusal(report: &Report) -> Option<&Observation> {
    report.observations.iter().find(|it| it.reason == Reason::TenantQuotaExceeded && !it.holds)
}

impl TenantQuotas {
    /// Takes in a report of an accepted route's pod. `had_met` says whether the pod's last report was a [`refusal`].
    pub fn note(
        &mut self,
        tenant: &str,
        (namespace, route): (&str, &str),
        had_met: bool,
        report: &Report,
        now: Timestamp,
    ) {
        let meets = refusal(report).is_some();
        if !meets && !had_met {
            return;
        }
        let quota = self.0.entry(tenant.to_owned()).or_default();
        if meets {
            quota.met.insert((namespace.to_owned(), route.to_owned()), now);
        } else if report.observations.iter().any(|it| it.reason == Reason::MailAccepted && it.holds) {
            quota.recovered = Some(now);
        }
        self.0.retain(|_, quota| quota.expire(now));
    }

    /// Whether a pod that met the limit may try a message now.
    pub fn may_try(
        &mut self,
        tenant: &str,
        namespace: &str,
        pod: &str,
        met: &Observation,
        now: Timestamp,
    ) -> bool {
        let quota = self.0.entry(tenant.to_owned()).or_default();
        let met = met.at.min(now.as_second());
        if quota.recovered.is_some_and(|recovered| met <= recovered.as_second()) {
            return true;
        }
        let last = quota.turns.get(namespace).map(|turn| (now.duration_since(turn.since), turn));
        match last {
            Some((age, turn)) if age < TRY_INTERVAL => turn.pod == pod && age < TURN,
            _ => {
                quota.turns.insert(namespace.to_owned(), Turn { pod: pod.to_owned(), since: now });
                true
            }
        }
    }

    /// Whether another route of the tenant says that it meets the limit.
    pub fn is_met_elsewhere(&self, tenant: &str, route: (&str, &str), now: Timestamp) -> bool {
        let met = self.0.get(tenant).into_iter().flat_map(|quota| &quota.met);
        let mut others = met.filter(|((namespace, name), _)| (&**namespace, &**name) != route);
        others.any(|(_, at)| now.duration_since(*at) < STALE_AFTER)
    }
}

impl TenantQuota {
    /// Forgets what is over. Returns whether anything is left.
    fn expire(&mut self, now: Timestamp) -> bool {
        self.met.retain(|_, at| now.duration_since(*at) < STALE_AFTER);
        self.turns.retain(|_, turn| now.duration_since(turn.since) < TRY_INTERVAL);
        self.recovered = self.recovered.filter(|at| now.duration_since(*at) < RECOVERY_KEPT);
        !self.met.is_empty() || !self.turns.is_empty() || self.recovered.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{observation, report};

    const TENANT: &str = "contoso.com";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn met(second: i64) -> Observation {
        observation(Reason::TenantQuotaExceeded, "550 5.7.233", at(second).as_second())
    }

    fn accepted(second: i64) -> Report {
        report(vec![observation(Reason::MailAccepted, "", at(second).as_second())])
    }

    #[test]
    fn one_sidecar_of_a_namespace_tries_at_a_time_and_no_other_namespace_takes_its_turn() {
        let mut quotas = TenantQuotas::default();
        assert!(quotas.may_try(TENANT, "other", "liar", &met(0), at(0)));
        assert!(quotas.may_try(TENANT, "shop", "a", &met(0), at(0)));
        assert!(!quotas.may_try(TENANT, "shop", "b", &met(0), at(1)));
        assert!(quotas.may_try(TENANT, "shop", "a", &met(0), at(29)), "its lease may take a while");
        assert!(!quotas.may_try(TENANT, "shop", "a", &met(0), at(31)));
        assert!(quotas.may_try(TENANT, "shop", "b", &met(0), at(120)));
    }

    #[test]
    fn when_one_gets_through_all_that_met_it_before_try_and_those_that_meet_it_again_wait() {
        let mut quotas = TenantQuotas::default();
        quotas.note(TENANT, ("shop", "a"), false, &report(vec![met(0)]), at(0));
        assert!(quotas.may_try(TENANT, "shop", "a", &met(0), at(0)));
        quotas.note(TENANT, ("shop", "b"), false, &accepted(5), at(5));
        assert!(!quotas.may_try(TENANT, "shop", "b", &met(0), at(6)), "that one had not met it");
        quotas.note(TENANT, ("shop", "a"), true, &accepted(10), at(10));
        for pod in ["b", "c"] {
            assert!(quotas.may_try(TENANT, "shop", pod, &met(0), at(11)));
        }
        assert!(!quotas.may_try(TENANT, "shop", "b", &met(12), at(13)));
    }

    #[test]
    fn other_routes_of_the_tenant_hear_of_it_while_it_is_said() {
        let mut quotas = TenantQuotas::default();
        quotas.note(TENANT, ("shop", "a"), false, &report(vec![met(0)]), at(0));
        assert!(quotas.is_met_elsewhere(TENANT, ("billing", "a"), at(1)));
        assert!(!quotas.is_met_elsewhere(TENANT, ("shop", "a"), at(1)), "its own condition says so");
        assert!(!quotas.is_met_elsewhere("fabrikam.com", ("billing", "a"), at(1)));
        assert!(!quotas.is_met_elsewhere(TENANT, ("billing", "a"), at(90)));
    }

    #[test]
    fn nothing_is_kept_of_what_is_over() {
        let mut quotas = TenantQuotas::default();
        quotas.note(TENANT, ("shop", "a"), false, &report(vec![met(0)]), at(0));
        quotas.note(TENANT, ("shop", "a"), true, &accepted(5), at(5));
        quotas.note("fabrikam.com", ("shop", "b"), true, &accepted(9000), at(9000));
        assert_eq!(quotas.0.len(), 1);
    }
}

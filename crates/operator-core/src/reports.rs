//! The newest report of each pod, in memory, with time passed in.
//!
//! Refuses to know how a report came here and what follows from it. A report comes from a pod, so it is bounded on the way in.

mod bounded;
mod kept;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mailroute_route::control::Report;
use mailroute_route::identity::Role;

use self::bounded::bounded;
use self::kept::{KeptReport, SaidOfRoute};
use crate::tenant_quotas::{self, TenantQuotas};
use crate::{REPORT_INTERVAL, STALE_AFTER};

/// How long it is remembered when a pod reported last.
const LAST_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Which pod reports, as its token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportingPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
}

/// A report and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedReport {
    /// Name of the pod.
    pub pod: String,
    /// What it said.
    pub report: Report,
    /// When.
    pub at: Timestamp,
    /// Since when the reports say the same, apart from numbers.
    pub since: Timestamp,
    /// Whether a written status has taken this into account.
    pub is_told: bool,
    /// What was reported to people about the pod's mail.
    pub accounted: AccountedMail,
}

/// What was reported to people about the mail that a pod holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountedMail {
    /// Whether the pod was seen to live. A report may come before the pod is seen, which looks as if the pod had ended.
    pub was_live: bool,
    /// Dead letters that were reported; none while nobody has looked.
    pub dead_letters: Option<u64>,
    /// Whether the end of the pod was reported.
    pub is_over: bool,
    /// Whether the pod was a gateway, whose mail is on a volume claim.
    pub is_gateway: bool,
}

/// The newest report of each pod, by route.
#[derive(Debug, Default)]
pub struct Reports {
    routes: HashMap<RouteKey, ReportsOfRoute>,
    /// When each pod reported last, by uid, for a day.
    last: HashMap<Arc<str>, Timestamp>,
    /// What they say of limits that whole tenants have.
    pub tenants: TenantQuotas,
    swept: Timestamp,
}

/// The reports for one route, by uid of the pod.
#[derive(Debug, Default)]
struct ReportsOfRoute {
    // In boxes, as a node of the map has room for eleven.
    pods: BTreeMap<Arc<str>, Box<KeptReport>>,
    said: SaidOfRoute,
}

/// Namespace and name of a route.
type RouteKey = (String, String);

impl Reports {
    /// Keeps a report in place of the pod's last one, and says whether it tells something new: a first report, another
    /// generation, a condition that holds or fails otherwise than before, or more dead letters. Other numbers are not news.
    pub fn record(&mut self, caller: &ReportingPod, report: Report, now: Timestamp) -> bool {
        self.sweep(now);
        let report = bounded(report, now);
        let route = (caller.namespace.clone(), report.route.clone());
        let ReportsOfRoute { pods, said } = self.routes.entry(route).or_default();
        let old = pods.get(&*caller.uid);
        let same = old.filter(|old| !differs(&old.said, &report));
        let (since, is_told) = same.map_or((now, false), |old| (old.since, old.is_told));
        let news = same.is_none_or(|old| report.queue.dead_letters > old.counts.queue.dead_letters);
        let accounted = old.map(|old| old.accounted).unwrap_or_default();
        let received = ReceivedReport { pod: caller.pod.clone(), report, at: now, since, is_told, accounted };
        let kept = KeptReport::of(received, said);
        let known = self.last.get_key_value(&*caller.uid).map(|(uid, _)| Arc::clone(uid));
        let uid = known.unwrap_or_else(|| Arc::from(&*caller.uid));
        self.last.insert(Arc::clone(&uid), now);
        pods.insert(uid, Box::new(kept));
        news
    }

    /// Notes what a report of an accepted route's pod says of its tenant's limit. Comes before [`Reports::record`].
    pub fn note_tenant(&mut self, tenant: &str, caller: &ReportingPod, report: &Report, now: Timestamp) {
        let key = (caller.namespace.clone(), report.route.clone());
        let last = self.routes.get(&key).and_then(|of| of.pods.get(&*caller.uid));
        let had_met = last.is_some_and(|last| tenant_quotas::refusal(&last.said).is_some());
        self.tenants.note(tenant, (&caller.namespace, &report.route), had_met, report, now);
    }

    /// A status that takes these reports into account was written, and it was told what the pods hold. `live` says of a pod's
    /// uid what the pod does for the route; none when it had ended then.
    pub fn told(
        &mut self,
        namespace: &str,
        route: &str,
        reports: &BTreeMap<String, ReceivedReport>,
        live: impl Fn(&str) -> Option<Role>,
    ) {
        let Some(of) = self.routes.get_mut(&(namespace.to_owned(), route.to_owned())) else { return };
        for (uid, told) in reports {
            let Some(received) = of.pods.get_mut(uid.as_str()) else { continue };
            let accounted = &mut received.accounted;
            accounted.dead_letters = Some(told.report.queue.dead_letters);
            let role = live(uid);
            accounted.is_over = accounted.was_live && role.is_none();
            accounted.was_live |= role.is_some();
            accounted.is_gateway = role.map_or(accounted.is_gateway, |role| role == Role::Gateway);
            // What came meanwhile is not in it.
            received.is_told |= received.since == told.since;
        }
    }

    /// The reports for a route that are not stale, by pod uid.
    pub fn of(&self, namespace: &str, route: &str, now: Timestamp) -> BTreeMap<String, ReceivedReport> {
        let key = (namespace.to_owned(), route.to_owned());
        let pods = self.routes.get(&key).into_iter().flat_map(|of| &of.pods);
        pods.filter(|(_, kept)| is_fresh(kept, now))
            .map(|(uid, kept)| (uid.to_string(), kept.received()))
            .collect()
    }

    /// When a pod reported last; none when it did not within a day.
    pub fn last(&self, uid: &str) -> Option<Timestamp> {
        self.last.get(uid).copied()
    }

    /// The addresses that the upstream sees the sidecars of a route come from.
    pub fn egress(&self, namespace: &str, route: &str, now: Timestamp) -> BTreeSet<IpAddr> {
        let pods = self.routes.get(&(namespace.to_owned(), route.to_owned()));
        let fresh = pods.into_iter().flat_map(|of| &of.pods).filter(|(_, kept)| is_fresh(kept, now));
        fresh.filter_map(|(_, kept)| kept.counts.egress).collect()
    }

    fn sweep(&mut self, now: Timestamp) {
        if now.duration_since(self.swept) < REPORT_INTERVAL {
            return;
        }
        self.swept = now;
        self.last.retain(|_, at| now.duration_since(*at) < LAST_KEPT);
        self.routes.retain(|_, of| {
            of.pods.retain(|_, kept| is_fresh(kept, now));
            !of.pods.is_empty()
        });
    }
}

fn is_fresh(kept: &KeptReport, now: Timestamp) -> bool {
    now.duration_since(kept.at) < STALE_AFTER
}

fn differs(old: &Report, new: &Report) -> bool {
    let essence = |report: &Report| -> Vec<_> {
        report.observations.iter().map(|o| (o.condition, o.holds, o.reason)).collect()
    };
    let troubles = |report: &Report| -> Vec<_> {
        report.mailboxes.iter().map(|it| it.trouble.as_ref().map(|met| met.reason)).collect()
    };
    old.generation != new.generation
        || old.config_error != new.config_error
        || old.sidecar_version != new.sidecar_version
        || essence(old) != essence(new)
        || troubles(old) != troubles(new)
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::{ConditionType, Reason};
    use mailroute_route::control::{Claim, MAX_MESSAGE_BYTES, Observation, Queue, Usage};

    use super::bounded::{MOST, OLDEST_SECONDS};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn caller(uid: &str) -> ReportingPod {
        ReportingPod { namespace: "shop".into(), pod: format!("pod-{uid}"), uid: uid.into() }
    }

    fn report(observations: Vec<Observation>) -> Report {
        Report {
            route: "notifications".into(),
            generation: 3,
            sidecar_version: "0.1.0".into(),
            config_error: None,
            observations,
            queue: Queue::default(),
            usage: Usage::default(),
            egress: None,
            left: vec![],
            gateway_error: None,
            claim: None,
            mailboxes: vec![],
        }
    }

    fn observation(reason: Reason, message: &str) -> Observation {
        Observation {
            condition: reason.condition(),
            holds: reason.holds(),
            reason,
            message: message.into(),
            at: at(0).as_second(),
        }
    }

    #[test]
    fn only_what_a_person_would_act_on_is_news() {
        let mut reports = Reports::default();
        let first = report(vec![observation(Reason::LoggedIn, "235")]);
        assert!(reports.record(&caller("a"), first.clone(), at(0)), "a first report");
        let busy =
            Report { usage: Usage { messages_last_minute: 9, recipients_last_24h: 9 }, ..first.clone() };
        assert!(!reports.record(&caller("a"), busy, at(1)), "numbers");
        let refused = report(vec![observation(Reason::ExchangeRejectedToken, "535 5.7.3")]);
        assert!(reports.record(&caller("a"), refused, at(2)), "a fault");
        assert!(reports.record(&caller("a"), Report { generation: 4, ..first }, at(3)), "another generation");
    }

    #[test]
    fn more_dead_letters_are_news_and_fewer_are_not() {
        let mut reports = Reports::default();
        let holding =
            |dead_letters| Report { queue: Queue { dead_letters, ..Queue::default() }, ..report(vec![]) };
        reports.record(&caller("a"), holding(1), at(0));
        assert!(!reports.record(&caller("a"), holding(1), at(1)));
        assert!(reports.record(&caller("a"), holding(2), at(2)));
        assert!(!reports.record(&caller("a"), holding(0), at(3)));
    }

    #[test]
    fn a_pod_is_over_when_it_was_seen_to_live_and_does_no_more() {
        let mut reports = Reports::default();
        let accounted = |reports: &Reports| reports.of("shop", "notifications", at(9))["a"].accounted;
        reports.record(&caller("a"), report(vec![]), at(0));
        let look = |reports: &mut Reports, live: bool| {
            let seen = reports.of("shop", "notifications", at(1));
            reports.told("shop", "notifications", &seen, |_| live.then_some(Role::Sidecar));
            reports.record(&caller("a"), report(vec![observation(Reason::LoggedIn, "")]), at(2));
        };
        look(&mut reports, false);
        assert!(!accounted(&reports).is_over, "it has not been seen yet");
        look(&mut reports, true);
        assert_eq!(
            accounted(&reports),
            AccountedMail { was_live: true, dead_letters: Some(0), is_over: false, is_gateway: false }
        );
        look(&mut reports, false);
        assert!(accounted(&reports).is_over, "and another report does not change that");
    }

    #[test]
    fn news_is_untold_until_a_status_that_knows_it_is_written() {
        let mut reports = Reports::default();
        let told = |reports: &Reports| reports.of("shop", "notifications", at(9))["a"].is_told;
        reports.record(&caller("a"), report(vec![]), at(0));
        let seen = reports.of("shop", "notifications", at(0));
        reports.record(&caller("a"), report(vec![]), at(1));
        assert!(!told(&reports));
        reports.told("shop", "notifications", &seen, |_| Some(Role::Sidecar));
        assert!(told(&reports), "the same was said again");
        reports.record(&caller("a"), report(vec![observation(Reason::LoggedIn, "")]), at(2));
        assert!(!told(&reports), "something new");
        reports.told("shop", "notifications", &seen, |_| Some(Role::Sidecar));
        assert!(!told(&reports), "the status was computed before");
    }

    #[test]
    fn a_report_is_dropped_after_three_intervals() {
        let mut reports = Reports::default();
        reports.record(&caller("a"), report(vec![]), at(0));
        assert_eq!(reports.of("shop", "notifications", at(89)).len(), 1);
        assert_eq!(reports.of("shop", "notifications", at(90)).len(), 0);
        reports.record(&caller("b"), Report { route: "other".into(), ..report(vec![]) }, at(200));
        assert_eq!(reports.routes.len(), 1, "what is stale leaves the memory");
    }

    #[test]
    fn one_pod_has_one_report() {
        let mut reports = Reports::default();
        for second in 0..100 {
            reports.record(&caller("a"), report(vec![]), at(second));
        }
        assert_eq!(reports.of("shop", "notifications", at(100)).len(), 1);
    }

    #[test]
    fn observations_that_contradict_the_list_of_reasons_are_left_out() {
        let lie = Observation { holds: true, ..observation(Reason::ExchangeRejectedToken, "") };
        let stray =
            Observation { condition: ConditionType::CredentialReady, ..observation(Reason::LoggedIn, "") };
        let sum = observation(Reason::Ready, "");
        let mut reports = Reports::default();
        reports.record(&caller("a"), report(vec![lie, stray, sum]), at(0));
        assert_eq!(reports.of("shop", "notifications", at(0))["a"].report.observations, vec![]);
    }

    #[test]
    fn a_claim_is_not_kept() {
        let mut reports = Reports::default();
        let claim = Claim { mailbox: "x".repeat(16 * 1024), ..Claim::default() };
        reports.record(&caller("a"), Report { claim: Some(claim), ..report(vec![]) }, at(0));
        let kept = serde_json::to_string(&reports.of("shop", "notifications", at(0))["a"].report).unwrap();
        assert!(kept.len() < 512, "{kept}");
    }

    #[test]
    fn numbers_are_bounded() {
        let mut reports = Reports::default();
        let most = u64::MAX;
        let queue = Queue { messages: most, oldest_seconds: most, dead_letters: most };
        let usage = Usage { messages_last_minute: most, recipients_last_24h: most };
        let mut past = observation(Reason::LoggedIn, "");
        past.at = i64::MIN;
        reports.record(&caller("a"), Report { queue, usage, ..report(vec![past]) }, at(0));
        let Report { queue, usage, observations, .. } =
            reports.of("shop", "notifications", at(0))["a"].report.clone();
        assert_eq!((queue.messages, queue.dead_letters, queue.oldest_seconds), (MOST, MOST, OLDEST_SECONDS));
        assert_eq!((usage.messages_last_minute, usage.recipients_last_24h), (MOST, MOST));
        assert_eq!(observations[0].at, 0);
    }

    #[test]
    fn texts_are_bounded_and_free_of_control_characters() {
        let long = format!("535\r\n5.7.3\u{1b}[31m{}", "ä".repeat(1000));
        let mut reports = Reports::default();
        let mut future = observation(Reason::LoginFailed, &long);
        future.at = i64::MAX;
        reports.record(&caller("a"), report(vec![future]), at(0));
        let kept = reports.of("shop", "notifications", at(0))["a"].report.observations[0].clone();
        assert!(kept.message.len() <= MAX_MESSAGE_BYTES && !kept.message.contains(char::is_control));
        assert_eq!(kept.at, at(0).as_second(), "nothing was met in the future");
    }
}

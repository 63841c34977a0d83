//! A status for each situation that a route can be in.

mod dns_published;
mod gateway_ready;
mod inheritance;
mod pods_refused;
mod progress;
mod sidecars_current;
mod sidecars_reporting;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mailroute_route::condition::Reason;
use mailroute_route::condition::Reason::{
    ConnectFailed, Connected, ExchangeRejectedToken, LoggedIn, MailAccepted, TokenAcquired,
};
use mailroute_route::control::{Observation, Queue, Usage};

use super::*;
use crate::crd::MailRoute;
use crate::crd::method::CredentialType;
use crate::pods::BarePod;
use crate::reports::AccountedMail;
use crate::reports::ReceivedReport;
use crate::resolve::mailbox_rules::MailboxNotAllowed;
use crate::resolve::operator_identity::OperatorIdentity;
use crate::resolve::{Invalid, PlatformSettings, resolve};
use crate::rollout::age::ages;
use crate::rollout::history::RouteEvictions;
use crate::rollout::plan::{RolloutFacts, plan};
use crate::samples::{self, observation, report};
use crate::status::Acceptance;
use crate::status::DnsNotice;
use crate::status::SilentSidecar;
use crate::status::finding::find;
use crate::status::is_shown;
use std::collections::BTreeMap;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A route and what is known of it.
struct Situation {
    route: MailRoute,
    acceptance: Acceptance,
    settings: PlatformSettings,
    pods: Vec<SidecarPod>,
    bare: Vec<BarePod>,
    reports: BTreeMap<String, ReceivedReport>,
    settling: Option<Timestamp>,
    dns: DnsNotice,
    federated: usize,
    silent: Vec<SilentSidecar>,
    tenant_quota_met: bool,
}

impl Situation {
    fn new() -> Self {
        Self {
            route: samples::route(),
            acceptance: Acceptance::Rendered,
            settings: PlatformSettings::default(),
            pods: Vec::new(),
            bare: Vec::new(),
            reports: BTreeMap::new(),
            settling: None,
            dns: DnsNotice::None,
            federated: 0,
            silent: Vec::new(),
            tenant_quota_met: false,
        }
    }

    fn pod(mut self, name: &str) -> Self {
        let created = Some(at(-1000));
        self.pods.push(SidecarPod { uid: name.into(), created, ..samples::current(name) });
        self
    }

    /// A pod that has just been created.
    fn new_pod(self, name: &str, second: i64) -> Self {
        let mut situation = self.pod(name);
        situation
            .pods
            .iter_mut()
            .filter(|pod| pod.uid == name)
            .for_each(|pod| pod.created = Some(at(second)));
        situation
    }

    /// The spec was changed.
    fn changed(mut self) -> Self {
        self.route.metadata.generation = Some(4);
        self
    }

    fn report(mut self, name: &str, report: Report) -> Self {
        let received = ReceivedReport {
            pod: name.into(),
            report,
            at: at(0),
            since: at(0),
            is_told: false,
            accounted: AccountedMail::default(),
        };
        self.reports.insert(name.into(), received);
        self
    }

    /// A report that a status has told of already.
    fn told(self, name: &str, report: Report) -> Self {
        let mut situation = self.report(name, report);
        situation.reports.values_mut().for_each(|received| received.is_told = true);
        situation
    }

    fn after(mut self, previous: MailRouteStatus) -> Self {
        self.route.status = Some(previous);
        self
    }

    /// Seen by a leader that leads since `second`.
    fn settling(mut self, second: i64) -> Self {
        self.settling = Some(at(second));
        self
    }

    fn status(&self, now: Timestamp) -> MailRouteStatus {
        let (history, platform) = (RouteEvictions::default(), samples::platform());
        let rollout = self.route.spec.rollout;
        let resolution = resolve(&self.route, &self.settings);
        let ages = ages(&resolution, &platform, &self.pods);
        let (pods, reports) = (&self.pods, &self.reports);
        let plan = plan(&RolloutFacts { rollout, pods, ages: &ages, reports, history: &history });
        let facts = RouteFacts {
            route: &self.route,
            acceptance: &self.acceptance,
            resolution: &resolution,
            pods: &self.pods,
            bare: &self.bare,
            reports: &self.reports,
            settling: self.settling,
            rollout: &plan,
            federated: self.federated,
            dns: &self.dns,
            silent: &self.silent,
            lost: 0,
            tenant_quota_met: self.tenant_quota_met,
        };
        compute(&facts, now)
    }
}

fn well() -> Report {
    report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(LoggedIn, "", 1),
        observation(MailAccepted, "", 1),
    ])
}

fn refused(quote: &str) -> Report {
    report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(ExchangeRejectedToken, quote, 1),
    ])
}

fn said(status: &MailRouteStatus, condition: ConditionType) -> (&str, &str) {
    let condition = find(&status.conditions, condition).unwrap();
    (&condition.status, &condition.reason)
}

fn types(status: &MailRouteStatus) -> Vec<&str> {
    status.conditions.iter().map(|condition| condition.type_.as_str()).collect()
}

#[test]
fn a_route_without_pods_is_ready_and_says_that_nothing_was_shown() {
    let situation = Situation::new();
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("True", "Accepted"));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "NoPods"));
    assert!(!is_shown(&situation.route.spec, &status.conditions));
    assert_eq!(types(&status), ["Accepted", "Ready"]);
    assert_eq!(status.endpoint.as_deref(), Some("smtp.office365.com:587"));
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn nobody_waits_for_pods_that_have_not_reported() {
    let status = Situation::new().pod("a").status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "WaitingForReports"));
    assert_eq!(
        status.sidecars,
        Sidecars { injected: 1, ready: 1, converged: 0, outdated: 0, missing: 0, silent: 0 }
    );
}

#[test]
fn a_way_of_which_a_part_is_not_yet_known_is_not_shown() {
    let begun = report(vec![observation(TokenAcquired, "", 1)]);
    let situation = Situation::new().pod("a").report("a", begun);
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "WaitingForReports"));
    assert!(!is_shown(&situation.route.spec, &status.conditions));
    let ready = find(&status.conditions, ConditionType::Ready).unwrap();
    assert!(ready.message.contains("UpstreamReachable"), "{}", ready.message);
}

#[test]
fn a_way_that_is_open_is_ready_before_the_first_message() {
    let probed = report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(LoggedIn, "", 1),
    ]);
    let situation = Situation::new().pod("a").report("a", probed);
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    assert!(is_shown(&situation.route.spec, &status.conditions));
    assert_eq!(
        types(&status),
        ["Accepted", "CredentialReady", "UpstreamReachable", "Authenticated", "Ready", "SidecarsCurrent"]
    );
}

/// What a sidecar meets before the first message, by port 25.
fn reached() -> Report {
    report(vec![observation(Connected, "", 1)])
}

#[test]
fn a_relay_is_ready_when_it_is_reached_with_a_certificate_that_holds() {
    let mut by_address = Situation::new().pod("a").report("a", reached());
    by_address.route.spec = samples::relay(false).spec;
    let status = by_address.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    assert_eq!(status.endpoint.as_deref(), Some("MX of contoso.com:25"));
    assert_eq!(status.sender.as_deref(), Some("*@contoso.com and 1 more"));
    let mut by_certificate = Situation::new().pod("a").report("a", reached());
    by_certificate.route.spec = samples::relay(true).spec;
    let status = by_certificate.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "WaitingForReports"));
    assert!(message(&status, ConditionType::Ready).contains("CertificateValid"));
}

#[test]
fn a_missing_certificate_is_named_with_its_secret() {
    let missing = report(vec![observation(Reason::CertificateMissing, "no such file", 1)]);
    let mut situation = Situation::new().pod("a").report("a", missing);
    situation.route.spec = samples::relay(true).spec;
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::CertificateValid), ("False", "CertificateMissing"));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "CertificateMissing"));
    assert!(message(&status, ConditionType::Ready).contains("kubectl create secret tls relay-tls"));
}

#[test]
fn a_password_needs_no_token_and_warns() {
    let met = report(vec![
        observation(Reason::PasswordMounted, "", 1),
        observation(Connected, "", 1),
        observation(LoggedIn, "", 1),
    ]);
    let mut situation = Situation::new().pod("a").report("a", met);
    situation.route = samples::with_secret(CredentialType::Password, Some("password"));
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    assert_eq!(said(&status, ConditionType::CredentialReady), ("True", "PasswordMounted"));
    assert!(message(&status, ConditionType::CredentialReady).contains("WorkloadIdentity"));
}

#[test]
fn a_failing_condition_is_the_reason_of_ready_with_reply_and_remedy() {
    let reply = "535 5.7.3 Authentication unsuccessful [AM0PR01]";
    let status = Situation::new().pod("a").report("a", refused(reply)).status(at(0));
    assert_eq!(said(&status, ConditionType::CredentialReady), ("True", "TokenAcquired"));
    assert_eq!(said(&status, ConditionType::Authenticated), ("False", "ExchangeRejectedToken"));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "ExchangeRejectedToken"));
    let ready = &find(&status.conditions, ConditionType::Ready).unwrap().message;
    for part in ["Authenticated: 1 of 1 pod:", reply, "Add-MailboxPermission -Identity noreply@contoso.com"] {
        assert!(ready.contains(part), "{part} is not in: {ready}");
    }
}

#[test]
fn the_first_failing_condition_on_the_way_is_named() {
    let cut_off = report(vec![observation(ConnectFailed, "", 1)]);
    let status =
        Situation::new().pod("a").pod("b").report("a", refused("535")).report("b", cut_off).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "ConnectFailed"));
}

#[test]
fn a_report_of_a_pod_that_is_gone_says_nothing() {
    let status = Situation::new().pod("a").report("a", well()).report("gone", refused("535")).status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn an_invalid_route_says_which_field() {
    let mut situation = Situation::new();
    situation.acceptance = Acceptance::NotAccepted(Invalid::BlockMissing("smtpRelay").into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("False", "Invalid"));
    assert_eq!(said(&status, ConditionType::Ready), ("False", "Invalid"));
    let message = &find(&status.conditions, ConditionType::Accepted).unwrap().message;
    assert!(message.contains("spec.smtpRelay") && message.contains("requires this block"), "{message}");
}

#[test]
fn a_route_that_could_not_be_written_says_why() {
    let mut situation = Situation::new();
    situation.acceptance = Acceptance::Unwritten("cannot write the ConfigMap mailroute-notifications".into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Accepted), ("False", "RenderFailed"));
}

#[test]
fn equal_facts_give_an_equal_status_at_any_time() {
    let before = Situation::new().pod("a").report("a", well()).status(at(0));
    let after = Situation::new().pod("a").report("a", well()).after(before.clone()).status(at(500));
    assert_eq!(after, before);
}

#[test]
fn a_transition_time_moves_only_with_the_status() {
    let before = Situation::new().pod("a").report("a", refused("535 one")).status(at(0));
    let other_reason = report(vec![
        observation(TokenAcquired, "", 1),
        observation(Connected, "", 1),
        observation(Reason::LoginFailed, "535", 1),
    ]);
    let after = Situation::new().pod("a").report("a", other_reason).after(before.clone()).status(at(60));
    let time = |status: &MailRouteStatus| {
        find(&status.conditions, ConditionType::Authenticated).unwrap().last_transition_time.clone()
    };
    assert_eq!(time(&after), time(&before), "another reason, the same status");
    let well = Situation::new().pod("a").report("a", well()).after(after).status(at(120));
    assert_eq!(time(&well), Time(at(120)));
}

#[test]
fn another_session_id_in_the_reply_is_not_written_again() {
    let before = Situation::new().pod("a").report("a", refused("535 5.7.3 no [AM0]")).status(at(0));
    let next = Situation::new().pod("a").report("a", refused("535 5.7.3 no [DB9]"));
    assert_eq!(next.after(before.clone()).status(at(60)), before);
}

#[test]
fn what_sidecars_hold_and_sent_is_summed() {
    let one = Report {
        queue: Queue { messages: 2, oldest_seconds: 9, dead_letters: 1 },
        usage: Usage { messages_last_minute: 3, recipients_last_24h: 5 },
        ..well()
    };
    let two = Report { queue: Queue { messages: 1, oldest_seconds: 30, dead_letters: 0 }, ..one.clone() };
    let status = Situation::new().pod("a").pod("b").report("a", one).report("b", two).status(at(0));
    assert_eq!(status.queue, QueueStatus { messages: 3, oldest_seconds: 30, dead_letters: 1, lost: 0 });
    assert_eq!(status.usage, UsageStatus { messages_last_minute: 6, recipients_last_24h: 10 });
}

#[test]
fn a_sidecar_that_cannot_use_the_configuration_is_told_of() {
    let stuck = Report { config_error: Some("route file has format version 9".into()), ..well() };
    let status = Situation::new().pod("a").report("a", stuck).status(at(0));
    let message = &find(&status.conditions, ConditionType::Accepted).unwrap().message;
    assert!(
        message.contains("1 of 1 sidecars cannot use all of it") && message.contains("version 9"),
        "{message}"
    );
}

fn message(status: &MailRouteStatus, condition: ConditionType) -> &str {
    &find(&status.conditions, condition).unwrap().message
}

#[test]
fn messages_stay_below_what_a_condition_holds() {
    let long = "x".repeat(mailroute_route::control::MAX_MESSAGE_BYTES);
    let observed: Vec<Observation> = vec![observation(ExchangeRejectedToken, &long, 1)];
    let status = Situation::new().pod("a").report("a", report(observed)).status(at(0));
    assert!(status.conditions.iter().all(|condition| condition.message.len() < 32_768));
}

fn lender() -> PlatformSettings {
    let text = format!(
        "applications: [{{tenantId: 72f988bf-86f1-41af-91ab-2d7cd011db47, clientId: {}, authority: {{host: 'login.m365.svc:8443'}}, \
         endpoint: {{host: smtp.m365.svc}}, allow: [{{namespaces: [shop], mailboxes: ['*@contoso.com']}}]}}]",
        samples::CLIENT_ID
    );
    PlatformSettings { operator_identity: OperatorIdentity::parse(&text).unwrap(), ..Default::default() }
}

#[test]
fn a_route_that_may_not_use_the_operators_identity_says_whom_to_ask() {
    let mut situation = Situation::new();
    situation.route = samples::with_operator_identity();
    let not_accepted = resolve(&situation.route, &situation.settings).accepted().unwrap_err();
    situation.acceptance = Acceptance::NotAccepted(not_accepted);
    let status = situation.status(at(0));
    for condition in [ConditionType::Accepted, ConditionType::Ready] {
        assert_eq!(find(&status.conditions, condition).unwrap().reason, "OperatorIdentityNotAllowed");
    }
    let message = message(&status, ConditionType::Accepted);
    for part in [
        "allows no route to use the operator's identity",
        samples::CLIENT_ID,
        "noreply@contoso.com",
        "broker.applications",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_namespace_that_may_not_send_as_the_mailbox_is_told_whom_to_ask() {
    let mut situation = Situation::new();
    let (namespace, mailbox) = ("shop".to_owned(), "noreply@contoso.com".to_owned());
    situation.acceptance = Acceptance::NotAccepted(MailboxNotAllowed { namespace, mailbox }.into());
    let status = situation.status(at(0));
    for condition in [ConditionType::Accepted, ConditionType::Ready] {
        assert_eq!(find(&status.conditions, condition).unwrap().reason, "MailboxNotAllowed");
    }
    let message = message(&status, ConditionType::Accepted);
    assert!(message.starts_with("the namespace shop may not send as noreply@contoso.com. "), "{message}");
    assert!(message.contains("list the namespace with noreply@contoso.com under mailboxes"), "{message}");
}

#[test]
fn a_lent_identity_is_told_with_the_platforms_own_endpoint() {
    let mut situation = Situation::new();
    situation.route = samples::with_operator_identity();
    situation.settings = lender();
    let report = report(vec![observation(Reason::TokenServiceUnavailable, "HTTP 502", 0)]);
    let status = situation.pod("a").report("a", report).status(at(0));
    assert_eq!(status.endpoint.as_deref(), Some("smtp.m365.svc:587"));
    let message = message(&status, ConditionType::CredentialReady);
    assert!(message.contains("https://login.m365.svc:8443"), "{message}");
}

#[test]
fn what_another_route_of_the_tenant_met_is_unknown_here_and_goes_with_it() {
    let senders = |status: &MailRouteStatus| {
        let found = status.conditions.iter().find(|it| it.type_ == "SendersAccepted");
        found.map(|it| (it.status.clone(), it.reason.clone()))
    };
    let says = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
    let mut situation = Situation::new().pod("web-1").report("web-1", well());
    let before = situation.status(at(0));
    situation.tenant_quota_met = true;
    let met = situation.status(at(0));
    assert_eq!(senders(&met), says("Unknown", "TenantQuotaExceeded"));
    let ready = |status: &MailRouteStatus| status.conditions.iter().find(|it| it.type_ == "Ready").cloned();
    assert_eq!(ready(&met), ready(&before));

    let own = report(vec![observation(Reason::SendAsDenied, "550 5.7.60", 1)]);
    let mut failing = Situation::new().pod("web-1").report("web-1", own);
    failing.tenant_quota_met = true;
    assert_eq!(senders(&failing.status(at(1))), says("False", "SendAsDenied"), "its own fault stays");

    let mut idle = Situation::new().after(met);
    assert_eq!(senders(&idle.status(at(2))), None, "nothing of it is inherited");
    idle.tenant_quota_met = true;
    assert_eq!(senders(&idle.status(at(2))), says("Unknown", "TenantQuotaExceeded"));
}

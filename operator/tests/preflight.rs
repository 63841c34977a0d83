//! The look at DNS as a whole: real questions to a real name server, the simulator's.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::Event;
use mailroute_dns::resolver::Resolver;
use mailroute_m365::dns::zone::{Data, Kind, Record};
use mailroute_m365::{DnsAction, DnsFaults, Faults, Options, Rule, Simulator};
use mailroute_operator::cache::route::CachedRoute;
use mailroute_operator::cache::triggers::Triggers;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::preflight::need::needs;
use mailroute_operator::preflight::observations::DnsObservations;
use mailroute_operator::preflight::rounds::DnsRounds;
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::reports::{ReportingPod, Reports};
use mailroute_operator_core::status::{DnsNotice, DnsVerdict};
use mailroute_route::condition::Reason;
use mailroute_route::control::Report;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    board: DnsObservations,
    reports: Arc<Mutex<Reports>>,
    triggers: Triggers,
    metrics: Metrics,
    routes: Writer<CachedRoute>,
    changed: watch::Sender<u64>,
    rounds: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.rounds.abort();
    }
}

fn cached(route: &MailRoute) -> CachedRoute {
    CachedRoute::new(route.clone(), &Arc::default())
}

impl Stage {
    /// Goes round this route's domains.
    fn new(route: &MailRoute, server: SocketAddr) -> Self {
        let (store, mut routes) = reflector::store();
        for event in [Event::Init, Event::InitApply(cached(route)), Event::InitDone] {
            routes.apply_watcher_event(&event);
        }
        let (changed, changes) = watch::channel(0);
        let (board, reports) = (DnsObservations::on(), Arc::<Mutex<Reports>>::default());
        let (triggers, metrics) = (Triggers::default(), Metrics::new().unwrap());
        let rounds = DnsRounds {
            resolver: Resolver::new(Some(server)),
            board: board.clone(),
            routes: store,
            changes,
            reports: Arc::clone(&reports),
            triggers: triggers.clone(),
            metrics: metrics.clone(),
        };
        Self { board, reports, triggers, metrics, routes, changed, rounds: tokio::spawn(rounds.run()) }
    }

    /// What the board says of the route when the controller is next told to look at it.
    async fn told(&self, route: &MailRoute) -> DnsVerdict {
        use futures::StreamExt;
        let mut looked_at = Box::pin(self.triggers.stream());
        loop {
            let next = timeout(PATIENCE, looked_at.next()).await.unwrap().unwrap();
            assert_eq!(next, ObjectRef::from_obj(&cached(route)));
            let egress = self.reports.lock().unwrap().egress("shop", "notifications", Timestamp::now());
            if let DnsNotice::Known(verdict) = self.board.notice(&needs(&route.spec, egress)) {
                return verdict;
            }
        }
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().unwrap().lines().any(|it| it == line)
    }
}

fn route(spec: serde_json::Value) -> MailRoute {
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1", "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 1},
        "spec": spec,
    }))
    .unwrap()
}

fn submission() -> MailRoute {
    route(json!({
        "method": "ClientSubmission",
        "tenant": {"id": "72f988bf-86f1-41af-91ab-2d7cd011db47", "acceptedDomains": ["Contoso.com"]},
        "clientSubmission": {
            "mailbox": "noreply@contoso.com",
            "credential": {"type": "WorkloadIdentity", "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"},
        },
    }))
}

fn direct_send() -> MailRoute {
    route(json!({
        "method": "DirectSend",
        "tenant": {"id": "72f988bf-86f1-41af-91ab-2d7cd011db47", "acceptedDomains": ["contoso.com"]},
        "directSend": {},
    }))
}

fn record(name: &str, data: Data) -> Record {
    Record { name: name.into(), data }
}

/// Everything that contoso.com should publish; its MX record the simulator knows by itself.
fn published() -> Vec<Record> {
    let text = |name: &str, text: &str| record(name, Data::Txt(text.into()));
    let selector = |selector: &str| {
        let target = format!("{selector}-contoso-com._domainkey.contoso.onmicrosoft.com");
        record(&format!("{selector}._domainkey.contoso.com"), Data::Cname(target))
    };
    // Longer than a datagram, so that it is asked for over TCP.
    let verification = format!("some-verification={}", "x".repeat(2000));
    vec![
        text("contoso.com", &verification),
        text("contoso.com", "v=spf1 include:spf.protection.outlook.com -all"),
        text("spf.protection.outlook.com", "v=spf1 ip4:40.92.0.0/15 ip4:40.107.0.0/16 -all"),
        selector("selector1"),
        selector("selector2"),
        text("_dmarc.contoso.com", "v=DMARC1; p=none; rua=mailto:dmarc@contoso.com"),
    ]
}

async fn name_server(records: Vec<Record>) -> Simulator {
    let simulator = Simulator::start(Options::default()).await.unwrap();
    simulator.config(|config| config.dns.records = records);
    simulator
}

fn seen_from(address: &str) -> Report {
    Report {
        route: "notifications".into(),
        generation: 1,
        sidecar_version: "0.1.0".into(),
        config_error: None,
        observations: vec![],
        queue: Default::default(),
        usage: Default::default(),
        gateway_error: None,
        claim: None,
        mailboxes: vec![],
        left: vec![],
        egress: Some(address.parse().unwrap()),
    }
}

#[tokio::test]
async fn a_domain_that_publishes_everything_is_in_order() {
    let simulator = name_server(published()).await;
    let route = submission();
    let stage = Stage::new(&route, simulator.dns_address());
    let verdict = stage.told(&route).await;
    assert_eq!((verdict.holds, verdict.reason), (Some(true), Reason::DnsPublished), "{}", verdict.message);
    assert!(stage.metric("mailroute_dns_looks_total{outcome=\"published\"} 1"));
    let asked = simulator.lookups().len();
    assert!((6..20).contains(&asked), "{asked} questions for one domain");
}

#[tokio::test]
async fn what_is_missing_is_told_with_the_record_to_publish() {
    let mut records = published();
    records.retain(|record| record.name == "spf.protection.outlook.com");
    records.push(record("contoso.com", Data::Txt("v=spf1 mx -all".into())));
    let simulator = name_server(records).await;
    let route = submission();
    let verdict = Stage::new(&route, simulator.dns_address()).told(&route).await;
    assert_eq!((verdict.holds, verdict.reason), (Some(false), Reason::SpfIncomplete));
    for text in [
        "change it to \"v=spf1 mx include:spf.protection.outlook.com -all\"",
        "selector1._domainkey.contoso.com and selector2._domainkey.contoso.com are missing",
        "publish TXT _dmarc.contoso.com \"v=DMARC1; p=none;",
    ] {
        assert!(verdict.message.contains(text), "{text} is not in\n{}", verdict.message);
    }
}

#[tokio::test]
async fn name_servers_that_do_not_answer_make_it_unknown_with_the_cause() {
    let simulator = name_server(published()).await;
    let rules = vec![Rule::always(Kind::Txt, DnsAction::ServFail)];
    simulator.set_faults(Faults { dns: DnsFaults { rules }, ..Faults::default() });
    let route = submission();
    let stage = Stage::new(&route, simulator.dns_address());
    let verdict = stage.told(&route).await;
    assert_eq!((verdict.holds, verdict.reason), (None, Reason::DnsUnavailable), "{}", verdict.message);
    assert!(verdict.message.contains("SERVFAIL"), "{}", verdict.message);
    assert!(stage.metric("mailroute_dns_looks_total{outcome=\"failed\"} 1"));
}

#[tokio::test]
async fn the_address_that_sidecars_come_from_has_to_be_in_the_record() {
    let simulator = name_server(published()).await;
    let route = direct_send();
    let stage = Stage::new(&route, simulator.dns_address());
    assert_eq!(stage.told(&route).await.reason, Reason::DnsPublished, "no address is known yet");
    let pod = ReportingPod { namespace: "shop".into(), pod: "web-1".into(), uid: "web-1-uid".into() };
    stage.reports.lock().unwrap().record(&pod, seen_from("203.0.113.7"), Timestamp::now());
    stage.changed.send_modify(|changes| *changes += 1);
    let verdict = stage.told(&route).await;
    assert_eq!(verdict.reason, Reason::SpfIncomplete);
    let record = "\"v=spf1 include:spf.protection.outlook.com ip4:203.0.113.7 -all\"";
    assert!(verdict.message.contains(record), "{}", verdict.message);
}

#[tokio::test]
async fn a_domain_that_is_added_is_looked_at_without_waiting_for_the_others() {
    let simulator = name_server(published()).await;
    let first = submission();
    let mut stage = Stage::new(&first, simulator.dns_address());
    stage.told(&first).await;
    let mut second = first.clone();
    second.spec.tenant.accepted_domains.push("contoso.cmo".into());
    stage.routes.apply_watcher_event(&Event::Apply(cached(&second)));
    stage.changed.send_modify(|changes| *changes += 1);
    let verdict = stage.told(&second).await;
    assert_eq!(verdict.reason, Reason::DomainNotFound);
    assert!(verdict.message.starts_with("contoso.cmo does not exist in DNS."), "{}", verdict.message);
}

//! What the status says of the gateway that a route names.

use mailroute_route::file::Durability;

use super::*;

impl Situation {
    /// With a gateway pod, and a route that names it.
    fn gateway(mut self, name: &str) -> Self {
        self.route.spec.gateway = samples::with_gateway().spec.gateway;
        let created = Some(at(-1000));
        self.pods.push(SidecarPod { uid: name.into(), created, ..samples::gateway(name) });
        self
    }

    fn durable(mut self) -> Self {
        self.route.spec = samples::with_gateway().spec;
        self
    }
}

fn holding(messages: u64, oldest_seconds: u64) -> Report {
    Report { queue: Queue { messages, oldest_seconds, dead_letters: 0 }, ..well() }
}

fn cut_off() -> Report {
    Report { gateway_error: Some("connect to 10.0.0.9:9026: connection refused".into()), ..well() }
}

const GATEWAY: ConditionType = ConditionType::GatewayReady;

#[test]
fn a_route_without_a_gateway_says_nothing_of_one() {
    let status = Situation::new().pod("a").report("a", well()).status(at(0));
    assert_eq!(find(&status.conditions, GATEWAY), None);
    assert_eq!(status.gateway, None);
}

#[test]
fn a_gateway_shows_how_many_messages_wait_in_it() {
    let situation = Situation::new().pod("a").gateway("g-0").gateway("g-1");
    let status = situation
        .report("a", holding(1, 5))
        .report("g-0", holding(2, 30))
        .report("g-1", holding(3, 9))
        .status(at(0));
    assert_eq!(status.gateway, Some(GatewayStatus { pods: 2, ready: 2, queued: 5, oldest_seconds: 30 }));
    assert_eq!((status.queue.messages, status.sidecars.injected), (6, 3), "both include the gateway");
    assert_eq!(said(&status, GATEWAY), ("True", "GatewayReady"));
    let text = message(&status, GATEWAY);
    assert!(
        text.starts_with("2 of 2 gateway pods are ready. 5 messages wait in it: before you delete"),
        "{text}"
    );
}

#[test]
fn an_empty_gateway_says_so() {
    let status = Situation::new().gateway("g-0").report("g-0", well()).status(at(0));
    assert_eq!(message(&status, GATEWAY), "1 of 1 gateway pod is ready. No message waits in it.");
}

#[test]
fn a_gateway_that_is_missing_or_not_ready_counts_with_durability_gateway_alone() {
    let missing = Situation::new().pod("a").report("a", well()).durable().status(at(0));
    assert_eq!(said(&missing, GATEWAY), ("False", "GatewayMissing"));
    assert_eq!(said(&missing, ConditionType::Ready), ("False", "GatewayMissing"));
    assert!(
        message(&missing, GATEWAY).contains("--set route=notifications"),
        "{}",
        message(&missing, GATEWAY)
    );

    let idle = Situation::new().durable().status(at(0));
    assert_eq!(said(&idle, GATEWAY), ("False", "GatewayMissing"));
    assert_eq!(said(&idle, ConditionType::Ready), ("True", "NoPods"), "nobody misses it yet");
    let alone = Situation::new().gateway("g-0").durable();
    let alone = Situation {
        pods: alone.pods.into_iter().map(|pod| SidecarPod { ready: false, ..pod }).collect(),
        ..alone
    };
    assert_eq!(said(&alone.status(at(0)), ConditionType::Ready), ("True", "WaitingForReports"));

    let mut situation = Situation::new().pod("a").gateway("g-0").report("a", well());
    situation.pods[1].ready = false;
    let status = situation.status(at(0));
    assert_eq!(said(&status, GATEWAY), ("False", "GatewayNotReady"));
    assert!(message(&status, GATEWAY).starts_with("g-0: No pod of the gateway is ready."));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    situation.route.spec.delivery.durability = Durability::Gateway;
    assert_eq!(said(&situation.status(at(0)), ConditionType::Ready), ("False", "GatewayNotReady"));
}

#[test]
fn a_gateway_without_a_certificate_takes_nothing_over_and_is_quoted() {
    let bare = |why: &str| Report { gateway_error: Some(format!("no certificate: {why}")), ..well() };
    let situation = |why| Situation::new().gateway("g-0").report("g-0", bare(why));
    let status = situation("HTTP 503").status(at(0));
    assert_eq!(status.gateway.unwrap().ready, 0, "though its pod may be");
    assert_eq!(said(&status, GATEWAY), ("False", "GatewayNotReady"));
    let text = message(&status, GATEWAY);
    assert!(text.starts_with("g-0: no certificate: HTTP 503. No pod of the gateway is ready."), "{text}");
    let later = situation("HTTP 500").after(status.clone()).status(at(9));
    assert_eq!(message(&later, GATEWAY), text, "not written again for other words");
    let one_of_two = situation("HTTP 503").gateway("g-1").report("g-1", well()).status(at(0));
    assert_eq!(said(&one_of_two, GATEWAY), ("True", "GatewayReady"));
}

#[test]
fn a_gateway_that_is_ending_takes_nothing_over() {
    let mut situation = Situation::new().gateway("g-0").report("g-0", well());
    situation.pods[0].is_ending = true;
    assert_eq!(said(&situation.status(at(0)), GATEWAY), ("False", "GatewayNotReady"));
}

#[test]
fn sidecars_that_cannot_reach_the_gateway_are_counted_and_quoted() {
    let situation = Situation::new().pod("a").pod("b").gateway("g-0");
    let status = situation.report("a", well()).report("b", cut_off()).report("g-0", well()).status(at(0));
    assert_eq!(said(&status, GATEWAY), ("False", "GatewayUnreachable"));
    let text = message(&status, GATEWAY);
    assert!(
        text.starts_with("1 of 2 pods: connect to 10.0.0.9:9026: connection refused. The gateway is"),
        "{text}"
    );
}

#[test]
fn a_new_leader_believes_what_was_found_until_the_reports_are_in() {
    let situation = || Situation::new().pod("a").gateway("g-0");
    let before = situation().report("a", cut_off()).report("g-0", holding(4, 60)).status(at(0));
    let taken_over =
        situation().after(before.clone()).settling(100).report("g-0", holding(1, 90)).status(at(100));
    assert_eq!(said(&taken_over, GATEWAY), ("False", "GatewayUnreachable"));
    assert_eq!(taken_over.gateway.unwrap().queued, 4);
    let known = situation().after(before).settling(100).report("a", well()).report("g-0", holding(1, 90));
    let known = known.status(at(130));
    assert_eq!(said(&known, GATEWAY), ("True", "GatewayReady"));
    assert_eq!(known.gateway.unwrap().queued, 1);
}

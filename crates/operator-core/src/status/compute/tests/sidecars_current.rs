//! What the status says of the pods of a route and their sidecars: how many, how old, and under whose name.

use super::*;
use crate::crd::sidecar::Rollout;

/// Fingerprint of what an older operator added.
const OLD: &str = "00ff";

#[test]
fn sidecars_are_counted_by_what_they_are_and_use() {
    let mut situation = Situation::new().pod("a").pod("b").pod("c").pod("d");
    situation.pods[1].hash = Some(OLD.into());
    situation.pods[2].ready = false;
    let behind = Report { generation: 2, ..well() };
    let stuck = Report { config_error: Some("another format".into()), ..well() };
    let status = situation
        .report("a", stuck)
        .report("b", well())
        .report("c", behind)
        .report("d", well())
        .status(at(0));
    assert_eq!(
        status.sidecars,
        Sidecars { injected: 4, ready: 3, converged: 2, outdated: 1, missing: 0, silent: 0 }
    );
}

#[test]
fn outdated_sidecars_are_named_and_do_not_touch_ready() {
    let mut situation = Situation::new().pod("a").pod("b").report("a", well()).report("b", well());
    assert_eq!(said(&situation.status(at(0)), ConditionType::SidecarsCurrent), ("True", "SidecarsCurrent"));
    situation.pods[1].hash = Some(OLD.into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsOutdated"));
    let text = message(&status, ConditionType::SidecarsCurrent);
    assert!(text.starts_with("1 of 2 pods: b of Deployment web. Some pods have a sidecar"), "{text}");
    assert!(text.ends_with("spec.rollout: Restart"), "{text}");
}

#[test]
fn a_restart_says_what_each_pod_waits_for() {
    let mut situation = Situation::new().pod("a").pod("b").report("a", well()).report("b", well());
    situation.route.spec.rollout = Rollout::Restart;
    situation.pods.iter_mut().for_each(|pod| pod.hash = Some(OLD.into()));
    situation.pods[1].is_pod_ready = false;
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsRestarting"));
    let text = message(&status, ConditionType::SidecarsCurrent);
    assert!(
        text.starts_with("2 of 2 pods: a of Deployment web (b is not ready); b of Deployment web."),
        "{text}"
    );
    situation.pods.iter_mut().for_each(|pod| pod.runs_on = false);
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsHeld"));
    assert!(message(&status, ConditionType::SidecarsCurrent).contains("(it runs to completion)"));
}

#[test]
fn a_restart_stops_while_the_route_is_not_ready() {
    let mut situation = Situation::new().pod("a").report("a", refused("535"));
    situation.route.spec.rollout = Rollout::Restart;
    situation.pods[0].hash = Some(OLD.into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsHeld"));
    assert!(message(&status, ConditionType::SidecarsCurrent).contains("The route is not Ready."));
    situation.reports.clear();
    let status = situation.status(at(0));
    assert_eq!(
        said(&status, ConditionType::SidecarsCurrent),
        ("False", "SidecarsHeld"),
        "nothing is shown yet"
    );
    assert!(message(&status, ConditionType::SidecarsCurrent).contains("No pod has shown yet"));
}

#[test]
fn an_application_that_runs_out_of_federated_credentials_is_told_of_before() {
    let said_of = |federated: usize| {
        let mut situation = Situation::new().pod("a").report("a", well());
        situation.federated = federated;
        let status = situation.status(at(0));
        assert_eq!(said(&status, ConditionType::Ready), ("True", "Ready"));
        let found = find(&status.conditions, ConditionType::FederationFits);
        found.map(|it| (it.status.clone(), it.reason.clone(), it.message.clone()))
    };
    assert_eq!(said_of(17), None);
    for (federated, status, reason) in [
        (18, "True", "FederationNearlyFull"),
        (20, "True", "FederationNearlyFull"),
        (21, "False", "FederationFull"),
    ] {
        let (is, why, message) = said_of(federated).unwrap();
        assert_eq!((is.as_str(), why.as_str()), (status, reason));
        let beginning = format!("{federated} ServiceAccounts of this cluster use the application 1b2c3d4e");
        assert!(
            message.starts_with(&beginning) && message.ends_with("that of an AKS identity binding."),
            "{message}"
        );
    }
}

#[test]
fn pods_with_the_label_and_without_a_sidecar_are_named() {
    let mut situation = Situation::new();
    situation.bare.push(BarePod { owner: None, name: "early".into() });
    let status = situation.status(at(0));
    assert_eq!(status.sidecars.missing, 1);
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsMissing"));
    assert_eq!(said(&status, ConditionType::Ready), ("True", "NoPods"));
    let text = message(&status, ConditionType::SidecarsCurrent);
    assert!(text.starts_with("Without sidecar: early. Pods have the route's label"), "{text}");
    let mut situation = situation.pod("a").report("a", well());
    situation.pods[0].hash = Some(OLD.into());
    let status = situation.status(at(0));
    assert_eq!(said(&status, ConditionType::SidecarsCurrent), ("False", "SidecarsOutdated"));
    let text = message(&status, ConditionType::SidecarsCurrent);
    assert!(text.starts_with("1 of 1 pod: a of") && text.contains(" Without sidecar: early. "), "{text}");
}

#[test]
fn of_many_outdated_pods_some_are_named() {
    let mut situation = (10..60).fold(Situation::new(), |situation, n| situation.pod(&format!("web-{n}")));
    situation.pods.iter_mut().for_each(|pod| pod.hash = Some(OLD.into()));
    let status = situation.status(at(0));
    let text = message(&status, ConditionType::SidecarsCurrent);
    assert!(text.starts_with("50 of 50 pods: web-10 of") && text.contains("; and 45 more."), "{text}");
    assert!(text.len() < 1000, "{text}");
}

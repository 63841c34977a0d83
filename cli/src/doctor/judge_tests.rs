//! An installation as it should be, and every way in which it is not.

use kube::api::DynamicObject;
use mailroute_operator_core::samples;
use serde_json::{Value, json};

use super::super::seen::Trial;
use super::*;
use crate::cluster::pods::RoutePod;

fn now() -> Timestamp {
    "2027-01-15T08:00:00Z".parse().unwrap()
}

fn established(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let status = json!({"acceptedNames": {"kind": "x", "plural": "x"}, "conditions": [
        {"type": "Established", "status": "True", "reason": "x", "message": "x"},
    ]});
    definition.status = Some(serde_json::from_value(status).unwrap());
    definition
}

fn configuration() -> MutatingWebhookConfiguration {
    let entry = |name, of_pod: &str, namespaces| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"service": {"name": "mailroute", "namespace": "mail"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "objectSelector": {"matchExpressions": [
                {"key": "mailroute.dev/route", "operator": of_pod},
                {"key": "mailroute.dev/inject", "operator": "NotIn", "values": ["false"]},
            ]},
            "namespaceSelector": namespaces,
        })
    };
    let labelled = json!({"matchExpressions": [{"key": "mailroute.dev/route", "operator": "Exists"}]});
    serde_json::from_value(json!({
        "metadata": {"name": "mailroute"},
        "webhooks": [
            entry("namespaces.mailroute.dev", "DoesNotExist", labelled),
            entry("inject.mailroute.dev", "Exists", json!({})),
        ],
    }))
    .unwrap()
}

fn route(ready: &str, reason: &str) -> RouteView {
    let object: DynamicObject = serde_json::from_value(json!({
        "metadata": {"name": "notifications", "namespace": "shop"},
        "spec": {"method": "ClientSubmission"},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": "",
            "lastTransitionTime": "2027-01-15T07:00:00Z"}]},
    }))
    .unwrap();
    RouteView::of(&object)
}

fn seen() -> Seen {
    let operator = Operator {
        namespace: "mail".into(),
        name: "mailroute".into(),
        version: Some("0.1.0".into()),
        image: "mailroute.dev/operator:0.1.0".into(),
        sidecar_image: Some("mailroute.dev/sidecar:0.1.0".into()),
        replicas: (2, 2),
        is_rolling: false,
    };
    let lease =
        json!({"spec": {"holderIdentity": "mailroute-7d9", "renewTime": "2027-01-15T07:59:58.000000Z"}});
    let pod = RoutePod::of(&samples::pod("web-1", "mailroute.dev/sidecar:0.1.0")).unwrap();
    Seen {
        api_server: Ok(serde_json::from_value(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "buildDate": "", "compiler": "", "gitCommit": "",
            "gitTreeState": "", "goVersion": "", "platform": "",
        }))
        .unwrap()),
        definitions: Ok(vec![established(MailRoute::crd()), established(MailboxUsage::crd())]),
        operators: Ok(vec![operator]),
        lease: Ok(Some(serde_json::from_value(lease).unwrap())),
        configuration: Ok(Some(configuration())),
        policies: Ok(["a", "b", "c", "d", "e", "f"].map(String::from).to_vec()),
        routes: Ok(vec![route("True", "Ready")]),
        pods: Ok(vec![RoutePod { ready: true, runs: true, ..pod }]),
        trial: Ok(Some(Trial { route: "shop/notifications".into(), outcome: Ok("mailroute.dev/sidecar:0.1.0".into()) })),
        now: now(),
    }
}

/// What is found about one part, beside what is as it should be.
fn found(seen: &Seen, part: &str) -> Vec<(State, String)> {
    let all = judge(seen, "0.1.0");
    let bad = all.into_iter().filter(|it| it.part == part && it.state != State::Ok);
    bad.map(|it| (it.state, it.found)).collect()
}

#[test]
fn all_is_well_but_for_a_webhook_that_nobody_trusts() {
    let findings = judge(&seen(), "0.1.0");
    let bad: Vec<_> = findings.iter().filter(|it| it.state != State::Ok).collect();
    assert!(bad.len() == 1 && bad[0].part == "certificate" && bad[0].state == State::Problem, "{bad:#?}");
    assert_eq!(exit_code(&findings), 1);
    let good: Vec<_> = findings.into_iter().filter(|it| it.state == State::Ok).collect();
    assert_eq!(exit_code(&good), 0);
}

#[test]
fn what_could_not_be_looked_at_is_no_problem_and_not_well_either() {
    let mut seen = seen();
    seen.configuration = Err("you lack a right".into());
    let findings = judge(&seen, "0.1.0");
    assert_eq!(found(&seen, "webhook"), [(State::NotSeen, "you lack a right".to_owned())]);
    assert_eq!(exit_code(&findings), 2);
}

#[test]
fn every_part_that_is_missing_or_old_is_named() {
    type Change = fn(&mut Seen);
    let cases: [(&str, State, &str, Change); 12] = [
        ("definitions", State::Problem, "not installed", |it| it.definitions = Ok(vec![])),
        ("operator", State::Problem, "no Deployment", |it| it.operators = Ok(vec![])),
        ("operator", State::Problem, "0 of 2", |it| it.operators.as_mut().unwrap()[0].replicas = (2, 0)),
        ("operator", State::Warning, "1 of 2", |it| it.operators.as_mut().unwrap()[0].replicas = (2, 1)),
        ("version", State::Warning, "0.0.9", |it| {
            it.operators.as_mut().unwrap()[0].version = Some("0.0.9".into())
        }),
        ("leader", State::Problem, "no replica", |it| it.lease = Ok(None)),
        ("leader", State::Problem, "has not renewed", |it| it.now = "2027-01-15T09:00:00Z".parse().unwrap()),
        ("webhook", State::Problem, "WebhookEntryMissing", |it| it.configuration = Ok(None)),
        ("policy", State::Warning, "not installed", |it| it.policies = Ok(vec![])),
        ("injection", State::Problem, "no route", |it| {
            let route = "shop/notifications".into();
            it.trial = Ok(Some(Trial { route, outcome: Err("there is no route".into()) }));
        }),
        ("sidecars", State::Warning, "a new pod gets", |it| {
            it.pods.as_mut().unwrap()[0].image = Some("old".into())
        }),
        ("routes", State::Problem, "shop/notifications is not ready: SecretMissing", |it| {
            it.routes = Ok(vec![route("False", "SecretMissing")]);
        }),
    ];
    for (part, state, words, change) in cases {
        let mut seen = seen();
        change(&mut seen);
        let found = found(&seen, part);
        assert!(
            found.iter().any(|(is, said)| *is == state && said.contains(words)),
            "{part} {words}: {found:?}"
        );
    }
}

#[test]
fn a_definition_of_another_version_is_named_with_its_fields() {
    let mut seen = seen();
    let definition = &mut seen.definitions.as_mut().unwrap()[0];
    let mut schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let fields = schema
        .pointer_mut("/openAPIV3Schema/properties/spec/properties")
        .and_then(Value::as_object_mut)
        .unwrap();
    fields.remove("gateway");
    definition.spec.versions[0].schema = serde_json::from_value(schema).unwrap();
    let found = found(&seen, "definitions");
    assert!(found.len() == 1 && found[0].1.ends_with("this program knows: spec.gateway"), "{found:?}");
}

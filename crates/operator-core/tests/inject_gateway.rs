//! A gateway: the container that a pod template brings along is completed, or the pod is refused in a sentence.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::annotations::InjectionRecord;
use mailroute_operator_core::inject::names::{GATEWAY_OPTIONS, INJECTED};
use mailroute_operator_core::inject::{self, InjectionPlan, Refusal, SidecarSettings};
use mailroute_operator_core::resolve::{PlatformSettings, ResolvedRoute, resolve};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

fn route() -> ResolvedRoute {
    let route: MailRoute = serde_saphyr::from_str(include_str!("inject/route_gateway.yaml")).unwrap();
    resolve(&route, &PlatformSettings::default()).route.unwrap()
}

fn platform() -> SidecarSettings {
    SidecarSettings {
        image: "mailroute.dev/sidecar:0.1.0".into(),
        pull_secrets: vec!["registry".into()],
        control_address: Some("mailroute.mailroute-system.svc:8444".into()),
        ..SidecarSettings::default()
    }
}

fn gateway() -> Value {
    serde_saphyr::from_str(include_str!("inject/gateway.yaml")).unwrap()
}

fn planned(pod: &Value) -> Result<InjectionPlan, Refusal> {
    inject::plan(pod, &route(), &platform())
}

fn completed(pod: &Value) -> Value {
    let (plan, mut pod) = (planned(pod).unwrap(), pod.clone());
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn container(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

fn with(change: impl Fn(&mut Value)) -> Value {
    let mut pod = gateway();
    change(&mut pod);
    pod
}

#[test]
fn what_cannot_be_a_gateway_is_told_in_a_sentence_with_a_remedy() {
    type Change = fn(&mut Value);
    let sidecar = json!([{"name": "mailroute", "restartPolicy": "Always"}]);
    let table: [(Change, &str, &str); 21] = [
        (|pod| pod["spec"]["volumes"] = json!([]), "GatewaySpool", "volumeClaimTemplate"),
        (
            |pod| pod["spec"]["volumes"][0] = json!({"name": "mailroute-spool", "emptyDir": {}}),
            "GatewaySpool",
            "the chart mailroute-gateway",
        ),
        (|pod| pod["spec"]["securityContext"] = json!({}), "FsGroup", "fsGroup"),
        (|pod| pod["spec"]["hostNetwork"] = json!(true), "HostNetwork", "Remove"),
        (|pod| pod["spec"]["os"] = json!({"name": "windows"}), "Windows", "Linux"),
        (|pod| pod["spec"]["shareProcessNamespace"] = json!(true), "SharedProcesses", "Remove"),
        (|pod| container(pod)["args"] = json!(["--control=x:1"]), "GatewayArgument", "--smtp-listen"),
        (|pod| container(pod)["args"] = json!(["--grace=600"]), "GatewayArgument", "Remove it"),
        (|pod| container(pod)["args"] = json!(["--gateway=[::]:1"]), "GatewayArgument", "Remove it"),
        (|pod| container(pod)["args"] = json!(["--route=/tmp/r"]), "GatewayArgument", "Remove it"),
        (|pod| container(pod)["args"] = json!(["--spool-dir", "/tmp"]), "GatewayArgument", "--name=value"),
        (|pod| container(pod)["args"] = json!(["--smtp-tls", "/x"]), "GatewayArgument", "--name=value"),
        (|pod| container(pod)["args"] = json!(["check"]), "GatewayArgument", "Remove it"),
        (|pod| container(pod)["command"] = json!(["/bin/sh"]), "GatewayChanged", "Remove command"),
        (
            |pod| container(pod)["envFrom"] = json!([{"secretRef": {"name": "x"}}]),
            "GatewayChanged",
            "Remove envFrom",
        ),
        (
            |pod| container(pod)["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 9}}}),
            "GatewayChanged",
            "Remove lifecycle",
        ),
        (
            |pod| container(pod)["securityContext"] = json!({"privileged": true}),
            "GatewayChanged",
            "Remove securityContext",
        ),
        (
            |pod| {
                container(pod)["volumeMounts"] = json!([{"name": "x", "mountPath": "/etc/mailroute/route/x"}])
            },
            "GatewayChanged",
            "Remove volumeMounts",
        ),
        (
            |pod| {
                container(pod)["livenessProbe"] = json!({"exec": {"command": ["/mailroute-sidecar", "run"]}})
            },
            "GatewayChanged",
            "Remove livenessProbe",
        ),
        (
            |pod| pod["spec"]["containers"][1] = json!({"name": "x", "ports": [{"containerPort": 9026}]}),
            "PortInUse",
            "the gateway takes messages over there",
        ),
        (
            |pod| container(pod)["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            "RequestOverLimit",
            "mailroute.dev/sidecar-cpu-request",
        ),
    ];
    for (change, reason, remedy) in table {
        let mut pod = gateway();
        if reason == "PortInUse" {
            pod["spec"]["containers"].as_array_mut().unwrap().push(json!({}));
        }
        change(&mut pod);
        let refusal = planned(&pod).unwrap_err();
        assert_eq!(refusal.reason(), reason, "{refusal}");
        assert!(refusal.remedy().contains(remedy), "{}", refusal.remedy());
        for text in [refusal.to_string(), refusal.remedy()] {
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }
    let both = with(|pod| pod["spec"]["initContainers"] = sidecar.clone());
    assert_eq!(planned(&both).unwrap_err(), Refusal::TwoRoles);
}

#[test]
fn a_container_of_the_name_that_is_neither_is_refused_as_before() {
    let own = with(|pod| container(pod)["image"] = json!("shop/mailroute:1"));
    assert_eq!(planned(&own).unwrap_err(), Refusal::ContainerName);
}

#[test]
fn a_completed_container_that_was_changed_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("image", |it| it["image"] = json!("evil.example/x:1")),
        ("args", |it| it["args"] = json!([])),
        ("args", |it| it["args"][0] = json!("--control=elsewhere:1")),
        ("args", |it| it["args"][1] = json!("--grace=900")),
        ("securityContext", |it| it["securityContext"]["runAsUser"] = json!(0)),
        ("volumeMounts", |it| it["volumeMounts"][1]["mountPath"] = json!("/elsewhere")),
    ];
    for (field, change) in changes {
        let mut pod = completed(&gateway());
        change(container(&mut pod));
        assert_eq!(planned(&pod).unwrap_err(), Refusal::GatewayChanged { field });
    }
    let mut pod = completed(&gateway());
    container(&mut pod)["args"].as_array_mut().unwrap().push(json!("--route=/tmp/r"));
    assert_eq!(planned(&pod).unwrap_err().reason(), "GatewayArgument");
}

#[test]
fn a_gateway_ends_within_the_time_of_its_pod_and_has_a_minute_at_least() {
    for (period, raised, grace) in [
        (json!(300), None, 295),
        (json!(60), None, 55),
        (json!(10), Some(60), 55),
        (Value::Null, Some(60), 55),
    ] {
        let pod = with(|pod| pod["spec"]["terminationGracePeriodSeconds"] = period.clone());
        let plan = planned(&pod).unwrap();
        assert_eq!(plan.grace_period, raised, "{period}");
        let (_, container) = plan.completed.unwrap();
        assert_eq!(container["args"][1], format!("--grace={grace}"), "{period}");
    }
    let mut pod = completed(&gateway());
    pod["spec"]["terminationGracePeriodSeconds"] = json!(600);
    assert!(planned(&pod).unwrap().is_empty(), "somebody gave it more time");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(30);
    assert_eq!(planned(&pod).unwrap().grace_period, Some(300), "somebody took it away");
}

#[test]
fn a_pod_overrides_the_resources_and_the_log_of_its_gateway() {
    let annotations = json!({
        "mailroute.dev/sidecar-memory-limit": "256Mi",
        "mailroute.dev/sidecar-log-level": "debug",
        "mailroute.dev/sidecar-port": "2525",
    });
    let mut pod = with(|pod| pod["metadata"]["annotations"] = annotations.clone());
    let (_, plain) = planned(&pod).unwrap().completed.unwrap();
    assert_eq!(plain["resources"]["limits"], json!({"cpu": "500m", "memory": "256Mi"}), "over the route's");
    let args = plain["args"].as_array().unwrap();
    assert!(args.contains(&json!("--log-level=debug")) && !args.contains(&json!("--port=2525")), "{args:?}");
    container(&mut pod)["resources"] = json!({"limits": {"memory": "192Mi"}, "claims": []});
    let (_, own) = planned(&pod).unwrap().completed.unwrap();
    assert_eq!(own["resources"], json!({"limits": {"memory": "256Mi"}, "claims": []}), "over its own");
    container(&mut pod)["args"] = json!(["--log-level=info"]);
    assert_eq!(planned(&pod).unwrap_err().reason(), "GatewayArgument", "it would be set twice");
}

#[test]
fn the_record_says_what_was_added_and_not_what_is_the_owners() {
    let hash = |pod: &Value| {
        let pod = completed(pod);
        InjectionRecord::parse(pod["metadata"]["annotations"][INJECTED].as_str().unwrap()).unwrap().hash
    };
    let own = with(|pod| {
        container(pod)["resources"] = json!({"limits": {"memory": "1Gi"}});
        container(pod)["args"] = json!(["--smtp-listen=[::]:2525", "--smtp-without-auth"]);
        pod["spec"]["terminationGracePeriodSeconds"] = json!(900);
    });
    assert_eq!(hash(&own), hash(&gateway()));
}

prop_compose! {
    fn gateways()(
        args in prop_oneof![
            Just(None),
            subsequence(GATEWAY_OPTIONS.to_vec(), 0..=GATEWAY_OPTIONS.len())
                .prop_map(|names| Some(names.into_iter().map(|name| json!(format!("{name}=x"))).collect::<Vec<_>>())),
        ],
        ports in select(vec![Value::Null, json!([]), json!([{"containerPort": 2525}]),
            json!([{"name": "metrics", "containerPort": 9025}, {"containerPort": 9026, "protocol": "UDP"}])]),
        resources in select(vec![Value::Null, json!({}), json!({"limits": {"memory": "64Mi"}})]),
        security in select(vec![Value::Null, json!({}), json!({"runAsUser": 7, "capabilities": {"add": ["CHOWN"]}})]),
        mounts in select(vec![Value::Null, json!([{"name": "tls", "mountPath": "/etc/mailroute/tls"}]),
            json!([{"name": "mailroute-spool", "mountPath": "/var/spool/mailroute"}])]),
        policy in select(vec![Value::Null, json!("Never"), json!("Always")]),
        before in select(vec![json!([]), json!([{"name": "istio-proxy", "image": "p", "fieldOfTheFuture": {"a": null}}])]),
        grace in select(vec![Value::Null, json!(0), json!(60), json!(3600)]),
        annotations in select(vec![Value::Null, json!({}), json!({"mailroute.dev/sidecar-memory-limit": "256Mi"})]),
    ) -> Value {
        let mut pod = gateway();
        let mut own = json!({"name": "mailroute", "image": "auto", "env": [{"name": "TZ", "value": "UTC"}], "stdin": false});
        let args = args.map_or(Value::Null, Value::from);
        for (field, value) in [("args", args), ("ports", ports), ("resources", resources), ("securityContext", security),
            ("volumeMounts", mounts), ("imagePullPolicy", policy)] {
            if !value.is_null() {
                own[field] = value;
            }
        }
        let mut containers = before.as_array().unwrap().clone();
        containers.push(own);
        pod["spec"]["containers"] = containers.into();
        pod["spec"]["terminationGracePeriodSeconds"] = grace;
        pod["metadata"]["annotations"] = annotations;
        pod
    }
}

fn ours(pod: &Value) -> &Value {
    pod["spec"]["containers"].as_array().unwrap().iter().find(|it| it["name"] == "mailroute").unwrap()
}

/// What other webhooks may do between two calls of ours.
fn meddled(mut pod: Value) -> Value {
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["env"]
            .as_array_mut()
            .into_iter()
            .for_each(|env| env.push(json!({"name": "LATE", "value": "x"})));
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.insert(0, json!({"name": "kube-api-access", "mountPath": "/var/run/secrets/x"}));
        }
        if container["name"] == "mailroute" {
            container["image"] = json!("mailroute.dev/sidecar:0.1.0@sha256:aa");
            container["livenessProbe"]["periodSeconds"] = json!(77);
        }
    }
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, json!({"name": "late-proxy", "image": "p"}));
    pod["spec"]["volumes"].as_array_mut().unwrap().reverse();
    pod
}

proptest! {
    #[test]
    fn a_second_completion_changes_nothing_and_the_first_is_always_the_same(pod in gateways()) {
        let once = completed(&pod);
        prop_assert_eq!(&once, &completed(&pod));
        prop_assert!(planned(&once).unwrap().is_empty());
        prop_assert!(planned(&meddled(once)).unwrap().is_empty());
    }

    #[test]
    fn a_template_read_back_from_a_cluster_is_complete(pod in gateways()) {
        let mut again = completed(&pod);
        again["metadata"].as_object_mut().unwrap().remove("annotations");
        let plan = planned(&again);
        // An annotation that says otherwise than the container went with it.
        let plan = plan.unwrap();
        prop_assert_eq!(plan.completed, None);
        prop_assert!(plan.volumes.is_empty() && plan.annotation.is_some());
    }

    #[test]
    fn nothing_that_the_owner_wrote_is_taken_away(pod in gateways()) {
        let after = completed(&pod);
        let (before, now) = (ours(&pod), ours(&after));
        let list = |of: &Value, field: &str| of[field].as_array().cloned().unwrap_or_default();
        prop_assert!(list(now, "args").ends_with(&list(before, "args")));
        for field in ["ports", "volumeMounts", "env"] {
            let now = list(now, field);
            prop_assert!(list(before, field).iter().all(|it| now.contains(it)), "{field}");
        }
        prop_assert_eq!(&now["stdin"], &before["stdin"]);
        let others = |pod: &Value| -> Vec<Value> {
            let all = pod["spec"]["containers"].as_array().unwrap().clone();
            all.into_iter().filter(|it| it["name"] != "mailroute").collect()
        };
        prop_assert_eq!(others(&after), others(&pod));
        prop_assert_eq!(after["spec"].get("initContainers"), None);
        let numbers: Vec<_> = list(now, "ports").iter().map(|port| (port["containerPort"].clone(), port["protocol"] == "UDP")).collect();
        prop_assert_eq!(numbers.iter().filter(|it| **it == (json!(9026), false)).count(), 1);
    }

    #[test]
    fn whatever_the_container_is_the_answer_is_a_plan_or_a_refusal(
        mut pod in gateways(),
        field in select(vec!["args", "ports", "resources", "securityContext", "volumeMounts", "startupProbe", "image", "env"]),
        value in select(vec![json!(1), json!("x"), json!([]), json!({}), json!([1, null, "x", {"name": 5}])]),
    ) {
        let last = pod["spec"]["containers"].as_array().unwrap().len() - 1;
        pod["spec"]["containers"][last][field] = value;
        if let Ok(plan) = planned(&pod) {
            let patch = inject::patch(&plan, &pod).unwrap();
            prop_assert!(json_patch::patch(&mut pod, &patch).is_ok());
        }
    }
}

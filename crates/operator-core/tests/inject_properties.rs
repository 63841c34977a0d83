//! What holds for every pod: properties over generated pods.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use json_patch::PatchOperation;
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::names::{CONTAINER, INJECTED, KEYS, PORT_START, SAFE_TO_EVICT, VOLUMES};
use mailroute_operator_core::inject::sidecar::DRAIN_SECONDS;
use mailroute_operator_core::inject::{self, SidecarSettings};
use mailroute_operator_core::resolve::{PlatformSettings, ResolvedRoute, resolve};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

/// A route: its port, its method with credential, whether it names a CA, and its mode.
#[derive(Clone, Debug)]
struct Shape {
    port: u16,
    way: &'static str,
    ca: bool,
    mode: &'static str,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let ways = vec![
        "WorkloadIdentity",
        "ClientSecret",
        "ClientCertificate",
        "Password",
        "graph",
        "graph, else client submission",
        "HighVolumeEmail",
        "CommunicationServices",
        "relay",
        "direct",
    ];
    let modes = vec!["Deliver", "Queue", "DeliverOrQueue"];
    (select(vec![25, 587, 2525]), select(ways), any::<bool>(), select(modes))
        .prop_map(|(port, way, ca, mode)| Shape { port, way, ca, mode })
}

fn route(shape: &Shape) -> ResolvedRoute {
    let ca = shape.ca.then(|| json!({"caBundleRef": {"name": "m365-ca", "key": "ca.pem"}}));
    let mut spec = json!({
        "method": "ClientSubmission",
        "tenant": {"id": "contoso.com", "acceptedDomains": ["contoso.com"], "authority": ca},
        "endpoint": ca,
        "delivery": {"mode": shape.mode},
        "listen": {"port": shape.port},
    });
    match shape.way {
        "relay" => {
            spec["method"] = json!("SmtpRelay");
            spec["smtpRelay"] = json!({"certificateSecretRef": {"name": "relay-tls"}});
        }
        "graph" | "graph, else client submission" => {
            spec["method"] = json!("Graph");
            spec["graph"] = json!({"mailbox": "noreply@contoso.com", "credential": workload_identity()});
            if shape.way != "graph" {
                spec["graph"]["fallback"] = json!("ClientSubmission");
                spec["graph"]["fallbackEndpoint"] = json!(ca);
            }
        }
        service @ ("HighVolumeEmail" | "CommunicationServices") => {
            spec["clientSubmission"] = json!({
                "service": service, "mailbox": "noreply@contoso.com", "credential": workload_identity(),
            });
        }
        "direct" => {
            spec["method"] = json!("DirectSend");
            spec["directSend"] = json!({});
        }
        type_ => {
            let mut credential = json!({"type": type_});
            if type_ != "WorkloadIdentity" {
                credential["secretRef"] = json!({"name": "m365", "key": "secret"});
            }
            if type_ != "Password" {
                credential["clientId"] = json!("1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9");
            }
            spec["clientSubmission"] = json!({"mailbox": "noreply@contoso.com", "credential": credential});
        }
    }
    let route: MailRoute = serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "u", "generation": 3},
        "spec": spec,
    }))
    .unwrap();
    resolve(&route, &PlatformSettings::default()).route.unwrap()
}

fn workload_identity() -> Value {
    json!({"type": "WorkloadIdentity", "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"})
}

fn platform() -> SidecarSettings {
    SidecarSettings {
        image: "mailroute.dev/sidecar:0.1.0".into(),
        pull_policy: None,
        pull_secrets: vec!["registry".into()],
        control_address: Some("mailroute.mailroute-system.svc:8444".into()),
        ..SidecarSettings::default()
    }
}

fn container(name: &str) -> Value {
    json!({
        "name": name,
        "image": format!("example.com/{name}:1"),
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        "ports": [{"containerPort": 8080}],
        "fieldOfTheFuture": {"kept": [1, 2, {"and": null}]},
    })
}

/// A list of containers, absent, null, empty or filled.
fn containers(names: &'static [&'static str]) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Value::Null)),
        6 => subsequence(names, 0..=names.len())
            .prop_shuffle()
            .prop_map(|names| Some(names.into_iter().map(container).collect())),
    ]
}

fn annotations() -> impl Strategy<Value = Option<Value>> {
    let pairs = [
        ("prometheus.io/scrape", "x/y~z"),
        ("a~b/c~1d", "x/y~z"),
        ("plain", ""),
        ("example.com/mailroute.dev", "x"),
        ("linkerd.io/inject", "enabled"),
        ("mailroute.dev/sidecar-cpu-request", "20m"),
        ("mailroute.dev/sidecar-memory-limit", "256Mi"),
        ("mailroute.dev/sidecar-log-level", "debug"),
        ("mailroute.dev/allow-shared-processes", "true"),
    ];
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        subsequence(pairs.to_vec(), 0..=pairs.len()).prop_map(|pairs| Some(
            pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
        )),
    ]
}

fn security_context() -> impl Strategy<Value = Option<Value>> {
    select(vec![
        None,
        Some(Value::Null),
        Some(json!({})),
        Some(json!({"runAsUser": 1000, "sysctls": null})),
        Some(json!({"fsGroup": 2000, "sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]})),
        Some(json!({"sysctls": [{"name": PORT_START, "value": "0"}]})),
        Some(json!({"sysctls": [{"name": PORT_START, "value": "25"}]})),
    ])
}

fn volumes() -> impl Strategy<Value = Option<Value>> {
    select(vec![
        None,
        Some(Value::Null),
        Some(json!([])),
        Some(json!([{"name": "cache", "emptyDir": {}}, {"name": "data", "csi": {"driver": "x"}}])),
    ])
}

fn grace_periods() -> impl Strategy<Value = Option<Value>> {
    select(vec![None, Some(Value::Null), Some(json!(0)), Some(json!(30)), Some(json!(3600))])
}

prop_compose! {
    fn pods()(
        grace in grace_periods(),
        pull_secrets in select(vec![None, Some(Value::Null), Some(json!([])), Some(json!([{"name": "own"}]))]),
        init in containers(&["istio-init", "istio-proxy", "linkerd-proxy", "migrate", "azwi-proxy", "announce"]),
        main in containers(&["web", "worker", "proxy"]),
        annotations in annotations(),
        security in security_context(),
        volumes in volumes(),
        name in select(vec![json!({"name": "web"}), json!({"generateName": "web-"}), json!({})]),
    ) -> Value {
        let mut metadata: Map<String, Value> = name.as_object().unwrap().clone();
        metadata.insert("labels".into(), json!({"mailroute.dev/route": "notifications"}));
        metadata.extend(annotations.map(|value| ("annotations".into(), value)));
        let spec: Map<String, Value> = [
            ("initContainers", init),
            ("containers", main),
            ("securityContext", security),
            ("volumes", volumes),
            ("terminationGracePeriodSeconds", grace),
            ("imagePullSecrets", pull_secrets),
            ("hostNetwork", Some(json!(false))),
            ("fieldOfTheFuture", Some(json!({"kept": true}))),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key.to_owned(), value)))
        .collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {}})
    }
}

fn injected(pod: &Value, route: &ResolvedRoute) -> Value {
    let plan = inject::plan(pod, route, &platform()).unwrap();
    let mut pod = pod.clone();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Takes away what is ours, and what is then empty or was null.
fn stripped(mut pod: Value) -> Value {
    let ours = |name: &Value, names: &[&str]| names.iter().any(|ours| name == ours);
    let retain = |pod: &mut Value, pointer: &str, names: &[&str]| {
        if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.retain(|item| !ours(&item["name"], names));
        }
    };
    retain(&mut pod, "/spec/initContainers", &[CONTAINER]);
    retain(&mut pod, "/spec/volumes", &VOLUMES);
    retain(&mut pod, "/spec/imagePullSecrets", &["registry"]);
    retain(&mut pod, "/spec/securityContext/sysctls", &[PORT_START]);
    if let Some(annotations) = pod.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(INJECTED);
        annotations.remove(SAFE_TO_EVICT);
    }
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("terminationGracePeriodSeconds");
    }
    for (parent, child) in [
        ("/metadata", "annotations"),
        ("/spec", "initContainers"),
        ("/spec", "volumes"),
        ("/spec", "imagePullSecrets"),
        ("/spec/securityContext", "sysctls"),
        ("/spec", "securityContext"),
    ] {
        let Some(parent) = pod.pointer_mut(parent).and_then(Value::as_object_mut) else { continue };
        let is_empty = |value: &Value| {
            value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(Map::is_empty)
        };
        if parent.get(child).is_some_and(is_empty) {
            parent.remove(child);
        }
    }
    pod
}

/// What other webhooks may do between two calls of ours: add, reorder, rename, fill defaults in.
fn meddled(mut pod: Value, reverse: bool, at: prop::sample::Index) -> Value {
    pod["metadata"]["name"] = json!("renamed");
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    for container in init.iter_mut() {
        container["env"] = json!([{"name": "AZURE_CLIENT_ID", "value": "x"}]);
        container["terminationMessagePath"] = json!("/dev/termination-log");
        if let Some(mounts) = container["volumeMounts"].as_array_mut() {
            mounts.insert(0, json!({"name": "kube-api-access", "mountPath": "/var/run/secrets/x"}));
        }
    }
    init.insert(at.index(init.len() + 1), json!({"name": "late-proxy", "restartPolicy": "Always"}));
    if reverse {
        init.reverse();
    }
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    for volume in volumes.iter_mut() {
        for source in ["configMap", "projected", "secret"] {
            if let Some(source) = volume.get_mut(source) {
                source["defaultMode"] = json!(420);
            }
        }
    }
    volumes.push(json!({"name": "late", "emptyDir": {}}));
    if reverse {
        volumes.reverse();
    }
    pod
}

const GRACE: &str = "/spec/terminationGracePeriodSeconds";

proptest! {
    #[test]
    fn the_same_pod_gets_the_same_patch(pod in pods(), shape in shapes()) {
        let route = route(&shape);
        let bytes = || {
            let plan = inject::plan(&pod, &route, &platform()).unwrap();
            serde_json::to_vec(&inject::patch(&plan, &pod).unwrap()).unwrap()
        };
        prop_assert_eq!(bytes(), bytes());
    }

    #[test]
    fn a_second_injection_adds_nothing(
        pod in pods(),
        shape in shapes(),
        reverse in any::<bool>(),
        at in any::<prop::sample::Index>(),
    ) {
        let route = route(&shape);
        let once = injected(&pod, &route);
        prop_assert!(inject::plan(&once, &route, &platform()).unwrap().is_empty());
        let later = meddled(once, reverse, at);
        prop_assert!(inject::plan(&later, &route, &platform()).unwrap().is_empty());
    }

    #[test]
    fn a_patch_only_adds(pod in pods(), shape in shapes()) {
        let route = route(&shape);
        let plan = inject::plan(&pod, &route, &platform()).unwrap();
        for operation in inject::patch(&plan, &pod).unwrap().0 {
            let add = match operation {
                PatchOperation::Add(add) => add,
                PatchOperation::Replace(replace) => {
                    prop_assert_eq!(replace.path.as_str(), GRACE);
                    prop_assert!(replace.value.as_i64() > pod.pointer(GRACE).and_then(Value::as_i64));
                    continue;
                }
                other => return Err(TestCaseError::fail(format!("{other:?} is no addition"))),
            };
            // An addition onto something that is there would replace it.
            let there = pod.pointer(add.path.as_str()).is_some_and(|value| !value.is_null());
            prop_assert!(!there || add.path.as_str().starts_with("/spec/initContainers/"), "{}", add.path);
        }
    }

    #[test]
    fn taking_the_additions_away_gives_the_pod_back(pod in pods(), shape in shapes()) {
        let route = route(&shape);
        // A pod that sets the sysctl itself is stripped of it on both sides.
        prop_assert_eq!(stripped(injected(&pod, &route)), stripped(pod));
    }

    #[test]
    fn a_pod_has_the_sidecars_share_beyond_its_own_time_to_end(pod in pods(), shape in shapes()) {
        let seconds = |pod: &Value| pod.pointer(GRACE).and_then(Value::as_i64).unwrap_or(30);
        let share = if shape.mode == "Deliver" { 0 } else { DRAIN_SECONDS };
        prop_assert_eq!(seconds(&injected(&pod, &route(&shape))), seconds(&pod) + share);
    }

    #[test]
    fn an_annotation_of_ours_is_taken_for_what_it_is_or_refuses_the_pod(
        mut pod in pods(),
        shape in shapes(),
        key in select(KEYS.to_vec()),
        value in "\\PC{0,12}|[0-9]{1,4}(m|Mi|Gi)?|true|debug",
    ) {
        pod["metadata"]["annotations"] = json!({key: value});
        match inject::plan(&pod, &route(&shape), &platform()) {
            Ok(plan) => {
                let patch = inject::patch(&plan, &pod).unwrap();
                prop_assert!(json_patch::patch(&mut pod, &patch).is_ok());
                prop_assert_eq!(&pod["metadata"]["annotations"][key], &json!(value));
            }
            Err(refusal) => prop_assert!(
                ["InvalidAnnotation", "ImageNotAllowed", "RequestOverLimit", "PortInUse", "Sysctl"].contains(&refusal.reason()),
                "{}", refusal
            ),
        }
    }

    #[test]
    fn every_refusal_is_a_sentence_with_a_remedy(pod in pods(), key in "[a-z-]{1,20}") {
        let mut pod = pod;
        pod["metadata"]["annotations"] = json!({format!("mailroute.dev/{key}x"): "1"});
        let refusal = inject::plan(&pod, &route(&Shape { port: 25, way: "relay", ca: false, mode: "Queue" }), &platform());
        let refusal = refusal.unwrap_err();
        prop_assert_eq!(refusal.reason(), "UnknownAnnotation");
        prop_assert!(KEYS.iter().all(|key| refusal.remedy().contains(key)));
    }

    #[test]
    fn the_sidecar_stands_before_every_container_that_is_no_mesh(pod in pods(), shape in shapes()) {
        let injected = injected(&pod, &route(&shape));
        let names: Vec<_> = injected["spec"]["initContainers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["name"].as_str().unwrap().to_owned())
            .collect();
        let ours = names.iter().position(|name| name == CONTAINER).unwrap();
        for user in ["migrate", "announce"] {
            prop_assert!(names.iter().position(|name| name == user).is_none_or(|at| ours < at), "{names:?}");
        }
        prop_assert!(names[..ours].iter().all(|name| name.starts_with("istio-")
            || name.starts_with("linkerd-")
            || name.starts_with("azwi-")));
    }

    #[test]
    fn tokens_reach_the_sidecar_alone(pod in pods(), shape in shapes()) {
        let injected = injected(&pod, &route(&shape));
        for list in ["containers", "initContainers"] {
            for container in injected["spec"][list].as_array().into_iter().flatten() {
                let mounts_ours = container["volumeMounts"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|mount| VOLUMES.iter().any(|ours| mount["name"] == *ours));
                prop_assert_eq!(mounts_ours, container["name"] == CONTAINER);
            }
        }
    }

    #[test]
    fn whatever_the_object_is_the_answer_is_a_plan_or_a_refusal(
        mut pod in pods(),
        shape in shapes(),
        pointer in select(vec!["/spec", "/metadata", "/spec/volumes", "/spec/initContainers", "/spec/securityContext",
            "/metadata/annotations", "/metadata/labels", "/spec/containers", "/spec/initContainers/0",
            "/spec/terminationGracePeriodSeconds"]),
        value in select(vec![json!(1), json!("x"), json!([]), json!({}), json!([1, null, "x", {"name": 5}])]),
    ) {
        if let Some(field) = pod.pointer_mut(pointer) {
            *field = value;
        }
        if let Ok(plan) = inject::plan(&pod, &route(&shape), &platform()) {
            let patch = inject::patch(&plan, &pod).unwrap();
            prop_assert!(json_patch::patch(&mut pod, &patch).is_ok());
        }
    }
}

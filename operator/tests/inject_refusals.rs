//! Every reason against an injection, with the words that a person reads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mailroute_operator::crd::MailRoute;
use mailroute_operator::inject::{self, Platform, Refusal};
use serde_json::{Value, json};

fn route() -> MailRoute {
    serde_saphyr::from_str(include_str!("inject/route.yaml")).unwrap()
}

fn platform() -> Platform {
    Platform { image: "mailroute.dev/sidecar:0.1.0".into(), ..Platform::default() }
}

fn pod() -> Value {
    serde_saphyr::from_str(include_str!("inject/bare_pod.yaml")).unwrap()
}

fn injected() -> Value {
    let mut pod = pod();
    let plan = inject::plan(&pod, &route(), &platform()).unwrap();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn refused(pod: &Value) -> Refusal {
    inject::plan(pod, &route(), &platform()).unwrap_err()
}

fn with(mut pod: Value, pointer: &str, key: &str, value: Value) -> Value {
    pod.pointer_mut(pointer).unwrap()[key] = value;
    pod
}

#[test]
fn each_reason_is_told_in_a_sentence_with_a_remedy() {
    let spec = |key: &str, value: Value| with(pod(), "/spec", key, value);
    let container = |key: &str, value: Value| with(pod(), "/spec/containers/0", key, value);
    let table = [
        (spec("hostNetwork", json!(true)), "HostNetwork", "hostNetwork: true", "Remove hostNetwork"),
        (spec("os", json!({"name": "windows"})), "Windows", "Windows node", "on Linux"),
        (spec("nodeSelector", json!({"kubernetes.io/os": "windows"})), "Windows", "Windows node", "on Linux"),
        (container("name", json!("mailroute")), "ContainerName", "container \"mailroute\"", "Rename"),
        (
            spec("initContainers", json!([{"name": "mailroute", "restartPolicy": "Always"}])),
            "ContainerName",
            "not the mail sidecar",
            "another webhook",
        ),
        (
            spec("volumes", json!([{"name": "mailroute-tokens", "secret": {"secretName": "x"}}])),
            "VolumeName",
            "volume \"mailroute-tokens\"",
            "Rename that volume",
        ),
        (
            spec("volumes", json!([{"name": "mailroute-route", "configMap": {"name": "mailroute-other"}}])),
            "VolumeName",
            "volume \"mailroute-route\"",
            "Rename that volume",
        ),
        (
            container("volumeMounts", json!([{"name": "mailroute-tokens", "mountPath": "/t"}])),
            "VolumeMounted",
            "container \"app\" mounts \"mailroute-tokens\"",
            "Remove that mount",
        ),
        (container("ports", json!([{"containerPort": 25}])), "PortInUse", "port 25", "spec.listen.port"),
        (
            container("ports", json!([{"containerPort": 9025, "protocol": "TCP"}])),
            "PortInUse",
            "port 9025",
            "another port",
        ),
        (
            spec(
                "securityContext",
                json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}),
            ),
            "Sysctl",
            "net.ipv4.ip_unprivileged_port_start=80",
            "set it to 25 or lower",
        ),
        (
            with(pod(), "/metadata", "annotations", json!({"mailroute.dev/rout": "x"})),
            "UnknownAnnotation",
            "\"mailroute.dev/rout\"",
            "the annotations are: mailroute.dev/injected.",
        ),
        (spec("volumes", json!("x")), "Malformed", "spec.volumes", "--dry-run=server"),
    ];
    for (pod, reason, sentence, remedy) in table {
        let refusal = refused(&pod);
        assert_eq!(refusal.reason(), reason);
        assert!(refusal.to_string().contains(sentence), "{refusal}");
        assert!(refusal.remedy().contains(remedy), "{}", refusal.remedy());
        for text in [refusal.to_string(), refusal.remedy()] {
            assert!(text.ends_with('.') && !text.contains("  "), "{text}");
        }
    }
}

#[test]
fn a_claimed_spool_that_the_sidecar_could_not_write_to_is_refused() {
    let mut route = route();
    route.spec.sidecar.spool.storage_class_name = Some("managed-csi".into());
    let refusal = inject::plan(&pod(), &route, &platform()).unwrap_err();
    assert_eq!((&refusal, refusal.reason()), (&Refusal::FsGroup, "FsGroup"));
    assert!(refusal.remedy().contains("spec.securityContext.fsGroup"), "{}", refusal.remedy());
    let grouped = with(pod(), "/spec", "securityContext", json!({"fsGroup": 2000}));
    assert!(inject::plan(&grouped, &route, &platform()).is_ok());
}

#[test]
fn an_unknown_route_is_refused_with_the_ones_that_exist() {
    let unknown = |known: &[&str]| Refusal::UnknownRoute {
        route: "notification".into(),
        namespace: "shop".into(),
        known: known.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(
        unknown(&["invoices", "notifications"]).to_string(),
        "There is no MailRoute \"notification\" in namespace \"shop\"; there is: invoices, notifications."
    );
    assert!(unknown(&[]).to_string().ends_with("nor any other."));
    assert!(unknown(&[]).remedy().contains("Apply a MailRoute"));
    let many = unknown(&["r"; 500]).to_string();
    assert!(many.len() < 200 && many.ends_with("…."), "{many}");
}

#[test]
fn what_looks_like_a_clash_and_is_none_is_injected() {
    let udp = json!([{"containerPort": 25, "protocol": "UDP"}]);
    let linux = json!({"kubernetes.io/os": "linux"});
    for pod in [
        with(pod(), "/spec/containers/0", "ports", udp),
        with(pod(), "/spec", "nodeSelector", linux),
        with(pod(), "/spec", "hostNetwork", json!(false)),
        with(pod(), "/spec/containers/0", "name", json!("mailroute-worker")),
        with(pod(), "/metadata", "annotations", json!({"notmailroute.dev/x": "y"})),
    ] {
        assert!(!inject::plan(&pod, &route(), &platform()).unwrap().is_empty());
    }
}

#[test]
fn a_sidecar_whose_restart_policy_was_taken_away_is_refused() {
    let mut pod = injected();
    pod["spec"]["initContainers"][0].as_object_mut().unwrap().remove("restartPolicy");
    assert_eq!(refused(&pod), Refusal::ContainerName);
}

#[test]
fn what_another_webhook_took_away_is_added_again() {
    let whole = injected();
    type Strip = fn(&mut Value);
    let strip: [(&str, Strip); 5] = [
        ("container", |pod| pod["spec"]["initContainers"] = json!([])),
        ("volume", |pod| drop(pod["spec"]["volumes"].as_array_mut().unwrap().pop())),
        ("sysctl", |pod| pod["spec"]["securityContext"] = json!({})),
        ("grace period", |pod| pod["spec"]["terminationGracePeriodSeconds"] = json!(30)),
        ("annotation", |pod| pod["metadata"]["annotations"] = json!({})),
    ];
    for (what, strip) in strip {
        let mut pod = whole.clone();
        strip(&mut pod);
        let plan = inject::plan(&pod, &route(), &platform()).unwrap();
        let patch = inject::patch(&plan, &pod).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod, whole, "{what}");
    }
}

#[test]
fn another_image_or_route_is_another_fingerprint() {
    let hash = |route: &MailRoute, platform: &Platform| inject::Sidecar::of(route, platform).record.hash;
    let usual = hash(&route(), &platform());
    let newer = Platform { image: "mailroute.dev/sidecar:0.2.0".into(), ..platform() };
    let other: MailRoute = serde_saphyr::from_str(include_str!("inject/route_private_cloud.yaml")).unwrap();
    assert_eq!(hash(&route(), &platform()), usual);
    assert_ne!(hash(&route(), &newer), usual);
    assert_ne!(hash(&other, &platform()), usual);
}

//! Every reason against an injection, with the words that a person reads.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::{self, Overrides, Refusal, SidecarSettings};
use mailroute_operator_core::resolve::{PlatformSettings, ResolvedRoute, resolve};
use mailroute_route::file::DeliveryMode;
use mailroute_route::identity::Role;
use serde_json::{Value, json};

fn route() -> MailRoute {
    serde_saphyr::from_str(include_str!("inject/route.yaml")).unwrap()
}

fn resolved(route: &MailRoute) -> ResolvedRoute {
    let entra_audiences = vec!["api://private-cloud".to_owned()];
    resolve(route, &PlatformSettings { entra_audiences, ..PlatformSettings::default() }).route.unwrap()
}

const CONTROL: &str = "mailroute.mailroute-system.svc:8444";

fn platform() -> SidecarSettings {
    SidecarSettings {
        image: "mailroute.dev/sidecar:0.1.0".into(),
        control_address: Some(CONTROL.into()),
        ..SidecarSettings::default()
    }
}

fn pod() -> Value {
    serde_saphyr::from_str(include_str!("inject/bare_pod.yaml")).unwrap()
}

fn injected() -> Value {
    let mut pod = pod();
    let plan = inject::plan(&pod, &resolved(&route()), &platform()).unwrap();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn refused(pod: &Value) -> Refusal {
    inject::plan(pod, &resolved(&route()), &platform()).unwrap_err()
}

fn with(mut pod: Value, pointer: &str, key: &str, value: Value) -> Value {
    pod.pointer_mut(pointer).unwrap()[key] = value;
    pod
}

#[test]
fn what_a_refusal_repeats_of_a_pod_is_short() {
    let long = "\u{7f}".repeat(100_000);
    let annotated = |key: &str, value: &str| with(pod(), "/metadata", "annotations", json!({key: value}));
    let sysctl = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": long}]});
    let container = |field: &str, value: Value| {
        let named = with(pod(), "/spec/containers/0", "name", json!(long));
        with(named, "/spec/containers/0", field, value)
    };
    for pod in [
        annotated(&format!("mailroute.dev/{long}"), ""),
        annotated("mailroute.dev/sidecar-port", &long),
        with(pod(), "/spec", "securityContext", sysctl),
        container("ports", json!([{"containerPort": 25}])),
        container("volumeMounts", json!([{"name": "mailroute-tokens"}])),
    ] {
        let refusal = refused(&pod);
        let told = format!("{refusal} {}", refusal.remedy());
        assert!(told.len() < 2048, "{}: {} bytes", refusal.reason(), told.len());
    }
    let unknown = Refusal::UnknownRoute { route: long.clone(), namespace: long.clone(), known: vec![] };
    assert!(format!("{unknown} {}", unknown.remedy()).len() < 6 * 1024);
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
            "net.ipv4.ip_unprivileged_port_start=\"80\"",
            "set it to 25 or lower",
        ),
        (
            with(pod(), "/metadata", "annotations", json!({"mailroute.dev/rout": "x"})),
            "UnknownAnnotation",
            "\"mailroute.dev/rout\"",
            "the annotations are: mailroute.dev/sidecar-cpu-request, ",
        ),
        (
            with(pod(), "/metadata", "annotations", json!({"mailroute.dev/sidecar-memory-limit": "much"})),
            "InvalidAnnotation",
            "mailroute.dev/sidecar-memory-limit is \"much\", but must be an amount of memory",
            "the annotations are: mailroute.dev/sidecar-cpu-request, ",
        ),
        (
            with(pod(), "/metadata", "annotations", json!({"mailroute.dev/sidecar-image": "sidecar:0"})),
            "ImageNotAllowed",
            "which the platform does not allow",
            "sidecar.allowImageOverride",
        ),
        (
            with(pod(), "/metadata", "annotations", json!({"mailroute.dev/sidecar-memory-limit": "16Mi"})),
            "RequestOverLimit",
            "memory request (32Mi) is more than its limit (16Mi)",
            "mailroute.dev/sidecar-memory-request",
        ),
        (
            spec("shareProcessNamespace", json!(true)),
            "SharedProcesses",
            "one that runs as root could read the sidecar's credential",
            "mailroute.dev/allow-shared-processes: \"true\"",
        ),
        (
            spec("hostPID", json!(true)),
            "SharedProcesses",
            "see the processes of the mail sidecar (hostPID: true)",
            "Remove hostPID, or accept it",
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
    let refusal = inject::plan(&pod(), &resolved(&route), &platform()).unwrap_err();
    assert_eq!((&refusal, refusal.reason()), (&Refusal::FsGroup, "FsGroup"));
    assert!(refusal.remedy().contains("spec.securityContext.fsGroup"), "{}", refusal.remedy());
    let grouped = with(pod(), "/spec", "securityContext", json!({"fsGroup": 2000}));
    assert!(inject::plan(&grouped, &resolved(&route), &platform()).is_ok());
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
        "There is no MailRoute \"notification\" in namespace \"shop\". Existing ones: invoices, notifications."
    );
    assert!(unknown(&[]).to_string().ends_with(", and no other MailRoute."));
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
        with(pod(), "/spec", "shareProcessNamespace", json!(false)),
    ] {
        assert!(!inject::plan(&pod, &resolved(&route()), &platform()).unwrap().is_empty());
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
        let plan = inject::plan(&pod, &resolved(&route()), &platform()).unwrap();
        let patch = inject::patch(&plan, &pod).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod, whole, "{what}");
    }
}

#[test]
fn another_image_or_route_is_another_fingerprint() {
    let hash = |route: &MailRoute, platform: &SidecarSettings| {
        inject::InjectedSidecar::of(Role::Sidecar, &resolved(route), platform, &Overrides::default())
            .record
            .hash
    };
    let usual = hash(&route(), &platform());
    let newer = SidecarSettings { image: "mailroute.dev/sidecar:0.2.0".into(), ..platform() };
    let other: MailRoute = serde_saphyr::from_str(include_str!("inject/route_private_cloud.yaml")).unwrap();
    assert_eq!(hash(&route(), &platform()), usual);
    assert_ne!(hash(&route(), &newer), usual);
    assert_ne!(hash(&other, &platform()), usual);
    let mut moved = route();
    moved.spec.listen.port = 26;
    assert_eq!(hash(&moved, &platform()), usual, "a sidecar follows its route to another port");
    moved.spec.listen.port = 2525;
    assert_ne!(hash(&moved, &platform()), usual, "only a new pod is without the sysctl");
}

#[test]
fn a_pod_says_otherwise_than_its_route_by_annotations() {
    let annotations = json!({
        "mailroute.dev/sidecar-cpu-request": "100m",
        "mailroute.dev/sidecar-memory-limit": "256Mi",
        "mailroute.dev/sidecar-log-level": "debug",
        "mailroute.dev/sidecar-port": "2525",
        "mailroute.dev/sidecar-image": "example.com/sidecar:2",
        "mailroute.dev/allow-shared-processes": "true",
    });
    let mut pod = with(pod(), "/metadata", "annotations", annotations);
    pod["spec"]["shareProcessNamespace"] = json!(true);
    pod["spec"]["hostPID"] = json!(true);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 25}]);
    let platform = SidecarSettings { allows_image_override: true, ..platform() };
    let plan = inject::plan(&pod, &resolved(&route()), &platform).unwrap();
    let (_, container) = plan.container.unwrap();
    assert_eq!(container["image"], "example.com/sidecar:2");
    assert_eq!(container["resources"]["requests"], json!({"cpu": "100m", "memory": "32Mi"}));
    assert_eq!(container["resources"]["limits"], json!({"cpu": "500m", "memory": "256Mi"}));
    let control = format!("--control={CONTROL}");
    assert_eq!(container["args"], json!([control, "--grace=55", "--port=2525", "--log-level=debug"]));
    assert_eq!(container.get("env"), None, "the kubelet sets variables of any name");
    assert!(!plan.port_start, "2525 needs no privilege");
    assert!(plan.annotation.unwrap().contains("example.com/sidecar:2"));
}

#[test]
fn the_port_that_a_pod_chooses_is_looked_for_among_its_own() {
    let mut pod = with(pod(), "/metadata", "annotations", json!({"mailroute.dev/sidecar-port": "2525"}));
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 2525}]);
    assert_eq!(refused(&pod), Refusal::PortInUse { container: "app".into(), port: 2525 });
}

fn mount(container: &mut Value, path: &str) {
    let mount = json!({"name": "files", "mountPath": path});
    container["volumeMounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn what_other_webhooks_mount_and_time_is_no_change_of_the_sidecar() {
    let mut pod = injected();
    let sidecar = &mut pod["spec"]["initContainers"][0];
    mount(sidecar, "/var/run/secrets/kubernetes.io/serviceaccount");
    mount(sidecar, "/var/run/secrets/azure/tokens");
    sidecar["livenessProbe"]["periodSeconds"] = json!(60);
    assert!(inject::plan(&pod, &resolved(&route()), &platform()).unwrap().is_empty());
}

#[test]
fn a_container_of_ones_own_does_not_pass_for_the_sidecar() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("image", |it| it["image"] = json!("evil.example/sidecar:0.1.0")),
        ("command", |it| it["command"] = json!(["/bin/sh"])),
        ("args", |it| it["args"] = json!(["--route=/tmp/route.json"])),
        ("args", |it| it["args"][0] = json!("--control=elsewhere.shop.svc:8444")),
        ("args", |it| drop(it["args"].as_array_mut().unwrap().remove(0))),
        ("args", |it| drop(it.as_object_mut().unwrap().remove("args"))),
        ("envFrom", |it| it["envFrom"] = json!([{"configMapRef": {"name": "x"}}])),
        ("lifecycle", |it| it["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}})),
        ("securityContext", |it| it["securityContext"]["runAsUser"] = json!(0)),
        ("volumeMounts", |it| it["volumeMounts"][1]["mountPath"] = json!("/elsewhere")),
        ("volumeMounts", |it| mount(it, "/mailroute-sidecar")),
        ("volumeMounts", |it| mount(it, "/etc/mailroute/route/route.json")),
        ("livenessProbe", |it| it["livenessProbe"]["exec"]["command"] = json!(["/x", "run"])),
        ("readinessProbe", |it| it["readinessProbe"] = json!({"exec": {"command": ["/x"]}})),
    ];
    for (field, change) in changes {
        let mut pod = injected();
        change(&mut pod["spec"]["initContainers"][0]);
        assert_eq!(refused(&pod), Refusal::SidecarChanged { field });
        pod["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(refused(&pod), Refusal::SidecarChanged { field }, "with and without the record");
    }
}

#[test]
fn a_pod_that_may_choose_its_image_may_bring_it_along() {
    let annotations = json!({"mailroute.dev/sidecar-image": "example.com/sidecar:2"});
    let mut pod = with(pod(), "/metadata", "annotations", annotations);
    let platform = SidecarSettings { allows_image_override: true, ..platform() };
    let plan = inject::plan(&pod, &resolved(&route()), &platform).unwrap();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert!(inject::plan(&pod, &resolved(&route()), &platform).unwrap().is_empty());
}

#[test]
fn a_platform_that_assigns_users_has_none_named() {
    let platform = SidecarSettings { assigns_users: true, ..platform() };
    let mut route = route();
    route.spec.sidecar.spool.storage_class_name = Some("managed-csi".into());
    let (_, container) = inject::plan(&pod(), &resolved(&route), &platform).unwrap().container.unwrap();
    let context = container["securityContext"].as_object().unwrap();
    assert!(!context.contains_key("runAsUser") && !context.contains_key("runAsGroup"), "{context:?}");
    assert_eq!(context["runAsNonRoot"], true, "what Pod Security restricted asks for stays");
}

#[test]
fn a_spool_that_keeps_nothing_does_not_keep_autoscalers_from_moving_the_pod() {
    let key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    let mut route = route();
    let listed = |route: &MailRoute, pod: &Value| {
        inject::plan(pod, &resolved(route), &platform()).unwrap().safe_to_evict
    };
    assert_eq!(listed(&route, &pod()), None, "messages may wait in it");
    route.spec.delivery.mode = DeliveryMode::Deliver;
    let spool = Some("mailroute-spool".to_owned());
    assert_eq!(listed(&route, &pod()), spool);
    let beside = |own: &str| with(pod(), "/metadata", "annotations", json!({key: own}));
    assert_eq!(listed(&route, &beside("cache")), Some("cache,mailroute-spool".into()));
    assert_eq!(listed(&route, &beside("cache, mailroute-spool")), None);
    assert_eq!(listed(&route, &beside("")), spool);
    route.spec.sidecar.spool.storage_class_name = Some("managed-csi".into());
    let grouped = with(pod(), "/spec", "securityContext", json!({"fsGroup": 2000}));
    assert_eq!(listed(&route, &grouped), None, "it is not on the node");
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let resources =
        json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
    let whole = with(pod(), "/spec/containers/0", "resources", resources);
    let requests = |pod: &Value| {
        let (_, container) = inject::plan(pod, &resolved(&route()), &platform()).unwrap().container.unwrap();
        container["resources"]["requests"].clone()
    };
    assert_eq!(requests(&whole), json!({"cpu": "500m", "memory": "128Mi"}), "as its limits");
    assert_eq!(requests(&pod()), json!({"cpu": "10m", "memory": "32Mi"}));
    let named = with(whole, "/metadata", "annotations", json!({"mailroute.dev/sidecar-cpu-request": "20m"}));
    assert_eq!(requests(&named), json!({"cpu": "20m", "memory": "128Mi"}), "who names one wants it");
}

//! The gateway's chart: what the real Helm makes of it, and which values it refuses. SMTP for others is `chart_gateway_smtp`'s.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser as _;
use e2e::chart::{GATEWAY, GATEWAY_NAMESPACE, Objects, gateway_folder, gateway_with, printed};
use e2e::tools::Tools;
use mailroute_route::paths;
use serde_json::{Value, json};

/// Values that switch on whatever the chart has.
pub const EVERYTHING: [&str; 4] = [
    "smtp.enabled=true",
    "smtp.tls.certManager.issuerRef.name=corporate",
    "smtp.users.secretName=mail-users",
    "monitoring.podMonitor.enabled=true",
];

/// The one object of a kind, with some values set.
fn only(kind: &str, values: &[&str]) -> Result<Value> {
    Objects::of_gateway(values)?.only(kind).cloned()
}

/// The pod template, with some values set.
pub fn pod(values: &[&str]) -> Result<Value> {
    Ok(only("StatefulSet", values)?["spec"]["template"].clone())
}

/// Fails with both sides when they differ.
#[track_caller]
pub fn same(found: &Value, expected: Value) -> Result<()> {
    ensure!(*found == expected, "found {found:#}\nexpected {expected:#}");
    Ok(())
}

/// What Helm says about values that it refuses.
pub fn refused(arguments: &[&str]) -> Result<String> {
    let output = gateway_with(&Tools::find()?.helm(), GATEWAY, arguments)?;
    ensure!(!output.status.success(), "{arguments:?} are accepted");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn selector() -> Value {
    json!({"app.kubernetes.io/name": "mailroute-gateway", "app.kubernetes.io/instance": GATEWAY})
}

#[test]
fn the_gateway_asks_for_nothing_beyond_the_rights_of_its_namespace() -> Result<()> {
    let kinds = |values: &[&str]| -> Result<BTreeSet<String>> {
        let objects = Objects::of_gateway(values)?;
        for object in objects.all() {
            same(&object["metadata"]["namespace"], json!(GATEWAY_NAMESPACE))?;
        }
        Ok(objects.all().iter().filter_map(|object| object["kind"].as_str().map(str::to_owned)).collect())
    };
    let usual = ["NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"];
    ensure!(kinds(&[])? == usual.map(str::to_owned).into());
    let optional = ["Certificate", "PodMonitor"];
    ensure!(kinds(&EVERYTHING)? == usual.into_iter().chain(optional).map(str::to_owned).collect());
    let least =
        ["serviceAccount.create=false", "podDisruptionBudget.enabled=false", "networkPolicy.enabled=false"];
    ensure!(kinds(&least)? == ["Service", "StatefulSet"].map(str::to_owned).into());
    Ok(())
}

#[test]
fn the_webhook_completes_the_container_and_the_kubelet_refuses_it_otherwise() -> Result<()> {
    let pod = pod(&[])?;
    same(&pod["metadata"]["labels"]["mailroute.dev/route"], json!("notifications"))?;
    let spec = &pod["spec"];
    ensure!(spec.get("initContainers").is_none(), "a sidecar is an init container, a gateway is none");
    let containers = spec["containers"].as_array().context("containers")?;
    ensure!(containers.len() == 1, "{containers:?}");
    let container = &containers[0];
    same(&container["name"], json!("mailroute"))?;
    same(&container["image"], json!(paths::AUTO_IMAGE))?;
    same(&container["imagePullPolicy"], json!("Never"))?;
    same(&container["args"], json!(["--spool-size=1Gi"]))?;
    for key in ["command", "env", "volumeMounts", "ports", "resources"] {
        ensure!(container.get(key).is_none(), "{key} of {container:#}");
    }
    ensure!(spec.get("volumes").is_none(), "{spec:#}");
    // What the program needs of tokens, the webhook mounts.
    same(&spec["automountServiceAccountToken"], json!(false))
}

#[test]
fn the_gateways_pods_meet_pod_security_restricted() -> Result<()> {
    let user = paths::SIDECAR_USER;
    let spec = pod(&EVERYTHING)?["spec"].clone();
    same(
        &spec["securityContext"],
        json!({
            "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        }),
    )?;
    same(
        &spec["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        }),
    )?;
    same(
        &pod(&["user=Platform"])?["spec"]["securityContext"],
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
    )
}

#[test]
fn the_volume_outlives_its_pod_and_no_upgrade_touches_its_template() -> Result<()> {
    let spec =
        only("StatefulSet", &["commonLabels.team=mail", "commonAnnotations.team=mail"])?["spec"].clone();
    same(
        &spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"}),
    )?;
    // The API server refuses any change of it, so nothing in it may follow the chart's version or its labels.
    same(
        &spec["volumeClaimTemplates"],
        json!([{
            "metadata": {"name": "mailroute-spool", "labels": selector()},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }]),
    )?;
    let claim = &only("StatefulSet", &["spool.size=20Gi,spool.storageClassName=fast"])?["spec"]["volumeClaimTemplates"]
        [0]["spec"];
    same(&claim["storageClassName"], json!("fast"))?;
    same(&claim["resources"]["requests"]["storage"], json!("20Gi"))
}

#[test]
fn the_routes_pods_find_the_gateway_under_the_name_of_its_headless_service() -> Result<()> {
    let objects = Objects::of_gateway(&["replicas=3"])?;
    let (service, set) = (objects.only("Service")?, objects.only("StatefulSet")?);
    same(&service["metadata"]["name"], json!(GATEWAY))?;
    same(&set["spec"]["serviceName"], json!(GATEWAY))?;
    same(&set["spec"]["replicas"], json!(3))?;
    let spec = &service["spec"];
    same(&spec["clusterIP"], json!("None"))?;
    same(&spec["publishNotReadyAddresses"], json!(false))?;
    same(&spec["selector"], selector())?;
    same(&spec["ports"][0]["port"], json!(paths::GATEWAY_PORT))?;
    same(&spec["ports"][0]["targetPort"], json!(paths::GATEWAY_PORT))?;
    same(&set["spec"]["selector"]["matchLabels"], selector())?;
    same(&only("PodDisruptionBudget", &[])?["spec"]["selector"]["matchLabels"], selector())
}

#[test]
fn a_release_is_named_after_the_gateway_once_and_not_too_long() -> Result<()> {
    let long = "a-release-with-the-longest-name-that-helm-takes-53-ch";
    for (release, expected) in [
        ("gateway", "gateway"),
        ("mail-gateway", "mail-gateway"),
        ("notifications", "notifications-gateway"),
        (long, "a-release-with-the-longest-name-that-helm-ta-gateway"),
    ] {
        let arguments = ["--set", "route=notifications"];
        let output = gateway_with(&Tools::find()?.helm(), release, &arguments)?;
        let objects = Objects::parse(&printed(output)?)?;
        same(&objects.only("StatefulSet")?["metadata"]["name"], json!(expected))?;
        // Kubernetes appends a dash and ten characters for the label of a revision.
        ensure!(expected.len() <= 52, "{} characters", expected.len());
    }
    Ok(())
}

#[test]
fn only_pods_of_the_route_may_hand_over() -> Result<()> {
    let policy = only("NetworkPolicy", &[])?["spec"].clone();
    same(&policy["podSelector"]["matchLabels"], selector())?;
    same(&policy["policyTypes"], json!(["Ingress"]))?;
    let route = json!({"podSelector": {"matchLabels": {"mailroute.dev/route": "notifications"}}});
    let open = |port| json!([{"port": port, "protocol": "TCP"}]);
    same(
        &policy["ingress"],
        json!([{"ports": open(paths::GATEWAY_PORT), "from": [route]}, {"ports": open(paths::ADMIN_PORT)}]),
    )?;
    let some = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring";
    same(
        &only("NetworkPolicy", &[some])?["spec"]["ingress"][1]["from"],
        json!([{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]),
    )
}

#[test]
fn every_object_of_the_gateway_has_its_labels_and_the_route_is_the_pods_alone() -> Result<()> {
    let common = ["commonLabels.team=mail", "commonLabels.app\\.kubernetes\\.io/name=other", "podLabels.a=b"];
    let objects = Objects::of_gateway(&[&EVERYTHING[..], &common].concat())?;
    for object in objects.all() {
        let labels = &object["metadata"]["labels"];
        same(&labels["app.kubernetes.io/name"], json!("mailroute-gateway"))?;
        same(&labels["helm.sh/chart"], json!("mailroute-gateway-0.1.0"))?;
        same(&labels["team"], json!("mail"))?;
        ensure!(labels.get("mailroute.dev/route").is_none(), "{} {labels:#}", object["kind"]);
    }
    let labels = &objects.only("StatefulSet")?["spec"]["template"]["metadata"]["labels"];
    same(&labels["mailroute.dev/route"], json!("notifications"))?;
    same(&labels["team"], json!("mail"))?;
    same(&labels["a"], json!("b"))
}

#[test]
fn resources_and_annotations_are_the_owners() -> Result<()> {
    let level = "podAnnotations.mailroute\\.dev/sidecar-log-level=debug";
    let pod = pod(&[level, "resources.requests.cpu=100m,resources.limits.memory=256Mi"])?;
    same(&pod["metadata"]["annotations"], json!({"mailroute.dev/sidecar-log-level": "debug"}))?;
    same(
        &pod["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"memory": "256Mi"}}),
    )
}

#[test]
fn the_gateways_pods_go_where_they_are_told() -> Result<()> {
    let spec = pod(&[
        "priorityClassName=high,nodeSelector.pool=system,affinity.nodeAffinity.anything=goes",
        "tolerations[0].key=dedicated,tolerations[0].operator=Exists",
        "terminationGracePeriodSeconds=300",
    ])?["spec"]
        .clone();
    same(&spec["priorityClassName"], json!("high"))?;
    same(&spec["nodeSelector"], json!({"pool": "system"}))?;
    same(&spec["affinity"], json!({"nodeAffinity": {"anything": "goes"}}))?;
    same(&spec["tolerations"], json!([{"key": "dedicated", "operator": "Exists"}]))?;
    same(&spec["terminationGracePeriodSeconds"], json!(300))?;
    same(
        &spec["topologySpreadConstraints"],
        json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector()},
        }]),
    )
}

#[test]
fn the_gateway_sends_as_a_service_account_of_its_own_or_of_the_application() -> Result<()> {
    let account =
        |values: &[&str]| -> Result<Value> { Ok(pod(values)?["spec"]["serviceAccountName"].clone()) };
    same(&account(&[])?, json!(GATEWAY))?;
    same(&account(&["serviceAccount.create=false"])?, json!("default"))?;
    same(&account(&["serviceAccount.create=false,serviceAccount.name=orders"])?, json!("orders"))?;
    let own = only("ServiceAccount", &["serviceAccount.name=mail,serviceAccount.annotations.a=b"])?;
    same(&own["metadata"]["name"], json!("mail"))?;
    same(&own["metadata"]["annotations"], json!({"a": "b"}))
}

#[test]
fn malformed_values_of_the_gateway_are_refused_by_name() -> Result<()> {
    for (value, named) in [
        ("rout=a", "rout"),
        ("route=Not_A_Name", "/route"),
        ("route=a-name-of-64-characters-which-is-one-more-than-a-label-may-havex", "/route"),
        ("replicas=-1", "/replicas"),
        ("spool.size=1GB", "/spool/size"),
        ("resources.limits.memory=256MB", "/resources/limits/memory"),
        ("user=Root", "/user"),
        ("smtp.service.type=ExternalName", "/smtp/service/type"),
        ("smtp.service.loadBalancerSourceRanges[0]=office", "/smtp/service/loadBalancerSourceRanges/0"),
        ("smtp.tls.certManager.issuerRef.names=a", "names"),
        ("smtp.serviceAccounts.namespaces[0]=Not_A_Name", "/smtp/serviceAccounts/namespaces/0"),
        ("smtp.peers[0].pods=all", "pods"),
        ("smtp.clientLimits.sessions=0", "/smtp/clientLimits/sessions"),
        ("terminationGracePeriodSeconds=1", "/terminationGracePeriodSeconds"),
        ("monitoring.podMonitor.interval=often", "/monitoring/podMonitor/interval"),
    ] {
        let told = refused(&["--set", "route=notifications", "--set", value])?;
        ensure!(told.contains(named), "{value}: the refusal does not name {named}: {told}");
    }
    Ok(())
}

#[test]
fn a_gateway_without_a_route_or_with_two_is_refused_with_a_sentence() -> Result<()> {
    let told = refused(&[])?;
    ensure!(told.contains("route is empty: set it to the name of the MailRoute"), "{told}");
    for labels in ["commonLabels", "podLabels"] {
        let label = format!("{labels}.mailroute\\.dev/route=other");
        let told = refused(&["--set", "route=notifications", "--set", &label])?;
        ensure!(told.contains("cannot have mailroute.dev/route: set route"), "{told}");
    }
    Ok(())
}

#[test]
fn a_volume_for_less_than_two_large_messages_is_refused_before_it_is_made() -> Result<()> {
    for size in ["1Mi", "69Mi", "1M", "73M"] {
        let told = refused(&["--set", "route=notifications", "--set", &format!("spool.size={size}")])?;
        ensure!(told.contains("at least 70Mi"), "{size}: {told}");
    }
    for size in ["70Mi", "100Mi", "74M", "700M", "1Gi", "1T"] {
        let argument = format!("--spool-size={size}");
        same(
            &pod(&[&format!("spool.size={size}")])?["spec"]["containers"][0]["args"],
            json!([argument.clone()]),
        )?;
        let line = ["mailroute-sidecar", "--gateway=[::]:9026", argument.as_str()];
        mailroute_sidecar::args::Cli::try_parse_from(line)?;
    }
    Ok(())
}

/// What whoever installs it is told.
fn notes(values: &str) -> Result<String> {
    let output = Command::new(Tools::find()?.helm())
        .args(["install", "notifications", "--namespace", GATEWAY_NAMESPACE, "--dry-run=client"])
        .args(["--set", &format!("route=notifications,{values}")])
        .arg(gateway_folder())
        .output()?;
    let told = printed(output)?;
    Ok(told.split_once("NOTES:").context("no notes")?.1.to_owned())
}

#[test]
fn whoever_installs_no_pods_is_told_to_wait_for_none() -> Result<()> {
    let told = notes("replicas=0")?;
    ensure!(!told.contains("rollout status") && !told.contains(" exec "), "{told}");
    ensure!(told.contains("replicas is 0"), "{told}");
    Ok(())
}

#[test]
fn whoever_needs_no_login_is_not_told_to_log_in() -> Result<()> {
    let peer = "smtp.enabled=true,smtp.withoutAuth=true,smtp.peers[0].podSelector.matchLabels.app=grafana";
    let told = notes(peer)?;
    ensure!(told.contains("without TLS and without a login") && !told.contains("STARTTLS"), "{told}");
    let told = notes(&format!("{peer},smtp.tls.secretName=mail-tls"))?;
    ensure!(told.contains("without a login") && told.contains("STARTTLS and a login are possible"), "{told}");
    Ok(())
}

#[test]
fn whoever_installs_it_is_told_what_to_write_into_the_route() -> Result<()> {
    let told = notes("smtp.enabled=true,smtp.tls.secretName=mail-tls")?;
    for line in [
        "serviceName: notifications-gateway",
        "system:serviceaccount:shop:notifications-gateway",
        "exec notifications-gateway-0 --container mailroute -- /mailroute-sidecar check",
        "notifications-gateway-smtp.shop.svc.cluster.local, port 587 or 25, with STARTTLS and a login",
    ] {
        ensure!(told.contains(line), "{line}: {told}");
    }
    Ok(())
}

#[test]
fn helm_3_renders_the_same_gateway_as_helm_4() -> Result<()> {
    let tools = Tools::find()?;
    let values = EVERYTHING.iter().chain(&["route=notifications"]);
    let arguments: Vec<_> = values.flat_map(|value| ["--set", value]).collect();
    let sorted = |helm| -> Result<Vec<String>> {
        let objects = Objects::parse(&printed(gateway_with(helm, GATEWAY, &arguments)?)?)?;
        Ok(objects.sorted_texts())
    };
    let (three, four) = (sorted(&tools.helm3()?)?, sorted(&tools.helm())?);
    ensure!(three == four, "Helm 3: {three:#?}\nHelm 4: {four:#?}");
    Ok(())
}

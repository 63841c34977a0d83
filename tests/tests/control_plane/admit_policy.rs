//! The net under the webhook, on a real API server: a labelled pod that comes out of admission without its sidecar is refused,
//! unless it says that it may.
//!
//! No operator runs here: first the webhook cannot be reached, then its configuration is gone.

use anyhow::{Context, Result, ensure};
use e2e::replica::until;
use e2e::scene::{release, workload};
use e2e::{Cluster, Tier};
use hyper::Request;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use mailroute_operator_core::inject::names::KEYS;
use mailroute_operator_core::inject::names::ROUTE_VOLUME;
use mailroute_route::paths::{AUTO_IMAGE, ROUTE_DIR};
use serde_json::{Value, json};

/// The namespace that the chart is told to leave out.
const EXCLUDED: &str = "legacy";

/// Asks whether a pod would be made.
async fn ask(cluster: &Cluster, namespace: &str, pod: &Value) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &serde_json::from_value(pod.clone())?).await?;
    Ok(())
}

async fn is_refused(cluster: &Cluster, namespace: &str, pod: &Value, by: &str) -> Result<String> {
    match ask(cluster, namespace, pod).await {
        Ok(()) => anyhow::bail!("{namespace}: accepted: {pod}"),
        Err(error) => {
            let told = format!("{error:#}");
            ensure!(told.contains(by), "{namespace}: refused, and not by {by}: {told}");
            Ok(told)
        }
    }
}

fn labelled() -> Value {
    workload::pod("web", "notifications", &workload::pod_spec("true"))
}

fn annotated(key: &str, value: &str) -> Value {
    let mut pod = labelled();
    pod["metadata"]["annotations"] = json!({key: value});
    pod
}

/// With a container of the sidecar's name before all others.
fn with_container(restart: Option<&str>) -> Value {
    let mut pod = labelled();
    let mut container = workload::container("mailroute", "true");
    if let Some(restart) = restart {
        container["restartPolicy"] = json!(restart);
    }
    pod["spec"]["initContainers"] = json!([container]);
    pod
}

/// With a container that looks as the webhook makes it.
fn with_sidecar() -> Value {
    let mut pod = with_container(Some("Always"));
    let container = &mut pod["spec"]["initContainers"][0];
    container["volumeMounts"] = json!([{"name": ROUTE_VOLUME, "mountPath": ROUTE_DIR}]);
    container.as_object_mut().expect("a container").remove("command");
    let route = json!({"name": ROUTE_VOLUME, "configMap": {"name": "mailroute-notifications"}});
    pod["spec"]["volumes"].as_array_mut().expect("volumes").push(route);
    pod
}

/// A gateway as its owner applies it: nobody has completed it.
fn with_auto_gateway() -> Value {
    let mut pod = labelled();
    pod["spec"]["containers"] =
        json!([{"name": "mailroute", "image": AUTO_IMAGE, "imagePullPolicy": "Never"}]);
    pod
}

/// A gateway that looks as the webhook completes it.
fn with_gateway() -> Value {
    let mut pod = with_auto_gateway();
    let container = &mut pod["spec"]["containers"][0];
    container["image"] = json!("mailroute.dev/sidecar:0.1.0");
    container["volumeMounts"] = json!([{"name": ROUTE_VOLUME, "mountPath": ROUTE_DIR}]);
    let route = json!({"name": ROUTE_VOLUME, "configMap": {"name": "mailroute-notifications"}});
    pod["spec"]["volumes"].as_array_mut().expect("volumes").push(route);
    pod
}

fn unlabelled() -> Value {
    let mut pod = labelled();
    pod["metadata"]["labels"] = json!({"app": "web"});
    pod
}

/// As the kubelet shows what it runs from a file.
fn mirror() -> Value {
    let mut pod = annotated("kubernetes.io/config.mirror", "of-a-file");
    pod["metadata"]["annotations"]["kubernetes.io/config.source"] = json!("file");
    pod["spec"]["nodeName"] = json!("node");
    pod
}

const EXCUSE: &str = "mailroute.dev/allow-without-sidecar";
const POLICY: &str = "but not the sidecar";
const AUTO: &str = "the image \"auto\" of the gateway's container was not replaced";
const WEBHOOK: &str = "failed calling webhook \"inject.mailroute.dev\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_pod_without_its_sidecar_is_refused_unless_it_is_excused() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    let shop = cluster.namespace("shop", &[]).await?;
    cluster.kubectl(&["create", "namespace", EXCLUDED]).await?;
    upgrade(
        &cluster,
        &["--set", &format!("webhook.excludedNamespaces={{{EXCLUDED}}}"), "--create-namespace"],
    )
    .await?;
    until(async || ask(&cluster, release::NAMESPACE, &unlabelled()).await).await?;
    until(async || ask(&cluster, EXCLUDED, &unlabelled()).await).await?;

    workloads_are_warned_of(&cluster, shop.name()).await?;
    routes_are_warned_of(&cluster, shop.name()).await?;
    webhook_out_of_reach(&cluster, shop.name()).await?;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client());
    configurations.delete(release::NAME, &DeleteParams::default()).await?;
    webhook_gone(&cluster, shop.name()).await.context("without a webhook")?;
    route_is_fixed(&cluster, shop.name()).await.context("updates of pods")?;

    // The policy is the chart's, and the chart takes it away again.
    upgrade(&cluster, &["--set", "admissionPolicy.enabled=false"]).await?;
    configurations.delete(release::NAME, &DeleteParams::default()).await?;
    until(async || ask(&cluster, shop.name(), &labelled()).await).await.context("without a policy")?;
    shop.finish()
}

/// What the API server warns of when a workload is applied; nothing is made.
async fn warnings(cluster: &Cluster, namespace: &str, api: &str, workload: &Value) -> Result<String> {
    let uri = format!("/apis/{api}/namespaces/{namespace}/{}?dryRun=All", plural(workload)?);
    let request = Request::post(uri).header("content-type", "application/json");
    let request = request.body(Body::from(workload.to_string().into_bytes()))?;
    let answer = cluster.client().send(request).await?;
    ensure!(answer.status().is_success(), "{} for {workload:#}", answer.status());
    let told =
        answer.headers().get_all("warning").iter().map(|told| String::from_utf8_lossy(told.as_bytes()));
    Ok(told.collect::<Vec<_>>().join("\n"))
}

fn plural(workload: &Value) -> Result<String> {
    Ok(format!("{}s", workload["kind"].as_str().context("a kind")?.to_lowercase()))
}

/// One of each kind, whose pods have these annotations.
fn workloads(labels: &Value, annotations: &Value) -> [(&'static str, Value); 3] {
    let labels = json!({"app": "web", "mailroute.dev/route": labels});
    let template = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": workload::pod_spec("true"),
    });
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let mut always = template;
    always["spec"]["restartPolicy"] = json!("Always");
    let metadata = json!({"name": "web"});
    [
        (
            "apps/v1",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
                "spec": {"selector": selector, "template": always}}),
        ),
        (
            "batch/v1",
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": job}}),
        ),
        (
            "batch/v1",
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata,
                "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": job}}}}),
        ),
    ]
}

/// Who applies a workload hears at once what would otherwise be an Event of its ReplicaSet.
async fn workloads_are_warned_of(cluster: &Cluster, shop: &str) -> Result<()> {
    let wrong = [
        ("mailroute.dev/sidecar-prot", "25", "mailroute.dev/sidecar-prot. The annotations are: "),
        ("mailroute.dev/sidecar-memory-limit", "much", "is not a quantity"),
        ("mailroute.dev/sidecar-log-level", "loud", "sidecar-log-level must be"),
        ("mailroute.dev/sidecar-port", "smtp", "sidecar-port must be a port"),
        (EXCUSE, "yes", "allow-"),
    ];
    for (key, value, told) in wrong {
        for (api, workload) in workloads(&json!("notifications"), &json!({key: value})) {
            until(async || {
                let warned = warnings(cluster, shop, api, &workload).await?;
                ensure!(
                    warned.contains("its pods will be refused") && warned.contains(told),
                    "{key}: {warned}"
                );
                Ok(())
            })
            .await?;
        }
    }
    let mut right: serde_json::Map<String, Value> = KEYS
        .into_iter()
        .map(|key| {
            let value = match key {
                _ if key.contains("-cpu-") => "50m",
                _ if key.contains("-memory-") => "64Mi",
                _ if key.ends_with("-level") => "debug",
                _ if key.ends_with("-port") => "2525",
                _ if key.ends_with("-image") => "registry.example.com/sidecar:1",
                _ => "false",
            };
            (key.to_owned(), json!(value))
        })
        .collect();
    right.insert("example.com/other".into(), json!("anything"));
    for (api, workload) in workloads(&json!("notifications"), &Value::Object(right)) {
        let warned = warnings(cluster, shop, api, &workload).await?;
        ensure!(!warned.contains("MailRoute"), "{warned}");
    }
    Ok(())
}

/// What works now and will not for long is told at `kubectl apply`.
async fn routes_are_warned_of(cluster: &Cluster, shop: &str) -> Result<()> {
    let api = "mailroute.dev/v1alpha1";
    let plain = workload::route("notifications", shop);
    let mut fast = plain.clone();
    fast["spec"]["limits"] = json!({"messagesPerMinute": 5000});
    let mut password = plain.clone();
    password["spec"]["clientSubmission"]["credential"] =
        json!({"type": "Password", "secretRef": {"name": "m365", "key": "password"}});
    for (route, told) in [(fast, "more than the 30"), (password, "Password is deprecated")] {
        until(async || {
            let warned = warnings(cluster, shop, api, &route).await?;
            ensure!(warned.contains(told), "{warned}");
            Ok(())
        })
        .await?;
    }
    let warned = warnings(cluster, shop, api, &plain).await?;
    ensure!(!warned.contains("MailRoute"), "{warned}");
    Ok(())
}

/// No replica answers: labelled pods wait for one, and the emergency does not.
async fn webhook_out_of_reach(cluster: &Cluster, shop: &str) -> Result<()> {
    until(async || is_refused(cluster, shop, &labelled(), WEBHOOK).await.map(drop)).await?;
    ask(cluster, shop, &unlabelled()).await.context("an unlabelled pod")?;
    until(async || ask(cluster, shop, &annotated(EXCUSE, "true")).await).await.context("an excused pod")?;
    is_refused(cluster, shop, &annotated(EXCUSE, "yes"), WEBHOOK).await?;
    Ok(())
}

async fn webhook_gone(cluster: &Cluster, shop: &str) -> Result<()> {
    // API servers learn of a policy, and of a webhook that is gone, a moment later.
    until(async || is_refused(cluster, shop, &labelled(), POLICY).await.map(drop)).await?;
    let told = is_refused(cluster, shop, &labelled(), POLICY).await?;
    for part in [release::NAME, "webhook.excludedNamespaces", EXCUSE] {
        ensure!(told.contains(part), "the refusal does not name {part}: {told}");
    }
    ask(cluster, shop, &unlabelled()).await.context("an unlabelled pod")?;
    ask(cluster, shop, &with_sidecar()).await.context("a pod with the sidecar")?;
    ask(cluster, shop, &with_gateway()).await.context("a gateway")?;
    is_refused(cluster, shop, &with_auto_gateway(), AUTO).await?;
    let mut own = with_gateway();
    own["spec"]["containers"][0]["command"] = json!(["/bin/sh"]);
    is_refused(cluster, shop, &own, POLICY).await?;
    own = with_gateway();
    own["spec"]["containers"][0]["volumeMounts"] = json!([]);
    is_refused(cluster, shop, &own, POLICY).await?;
    // A program of the pod's own under the sidecar's name.
    is_refused(cluster, shop, &with_container(Some("Always")), POLICY).await?;
    let mut own = with_sidecar();
    own["spec"]["initContainers"][0]["command"] = json!(["/bin/sh"]);
    is_refused(cluster, shop, &own, POLICY).await?;
    // It would run before the application, and end.
    is_refused(cluster, shop, &with_container(None), POLICY).await?;
    ask(cluster, shop, &annotated(EXCUSE, "true")).await.context("an excused pod")?;
    is_refused(cluster, shop, &annotated(EXCUSE, "yes"), POLICY).await?;
    ask(cluster, shop, &mirror()).await.context("a mirror pod")?;

    is_refused(cluster, EXCLUDED, &labelled(), POLICY).await?;
    for untouched in ["kube-system", release::NAMESPACE] {
        ask(cluster, untouched, &labelled())
            .await
            .with_context(|| format!("a labelled pod in {untouched}"))?;
    }
    Ok(())
}

/// The webhook does not see updates, so a pod gets neither a route nor another program for its sidecar by one.
async fn route_is_fixed(cluster: &Cluster, shop: &str) -> Result<()> {
    const LABEL: &str =
        "the label mailroute.dev/route of an existing pod cannot be added, changed or removed";
    const IMAGE: &str = "the image of an existing pod's sidecar cannot be changed";
    let pods: Api<Pod> = Api::namespaced(cluster.client(), shop);
    let pods_of_all = [("plain", unlabelled()), ("sends", with_sidecar()), ("gateway", with_gateway())];
    for (name, mut pod) in pods_of_all {
        pod["metadata"]["name"] = json!(name);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    }
    let labels = |value: Value| json!({"metadata": {"labels": {"mailroute.dev/route": value}}});
    let image = json!({"spec": {"initContainers": [{"name": "mailroute", "image": "evil.example/x"}]}});
    let of_gateway = json!({"spec": {"containers": [{"name": "mailroute", "image": "evil.example/x"}]}});
    for (name, change, told) in [
        ("plain", labels(json!("notifications")), LABEL),
        ("sends", labels(json!("invoices")), LABEL),
        ("sends", labels(Value::Null), LABEL),
        ("sends", image, IMAGE),
        ("gateway", of_gateway, "the image of an existing gateway's pod cannot be changed"),
        ("gateway", labels(json!("invoices")), LABEL),
    ] {
        let change = Patch::Strategic(change);
        let refused = pods.patch(name, &PatchParams::default(), &change).await;
        let error = refused.err().with_context(|| format!("{name}: {change:?} is taken"))?;
        ensure!(format!("{error:#}").contains(told), "{name}: {error:#}");
    }
    let status =
        json!({"metadata": {"labels": {"mailroute.dev/route": "invoices"}}, "status": {"phase": "Running"}});
    for (name, status, is_taken) in [
        ("plain", status.clone(), false),
        ("sends", status, false),
        ("sends", json!({"status": {"phase": "Running"}}), true),
    ] {
        let change = Patch::Strategic(status);
        match pods.patch_status(name, &PatchParams::default(), &change).await {
            Ok(_) => ensure!(is_taken, "{name}: {change:?} is taken as a status"),
            Err(error) => ensure!(!is_taken && format!("{error:#}").contains(LABEL), "{name}: {error:#}"),
        }
    }
    let other =
        Patch::Strategic(json!({"metadata": {"labels": {"app": "other"}, "annotations": {"a": "b"}}}));
    for name in ["plain", "sends", "gateway"] {
        pods.patch(name, &PatchParams::default(), &other).await?;
        pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

async fn upgrade(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let chart = release::repository().join("charts/mailroute").display().to_string();
    let upgrade = ["upgrade", "--install", release::NAME, &chart, "--namespace", release::NAMESPACE];
    cluster.helm(&[&upgrade, arguments].concat()).await?;
    Ok(())
}

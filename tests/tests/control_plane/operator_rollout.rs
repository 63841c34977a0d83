//! Outdated sidecars on a real API server: a new operator, with the rights of the chart's ServiceAccount, restarts the pods
//! that an older one injected. Pods do not run here: the test says for the kubelet that they are ready, and for the sidecars
//! that all is well. Deployments, budgets and evictions are Kubernetes' own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::{Running, announce, flags, install_chart};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Namespace, Tier, wait_for, wait_for_all};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, Config, ResourceExt};
use mailroute_operator::pki::{Lifetimes, trust};
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::condition::Reason::{self, Connected, LoggedIn, TokenAcquired};
use mailroute_route::control::REPORT_PATH;
use mailroute_route::paths::CONTROL_AUDIENCE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const FIELD_MANAGER: &str = "test";
const OLD: &str = "mailroute.dev/sidecar:0.0.9";
const NEW: &str = "mailroute.dev/sidecar:0.1.0";

/// How often a sidecar reports here; a real one does every half minute.
const BEAT: Duration = Duration::from_secs(3);

/// An eviction that a budget refused is tried again half a minute later.
const RETRY: Duration = Duration::from_secs(90);

/// A replica that injects this sidecar: runs, leads and answers the webhook.
async fn operator_with(cluster: &Cluster, image: &str) -> Result<Running> {
    let mut flags = flags(cluster, 0, &[])?;
    flags.sidecar_image = image.to_owned();
    let replica = Running::start(cluster, flags, Lifetimes::default()).await?;
    announce(cluster, 0, replica.flags.webhook_listen).await?;
    Ok(replica)
}

fn api<K>(cluster: &Cluster, namespace: &Namespace) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cluster.client(), namespace.name())
}

async fn apply<K>(api: &Api<K>, name: &str, object: Value) -> Result<K>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    Ok(api.patch(name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(object)).await?)
}

/// Says for the kubelet that the pod runs and is ready.
async fn comes_up(pods: &Api<Pod>, name: &str) -> Result<()> {
    let running = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "initContainerStatuses": [{
            "name": "mailroute", "image": "", "imageID": "", "ready": true, "restartCount": 0, "started": true,
            "state": {"running": {}},
        }],
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running)).await?;
    Ok(())
}

/// Reports for every pod that is ready that all is well, until it is dropped.
async fn report_for_all(cluster: Client, namespace: String, control: SocketAddr) -> Result<()> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.clone());
    let bundle = trust::live(&configurations.get(release::NAME).await?).context("a caBundle")?;
    let mut config = Config::new(format!("https://{control}").parse()?);
    config.root_cert = Some(bundle.iter().map(|authority| authority.der().to_vec()).collect());
    config.tls_server_name = Some(format!("{}.{}.svc", release::NAME, release::NAMESPACE));
    let (control, mut beat) = (Client::try_from(config)?, tokio::time::interval(BEAT));
    let pods: Api<Pod> = Api::namespaced(cluster.clone(), &namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster, &namespace);
    loop {
        beat.tick().await;
        for pod in pods.list(&ListParams::default()).await?.items.iter().filter(|pod| is_up(pod)) {
            // A pod may be gone between the two; then there is nobody to report.
            let Ok(token) = token_of(&accounts, pod).await else { continue };
            let request = hyper::Request::post(REPORT_PATH)
                .header(AUTHORIZATION, format!("Bearer {token}"))
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(serde_json::to_vec(&well())?))?;
            let _ = control.send(request).await?;
        }
    }
}

async fn token_of(accounts: &Api<ServiceAccount>, pod: &Pod) -> Result<String> {
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec {
        audiences: vec![CONTROL_AUDIENCE.to_owned()],
        bound_object_ref: Some(bound),
        expiration_seconds: Some(600),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    Ok(granted.status.context("a granted token")?.token)
}

fn well() -> Value {
    let met = |reason: Reason| json!({"condition": reason.condition(), "holds": true, "reason": reason, "message": "", "at": 1});
    let observations = [TokenAcquired, Connected, LoggedIn].map(met);
    json!({
        "route": "notifications", "generation": 1, "sidecarVersion": "0.1.0", "observations": observations,
    })
}

fn is_up(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
}

fn image(pod: &Pod) -> Option<&str> {
    let containers = pod.spec.as_ref()?.init_containers.as_deref()?;
    containers.iter().find(|container| container.name == "mailroute")?.image.as_deref()
}

/// The Deployment's pods, when this many of each image are there and no other.
async fn of_images(pods: &Api<Pod>, old: usize, new: usize, within: Duration) -> Result<Vec<Pod>> {
    let counted = |all: &[Pod], wanted: &str| all.iter().filter(|pod| image(pod) == Some(wanted)).count();
    let settled =
        |all: &[Pod]| all.len() == old + new && counted(all, OLD) == old && counted(all, NEW) == new;
    let found = wait_for_all(pods.clone(), "app=shop", settled, within).await;
    found.with_context(|| format!("{old} old and {new} new pods"))
}

/// The route, when SidecarsCurrent has that reason and a message with all these words.
async fn told(
    routes: &Api<MailRoute>,
    reason: Reason,
    words: &[&str],
    within: Duration,
) -> Result<MailRoute> {
    let said = |route: &MailRoute| {
        let conditions = route.status.iter().flat_map(|status| &status.conditions);
        let mut current = conditions.filter(|condition| condition.type_ == "SidecarsCurrent");
        current.any(|it| it.reason == reason.as_str() && words.iter().all(|words| it.message.contains(words)))
    };
    wait_for(routes.clone(), "notifications", said, within).await
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// A route that restarts, two pods of a Deployment and one of nobody, all up, as an operator with the old image injects
/// them.
async fn injected(cluster: &Cluster, namespace: &Namespace) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = api(cluster, namespace);
    let mut route = workload::route("notifications", namespace.name());
    route["spec"]["rollout"] = json!("Restart");
    apply(&api::<MailRoute>(cluster, namespace), "notifications", route).await?;
    let spec = workload::pod_spec("true");
    let mut deployment = workload::deployment("shop", "notifications", &spec);
    deployment["spec"]["replicas"] = json!(2);
    apply(&api::<Deployment>(cluster, namespace), "shop", deployment).await?;
    let mut single = workload::pod("single", "notifications", &spec);
    single["metadata"]["labels"]["app"] = json!("single");
    single["spec"]["restartPolicy"] = json!("Always");
    apply(&pods, "single", single).await?;
    let of_deployment = of_images(&pods, 2, 0, PATIENCE).await?;
    for name in names(&of_deployment).iter().map(String::as_str).chain(["single"]) {
        comes_up(&pods, name).await?;
    }
    Ok(of_deployment)
}

/// A budget that allows no disruption of the Deployment, as the disruption controller has come to see it.
async fn protect(budgets: &Api<PodDisruptionBudget>) -> Result<()> {
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "shop"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}},
    });
    apply(budgets, "shop", budget).await?;
    let counted =
        |budget: &PodDisruptionBudget| budget.status.as_ref().is_some_and(|it| it.current_healthy == 2);
    wait_for(budgets.clone(), "shop", counted, PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_pods_are_evicted_one_after_another_as_their_budget_allows() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    install_chart(&cluster, &[]).await?;
    let namespace = cluster.namespace("rollout", &[]).await?;
    let (pods, routes) = (api::<Pod>(&cluster, &namespace), api::<MailRoute>(&cluster, &namespace));
    let budgets = api::<PodDisruptionBudget>(&cluster, &namespace);

    let old = operator_with(&cluster, OLD).await?;
    let before = injected(&cluster, &namespace).await?;
    let single = pods.get("single").await?.metadata.uid;
    protect(&budgets).await?;
    old.end().await?;

    let new = operator_with(&cluster, NEW).await?;
    let reports = report_for_all(cluster.client(), namespace.name().to_owned(), new.flags.control_listen);
    let reporting = tokio::spawn(reports);

    // The budget is asked, and obeyed.
    let refused = ["3 of 3 pods", "a PodDisruptionBudget does not allow it now", "single (no controller"];
    let route = told(&routes, Reason::SidecarsRestarting, &refused, PATIENCE).await?;
    ensure!(route.status.as_ref().is_some_and(|status| status.sidecars.outdated == 3), "{:?}", route.status);
    ensure!(names(&of_images(&pods, 2, 0, PATIENCE).await?) == names(&before), "a pod was replaced");

    // One goes. The other stays until a new pod is ready in its place.
    budgets.delete("shop", &DeleteParams::default()).await?;
    let first = of_images(&pods, 1, 1, RETRY).await?;
    told(&routes, Reason::SidecarsRestarting, &["no ready pod has replaced"], PATIENCE).await?;
    ensure!(names(&of_images(&pods, 1, 1, PATIENCE).await?) == names(&first), "the other one went as well");
    for pod in first.iter().filter(|pod| image(pod) == Some(NEW)) {
        comes_up(&pods, &pod.name_any()).await?;
    }
    for pod in of_images(&pods, 0, 2, PATIENCE).await?.iter().filter(|pod| !is_up(pod)) {
        comes_up(&pods, &pod.name_any()).await?;
    }

    // What nobody would make again is left, and named.
    let left = told(&routes, Reason::SidecarsHeld, &["1 of 3 pods: single (no controller"], PATIENCE).await?;
    ensure!(left.readiness() == "True", "an older sidecar is no fault: {:?}", left.status);
    ensure!(pods.get("single").await?.metadata.uid == single, "the pod of nobody was replaced");
    let events = api::<Event>(&cluster, &namespace).list(&ListParams::default()).await?;
    ensure!(events.iter().any(|event| event.reason.as_deref() == Some("PodEvicted")), "no Event tells of it");

    ensure!(!reporting.is_finished(), "the reports ended: {:?}", reporting.await);
    reporting.abort();
    new.end().await?;
    namespace.finish()
}

//! A scene: what a scenario on the node needs around it, each with a namespace and a Microsoft 365 of its own, so that
//! scenarios run side by side without hearing each other.
//!
//! * [`release`]: the charts installed once on a cluster, by the real Helm.
//! * [`microsoft`]: a simulator in the scene's namespace and what its control API tells.
//! * [`sidecar`]: the sidecar of a pod: its life, its death, its commands.
//! * [`workload`]: manifests of the routes and pods that play the application.
//! * [`front`]: a proxy between an operator in this process ([`crate::replica`]) and the API server.

pub mod front;
pub mod microsoft;
pub mod release;
pub mod sidecar;
pub mod workload;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use kube::{Api, Client};
use mailroute_operator::crd::MailRoute;
use serde_json::Value;

use crate::wait::{has_ended, is_complete};
use crate::{Cluster, Namespace, Tier, wait_for, wait_for_all};
use microsoft::Microsoft;

/// How long a pod may take from its creation to the state a scenario waits for. Generous: two cores, many pods.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Name under which scenarios apply their manifests.
const FIELD_MANAGER: &str = "scene";

/// A namespace that enforces Pod Security `restricted`, with a simulator in it, on a node with the operator installed.
pub struct Scene {
    /// The cluster, shared with other scenes.
    pub cluster: Cluster,
    /// The scene's own namespace. Removed at the end; its pods are described when the scenario fails.
    pub namespace: Namespace,
    /// The scene's own Microsoft 365.
    pub microsoft: Microsoft,
}

impl Scene {
    /// Sets the scene on the node that all scenarios share.
    ///
    /// # Errors
    /// When the node, the charts or the simulator do not come up.
    pub async fn start(name: &str) -> Result<Self> {
        let cluster = Cluster::shared(Tier::Node).await?;
        release::ensure_installed(&cluster).await?;
        Self::on(cluster, name).await
    }

    /// Sets the scene on a given cluster where the operator is installed already.
    ///
    /// # Errors
    /// When the simulator does not come up.
    pub async fn on(cluster: Cluster, name: &str) -> Result<Self> {
        let namespace =
            cluster.namespace(name, &[("pod-security.kubernetes.io/enforce", "restricted")]).await?;
        let microsoft = Microsoft::deploy(&cluster, namespace.name()).await?;
        microsoft.rename_tenant(&workload::tenant(namespace.name())).await?;
        microsoft.publish_ca(namespace.name()).await?;
        Ok(Self { cluster, namespace, microsoft })
    }

    /// The scenario has come to its good end: no report of the namespace is needed.
    ///
    /// # Errors
    /// When something in the namespace shows a secret.
    pub fn finish(self) -> Result<()> {
        self.namespace.finish()
    }

    /// The client of the cluster.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// An API of the scene's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), self.namespace.name())
    }

    /// Applies a manifest in the scene's namespace.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn apply<K>(&self, manifest: &Value) -> Result<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let name = manifest["metadata"]["name"].as_str().context("the manifest has a name")?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        Ok(self.api::<K>().patch(name, &params, &Patch::Apply(manifest)).await?)
    }

    /// Applies a route and waits until the operator has accepted it.
    ///
    /// # Errors
    /// The API server's refusal, or no `Accepted` condition in time.
    pub async fn route(&self, manifest: &Value) -> Result<MailRoute> {
        let route: MailRoute = self.apply(manifest).await?;
        let name = route.metadata.name.context("a stored route has a name")?;
        self.route_condition(&name, "Accepted", "True").await
    }

    /// Waits until a condition of a route has a status.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_condition(&self, name: &str, condition: &str, status: &str) -> Result<MailRoute> {
        self.route_until(name, condition, |c| c.status == status)
            .await
            .with_context(|| format!("{condition} of {name} did not become {status}"))
    }

    /// Waits until a condition of a route has a reason.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_reason(&self, name: &str, condition: &str, reason: &str) -> Result<MailRoute> {
        self.route_until(name, condition, |c| c.reason == reason)
            .await
            .with_context(|| format!("{condition} of {name} did not turn {reason}"))
    }

    async fn route_until(
        &self,
        name: &str,
        condition: &str,
        wanted: impl Fn(&Condition) -> bool,
    ) -> Result<MailRoute> {
        let met = |route: &MailRoute| condition_of(route, condition).is_some_and(&wanted);
        wait_for(self.api::<MailRoute>(), name, met, PATIENCE).await
    }

    /// Waits until the status of a route says that so many messages wait.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn route_queues(&self, name: &str, messages: u64) -> Result<MailRoute> {
        let met = |route: &MailRoute| route.status.as_ref().is_some_and(|s| s.queue.messages == messages);
        let route = wait_for(self.api::<MailRoute>(), name, met, PATIENCE).await;
        route.with_context(|| format!("the queue of {name} did not get to {messages}"))
    }

    /// What `kubectl describe` shows of a route.
    ///
    /// # Errors
    /// When it fails.
    pub async fn describe(&self, name: &str) -> Result<String> {
        self.cluster.kubectl(&["--namespace", self.namespace.name(), "describe", "mailroute", name]).await
    }

    /// Waits for an Event about a route and returns what it says.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn route_event(&self, name: &str, reason: &str) -> Result<String> {
        let told = |event: &Event| {
            event.reason.as_deref() == Some(reason) && event.involved_object.name.as_deref() == Some(name)
        };
        let met = |events: &[Event]| events.iter().any(told);
        let events = wait_for_all(self.api::<Event>(), "", met, PATIENCE).await;
        let events = events.with_context(|| format!("no Event {reason} about {name}"))?;
        Ok(events.into_iter().find(told).and_then(|event| event.message).unwrap_or_default())
    }

    /// Runs a shell script in a pod's container `app` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error shows what it printed.
    pub async fn run(&self, pod: &str, script: &str) -> Result<String> {
        self.exec(pod, "app", &["/bin/sh", "-ec", script]).await
    }

    async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let mut arguments =
            vec!["--namespace", self.namespace.name(), "exec", pod, "--container", container, "--"];
        arguments.extend_from_slice(command);
        self.cluster.kubectl(&arguments).await
    }

    /// Waits until a pod has succeeded: all its containers have ended, each with exit code 0.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn pod_succeeds(&self, name: &str) -> Result<Pod> {
        let succeeded = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
        wait_for(self.api::<Pod>(), name, succeeded, PATIENCE).await
    }

    /// Waits until there is a pod with a label, and returns its name.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn pod_appears(&self, selector: &str) -> Result<String> {
        let pods = wait_for_all(self.api::<Pod>(), selector, |pods| !pods.is_empty(), PATIENCE).await?;
        pods.into_iter().find_map(|pod| pod.metadata.name).context("a stored pod has a name")
    }

    /// Waits for a Job to complete and returns its pod's log of the container `app`.
    ///
    /// # Errors
    /// When the Job fails or does not end in time.
    pub async fn job_completes(&self, name: &str) -> Result<String> {
        let (job, log) = self.job_ends(name).await?;
        ensure!(is_complete(&job), "Job {name} failed; its log: {log}");
        Ok(log)
    }

    /// Waits for a Job to fail and returns its pod's log of the container `app`.
    ///
    /// # Errors
    /// When the Job succeeds or does not end in time.
    pub async fn job_fails(&self, name: &str) -> Result<String> {
        let (job, log) = self.job_ends(name).await?;
        ensure!(!is_complete(&job), "Job {name} succeeded; its log: {log}");
        Ok(log)
    }

    async fn job_ends(&self, name: &str) -> Result<(Job, String)> {
        let job = wait_for(self.api::<Job>(), name, has_ended, PATIENCE).await?;
        let pod = self.pod_labelled(&format!("batch.kubernetes.io/job-name={name}")).await?;
        let pod = pod.metadata.name.context("a stored pod has a name")?;
        Ok((job, self.log(&pod, "app").await?))
    }

    /// The log of a container so far.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn log(&self, pod: &str, container: &str) -> Result<String> {
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(self.api::<Pod>().logs(pod, &params).await?)
    }

    /// Waits until a container's log has a line with `text`.
    ///
    /// # Errors
    /// When it has none in time, or the container ends without it.
    pub async fn log_shows(&self, pod: &str, container: &str, text: &str) -> Result<()> {
        self.container_runs(pod, container).await?;
        let params =
            LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
        let mut lines = self.api::<Pod>().log_stream(pod, &params).await?.lines();
        let seen = async {
            while let Some(line) = lines.try_next().await? {
                if line.contains(text) {
                    return Ok(());
                }
            }
            anyhow::bail!("the log of {container} ended without {text:?}")
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .with_context(|| format!("no {text:?} in the log of {container}"))?
    }

    async fn container_runs(&self, pod: &str, container: &str) -> Result<()> {
        let begun = |pod: &Pod| {
            let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
            statuses.filter(|s| s.name == container).any(|s| {
                s.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            })
        };
        wait_for(self.api::<Pod>(), pod, begun, PATIENCE).await.map(drop)
    }

    /// The only pod with a label.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod_labelled(&self, selector: &str) -> Result<Pod> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await?;
        pods.items.into_iter().next().with_context(|| format!("no pod is labelled {selector}"))
    }

    /// Waits until a pod runs with all its containers ready.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn pod_ready(&self, name: &str) -> Result<Pod> {
        wait_for(self.api::<Pod>(), name, is_ready, PATIENCE).await
    }
}

/// A condition of a route, when it is there.
pub fn condition_of<'a>(route: &'a MailRoute, kind: &str) -> Option<&'a Condition> {
    route.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the kubelet calls a pod ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

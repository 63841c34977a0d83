//! A route's gateway: its chart installed in the scene's namespace, on volumes of the node.

use std::fs;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use mailroute_operator_core::crd::MailRoute;
use serde_json::json;

use super::{FIELD_MANAGER, PATIENCE, Scene, release};
use crate::wait_for;

/// Name of the Helm release, and so of the StatefulSet and of its headless Service.
pub const GATEWAY: &str = "mail-gateway";

impl Scene {
    /// Installs the gateway of the route `notifications` and waits until all of its pods are ready.
    ///
    /// # Errors
    /// Helm's, or pods that do not become ready in time.
    pub async fn gateway(&self, replicas: u32, values: &[&str]) -> Result<()> {
        self.gateway_of("notifications", GATEWAY, replicas, values).await
    }

    /// The same for any route, as a Helm release of this name, which has to hold the word gateway.
    ///
    /// # Errors
    /// As for [`Scene::gateway`].
    pub async fn gateway_of(&self, route: &str, release: &str, replicas: u32, values: &[&str]) -> Result<()> {
        for ordinal in 0..replicas {
            self.volume(release, ordinal).await?;
        }
        let chart = release::repository().join("charts/mailroute-gateway").display().to_string();
        let (class, replicas_value) =
            (format!("spool.storageClassName={}", self.storage_class()), format!("replicas={replicas}"));
        let route = format!("route={route}");
        let mut arguments = vec!["install", release, &chart, "--namespace", self.namespace.name()];
        arguments.extend(["--set", &route, "--set", &class, "--set", &replicas_value]);
        arguments.extend_from_slice(values);
        self.cluster.helm(&arguments).await?;
        self.gateway_ready(release, replicas).await
    }

    /// Waits until so many pods of a release are ready, and no more.
    async fn gateway_ready(&self, release: &str, replicas: u32) -> Result<()> {
        let wanted = i32::try_from(replicas)?;
        let is_ready = |set: &StatefulSet| {
            let status = set.status.clone().unwrap_or_default();
            status.replicas == wanted && status.ready_replicas.unwrap_or_default() == wanted
        };
        wait_for(self.api::<StatefulSet>(), release, is_ready, PATIENCE)
            .await
            .context("the gateway is not ready")?;
        Ok(())
    }

    /// Sets the number of the gateway's pods and waits until they are so many.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn scale_gateway(&self, replicas: u32) -> Result<()> {
        let scale = json!({"spec": {"replicas": replicas}});
        let sets = self.api::<StatefulSet>();
        sets.patch_scale(GATEWAY, &PatchParams::default(), &Patch::Merge(&scale)).await?;
        self.gateway_ready(GATEWAY, replicas).await
    }

    /// Waits until the status of a route says that its gateway has a number of messages that is wanted.
    ///
    /// # Errors
    /// When it does not in time; the error shows the route's status.
    pub async fn gateway_queues(&self, route: &str, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let met = |route: &MailRoute| {
            let gateway = route.status.as_ref().and_then(|status| status.gateway.as_ref());
            gateway.is_some_and(|gateway| wanted(gateway.queued))
        };
        wait_for(self.api::<MailRoute>(), route, met, PATIENCE).await.context("the gateway's queue")?;
        Ok(())
    }

    /// Ends the program of a gateway's pod without a warning, and waits until the kubelet has started it again.
    ///
    /// # Errors
    /// When it does not start again in time.
    pub async fn kill_gateway(&self, pod: &str) -> Result<()> {
        let before = self.api::<Pod>().get(pod).await?;
        let status = |pod: &Pod| {
            let all = pod.status.as_ref()?.container_statuses.as_ref()?;
            all.iter().find(|status| status.name == "mailroute").cloned()
        };
        let running = status(&before).context("the gateway runs")?;
        self.cluster.kill_container(running.container_id.as_deref().context("it has an id")?).await?;
        let again = |pod: &Pod| {
            status(pod).is_some_and(|status| status.restart_count > running.restart_count && status.ready)
        };
        wait_for(self.api::<Pod>(), pod, again, PATIENCE).await.context("it does not start again")?;
        Ok(())
    }

    /// A volume of the first node for the claim of one pod, in the cluster's folder. The harness has no provisioner.
    async fn volume(&self, release: &str, ordinal: u32) -> Result<()> {
        let namespace = self.namespace.name();
        let claim = format!("mailroute-spool-{release}-{ordinal}");
        let name = format!("{namespace}-{claim}");
        let state = self.cluster.description().context("volumes are of this harness's nodes")?.state.clone();
        let folder = state.join("volumes").join(&name);
        fs::create_dir_all(&folder)?;
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": self.storage_class(),
                "claimRef": {"namespace": namespace, "name": claim},
                "local": {"path": folder},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]},
                ]}]}},
            },
        });
        let volumes: Api<PersistentVolume> = Api::all(self.client());
        volumes.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&volume)).await?;
        Ok(())
    }

    fn storage_class(&self) -> String {
        format!("volumes-of-{}", self.namespace.name())
    }
}

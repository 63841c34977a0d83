//! A scene: what a scenario on the node needs around it, each with a namespace and a Microsoft 365 of its own, so that
//! scenarios run side by side without hearing each other.
//!
//! * [`release`]: the charts installed once on a cluster, by the real Helm.
//! * [`admissions`]: pods that are asked for all the time, while something else happens.
//! * [`microsoft`]: a simulator in the scene's namespace and what its control API tells.
//! * `route` and `pods`: what a scene's routes and pods come to.
//! * [`sidecar`]: the sidecar of a pod: its life, its death, its commands.
//! * [`gateway`]: a route's gateway, installed by its chart.
//! * [`workload`]: manifests of the routes and pods that play the application.
//! * [`front`]: a proxy between an operator in this process ([`crate::replica`]) and the API server.

pub mod admissions;
pub mod front;
pub mod gateway;
pub mod microsoft;
mod pods;
pub mod release;
mod route;
pub mod sidecar;
pub mod workload;

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

use crate::{Cluster, Namespace, Tier};
use microsoft::Microsoft;
pub use pods::is_ready;
pub use route::condition_of;

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
        let namespace = namespace(&cluster, name).await?;
        let microsoft = Microsoft::deploy(&cluster, namespace.name()).await?;
        microsoft.rename_tenant(&workload::tenant(namespace.name())).await?;
        microsoft.publish_ca(namespace.name()).await?;
        Ok(Self { cluster, namespace, microsoft })
    }

    /// Another namespace, whose pods send through the Microsoft 365 of this one.
    ///
    /// # Errors
    /// When the API server refuses it, or the simulator cannot be reached.
    pub async fn beside(&self, name: &str) -> Result<Self> {
        let (cluster, microsoft) = (self.cluster.clone(), self.microsoft.clone());
        let namespace = namespace(&cluster, name).await?;
        microsoft.trust_service_account(namespace.name(), "default").await?;
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
}

async fn namespace(cluster: &Cluster, name: &str) -> Result<Namespace> {
    cluster.namespace(name, &[("pod-security.kubernetes.io/enforce", "restricted")]).await
}

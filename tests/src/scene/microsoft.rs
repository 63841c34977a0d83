//! The simulator as a pod of the cluster, and its control API, reached through the API server's service proxy.

mod arrived;
mod names;
mod tenant;
mod trouble;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use kube::{Api, Client};
use mailroute_m365::Config;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{PATIENCE, release};
use crate::wait::is_available;
use crate::{Cluster, wait_for};

/// Name of the simulator's Deployment in `tests/m365/deploy/m365.yaml`.
const DEPLOYMENT: &str = "m365";

/// Service and port of the control API.
const CONTROL: &str = "control:8080";

/// A simulator in a namespace.
#[derive(Clone)]
pub struct Microsoft {
    client: Client,
    namespace: String,
}

impl Microsoft {
    /// Deploys a simulator into a namespace (made when it is not there), with the sample directory, trusting the
    /// cluster's issuer and the namespace's default service account.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn deploy(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let path = release::repository().join("tests/m365/deploy/m365.yaml");
        let manifests = std::fs::read_to_string(&path)?.replace("m365.svc", &format!("{namespace}.svc"));
        let manifests = manifests.replace("namespace: m365", &format!("namespace: {namespace}"));
        let manifests =
            manifests.replacen("name: m365 # namespace", &format!("name: {namespace} # namespace"), 1);
        cluster.apply(namespace, &manifests).await?;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
        wait_for(deployments, DEPLOYMENT, is_available, PATIENCE)
            .await
            .context("the simulator does not come up")?;
        let simulator = Self { client: cluster.client(), namespace: namespace.to_owned() };
        simulator.trust_service_account(namespace, "default").await?;
        Ok(simulator)
    }

    /// Writes its CA to the ConfigMap that routes of a namespace name in `caBundleRef`.
    ///
    /// # Errors
    /// When the control API cannot be reached, or the API server refuses the ConfigMap.
    pub async fn publish_ca(&self, namespace: &str) -> Result<()> {
        let ca = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"},
            "data": {"ca.crt": self.ca_pem().await?},
        });
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        config_maps.patch("m365-ca", &PatchParams::apply("scene").force(), &Patch::Apply(&ca)).await?;
        Ok(())
    }

    /// The CA that its certificates chain to, PEM.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn ca_pem(&self) -> Result<String> {
        self.request("GET", "ca.pem", None).await
    }

    /// The whole configuration.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn configuration(&self) -> Result<Config> {
        self.json("config").await
    }

    /// Changes the configuration as a whole.
    ///
    /// # Errors
    /// When the control API cannot be reached, or refuses the new one.
    pub async fn configure(&self, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut config = self.configuration().await?;
        change(&mut config);
        self.request("PUT", "config", Some(serde_json::to_vec(&config)?)).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.request("GET", path, None).await?;
        serde_json::from_str(&text).with_context(|| format!("/{path} answered {text}"))
    }

    async fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<String> {
        let uri = format!("/api/v1/namespaces/{}/services/{CONTROL}/proxy/{path}", self.namespace);
        let request =
            hyper::Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let response = self.client.send(request.body(Body::from(body.unwrap_or_default()))?).await?;
        let status = response.status();
        let text = String::from_utf8(response.into_body().collect().await?.to_bytes().into())?;
        ensure!(status.is_success(), "{method} /{path} answered {status}: {text}");
        Ok(text)
    }
}

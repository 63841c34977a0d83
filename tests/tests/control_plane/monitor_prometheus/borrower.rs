//! The operator's identity, lent to a route, and a pod that asks for a token of it.

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use e2e::replica::until;
use e2e::scene::workload;
use k8s_openapi::api::authentication::v1::BoundObjectReference;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use mailroute_m365::{Options, Simulator};
use mailroute_route::control::TOKEN_PATH;
use mailroute_route::paths::CONTROL_AUDIENCE;
use serde_json::json;
use tempfile::TempDir;

use super::operator::Stage;
use crate::lent;

/// Name of the route that borrows.
pub(super) const ROUTE: &str = "lent";

/// Entra, which trusts the operator's ServiceAccount, and what the operator needs for it.
pub(super) struct Lender {
    entra: Simulator,
    folder: TempDir,
}

impl Lender {
    /// Lends to the routes of a namespace.
    pub(super) async fn to(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let entra = Simulator::start(Options::default()).await?;
        lent::trust_the_cluster(&entra, cluster).await?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("broker.yaml"), lent::settings_for(&entra, namespace))?;
        std::fs::write(folder.path().join("token"), lent::identity(cluster).await?)?;
        Ok(Self { entra, folder })
    }

    /// What a replica is started with.
    pub(super) fn flags(&self) -> [String; 2] {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        [format!("--broker-settings={}", at("broker.yaml")), format!("--identity-token={}", at("token"))]
    }

    /// Somebody removes the federated credential.
    pub(super) fn is_not_trusted_any_more(&self) {
        let applications = |directory: &mut mailroute_m365::directory::Directory| {
            let all = directory.tenants.iter_mut().flat_map(|tenant| &mut tenant.applications);
            all.for_each(|application| application.federated_credentials.clear());
        };
        self.entra.directory(applications);
    }
}

impl Stage {
    /// A pod of the route gets a token from the first replica, and ends.
    pub(crate) async fn borrow_a_token(&self) -> Result<()> {
        let (pod, bearer) = self.borrower().await?;
        until(async || self.asked_for_a_token(0, &bearer, 200).await).await?;
        self.pods().delete(&pod, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Another asks the second replica, which has no token yet, and Entra gives none.
    pub(super) async fn ask_in_vain_for_a_token(&self) -> Result<()> {
        let (_, bearer) = self.borrower().await?;
        until(async || self.asked_for_a_token(1, &bearer, 502).await).await
    }

    async fn asked_for_a_token(&self, replica: usize, bearer: &str, expected: u16) -> Result<()> {
        let at = self.running.get(replica).context("a replica")?.flags.control_listen;
        let body = json!({"route": ROUTE}).to_string().into_bytes();
        let status = self.ask(at, TOKEN_PATH, bearer, body).await?;
        ensure!(status == expected, "the request for a token is answered {status}");
        Ok(())
    }

    /// A pod of the route, and what its sidecar would show to the control service.
    async fn borrower(&self) -> Result<(String, String)> {
        let mut pod = workload::pod("", ROUTE, &workload::pod_spec("true"));
        pod["metadata"] = json!({"generateName": "borrower-", "labels": pod["metadata"]["labels"]});
        let made = self.pods().create(&PostParams::default(), &serde_json::from_value::<Pod>(pod)?).await?;
        let name = made.metadata.name.context("a stored pod has a name")?;
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.clone()),
            uid: made.metadata.uid,
        };
        let account = (self.namespace.name(), "default");
        let token = lent::token(&self.cluster, account, CONTROL_AUDIENCE, Some(bound)).await?;
        Ok((name, format!("Bearer {token}")))
    }
}

//! The charts on a cluster, put there and taken away by the real Helm.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::wait::is_available;
use crate::{Cluster, wait_for};

/// Namespace the operator is installed in.
pub const NAMESPACE: &str = "mailroute-system";

/// Name of the Helm release, and so of the operator's Deployment.
pub const NAME: &str = "mailroute";

/// Name of the Helm release of the resource definition.
const DEFINITIONS: &str = "mailroute-crds";

/// Names the folder with the archives of the images, when that is not `target/images`.
const FOLDER_VARIABLE: &str = "MAILROUTE_IMAGES";

/// The images a node needs, each an archive.
const IMAGES: [&str; 4] = ["mailroute-operator", "mailroute-sidecar", "mailroute-m365", "mailroute-clients"];

/// Installs images, definitions and operator unless they are there. Scenarios in other processes may call it at the
/// same time; one of them does the work.
///
/// # Errors
/// When Helm fails or the operator does not become available.
pub async fn ensure_installed(cluster: &Cluster) -> Result<()> {
    let lock = cluster.kubeconfig().with_extension("install.lock");
    let _held = tokio::task::spawn_blocking(move || locked(&lock)).await??;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), NAMESPACE);
    if deployments.get_opt(NAME).await?.is_none() {
        load_images(cluster).await?;
        install_definitions(cluster).await?;
        // No name but the cluster's own exists on the node, so there is nothing to look at.
        install(cluster, &["--set", "dns.preflight=false"]).await?;
    }
    available(cluster).await
}

fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()?;
    Ok(file)
}

/// Loads the images that the node has not got yet. On a cluster that was not started here this is up to its owner.
///
/// # Errors
/// When an archive is missing (`make images` makes them) or containerd refuses it.
pub async fn load_images(cluster: &Cluster) -> Result<()> {
    if !cluster.takes_images() {
        return Ok(());
    }
    for image in IMAGES {
        let archive = images().join(format!("{image}.tar"));
        cluster
            .load_image(&archive)
            .await
            .with_context(|| format!("cannot load {image}; make images makes it"))?;
    }
    Ok(())
}

/// The folder with the archives of the images: what `MAILROUTE_IMAGES` names, or `target/images`.
pub fn images() -> PathBuf {
    let named = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    named.map_or_else(|| repository().join("target/images"), PathBuf::from)
}

/// Installs the chart of the resource definition.
///
/// # Errors
/// Helm's.
pub async fn install_definitions(cluster: &Cluster) -> Result<()> {
    let chart = chart("mailroute-crds");
    let place = ["--namespace", NAMESPACE, "--create-namespace", "--wait"];
    cluster
        .helm(&[&["upgrade", "--install", DEFINITIONS, chart.as_str()], place.as_slice()].concat())
        .await?;
    Ok(())
}

/// Installs the operator's chart and waits until it serves.
///
/// # Errors
/// Helm's, or the operator not becoming available.
pub async fn install(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let chart = chart("mailroute");
    let mut all = vec!["install", NAME, &chart, "--namespace", NAMESPACE, "--create-namespace", "--wait"];
    all.extend_from_slice(arguments);
    cluster.helm(&all).await?;
    available(cluster).await
}

/// Upgrades the operator's release in place.
///
/// # Errors
/// Helm's, a conflict of field managers for example.
pub async fn upgrade(cluster: &Cluster, arguments: &[&str]) -> Result<()> {
    let chart = chart("mailroute");
    let mut all = vec!["upgrade", NAME, &chart, "--namespace", NAMESPACE, "--wait"];
    all.extend_from_slice(arguments);
    cluster.helm(&all).await?;
    available(cluster).await
}

/// Uninstalls the operator's release; the definition stays.
///
/// # Errors
/// Helm's.
pub async fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.helm(&["uninstall", NAME, "--namespace", NAMESPACE, "--wait"]).await?;
    Ok(())
}

/// Which pod of the operator leads, once it is another than that one.
///
/// # Errors
/// When none does in time.
pub async fn leader_after(cluster: &Cluster, before: &str) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    let leads = |lease: &Lease| leader_in(lease).is_some_and(|pod| pod != before);
    let lease = wait_for(leases, NAME, leads, super::PATIENCE).await.context("no other replica leads")?;
    Ok(leader_in(&lease).unwrap_or_default().to_owned())
}

/// The pod that a Lease names: what stands before `@` in its holder.
fn leader_in(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    holder.split_once('@').map(|(pod, _)| pod)
}

/// Waits until every replica of the operator is available.
async fn available(cluster: &Cluster) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), NAMESPACE);
    wait_for(deployments, NAME, is_available, super::PATIENCE)
        .await
        .context("the operator does not become available")?;
    Ok(())
}

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

/// The checkout, where the charts, the examples and the built images are.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

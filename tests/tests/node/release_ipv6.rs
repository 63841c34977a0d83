//! A cluster whose nodes, pods and Services have addresses of IPv6 alone.

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, release, workload};
use e2e::{Cluster, Family, Tier};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_out_where_there_is_no_ipv4() -> Result<()> {
    let cluster = Cluster::start_with(Tier::Node, Family::Ipv6).await?;
    release::ensure_installed(&cluster).await?;
    let scene = Scene::on(cluster, "ipv6").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.waiting_pod("shop").await?;
    // By a report of the sidecar to the control service.
    scene.route_condition("notifications", "Authenticated", "True").await?;
    let script = workload::pod_spec(&workload::send_with_smtplib("over IPv6"));
    scene.apply::<Job>(&workload::job("first-mail", "notifications", &script)).await?;
    scene.job_completes("first-mail").await?;
    scene.microsoft.wait_for_messages(1).await?;
    let operators: Api<Pod> = Api::namespaced(scene.client(), release::NAMESPACE);
    for pods in [scene.api::<Pod>(), operators] {
        for pod in pods.list(&ListParams::default()).await? {
            let addresses = pod.status.and_then(|status| status.pod_ips).context("a pod has addresses")?;
            ensure!(addresses.iter().all(|address| address.ip.contains(':')), "{addresses:?}");
        }
    }
    scene.finish()
}

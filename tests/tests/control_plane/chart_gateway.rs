//! The gateway's chart on a real API server, in the hands of somebody who has the rights of one namespace and no others.

use anyhow::{Context, Result, ensure};
use e2e::chart::{GATEWAY, GATEWAY_NAMESPACE, gateway_folder, gateway_with, printed};
use e2e::replica::until;
use e2e::tools::Tools;
use e2e::{Cluster, Tier};

/// Whom Kubernetes' own role `edit` is bound to, in the namespace of the gateway.
const OWNER: &str = "owner-of-shop";

/// Values that switch on what needs no other resources than Kubernetes' own.
const VALUES: &str = "route=notifications,replicas=2,smtp.enabled=true,smtp.service.type=LoadBalancer,\
                      smtp.tls.secretName=mail-tls,smtp.users.secretName=mail-users";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_edit_a_namespace_installs_upgrades_and_removes_a_gateway_there() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    cluster.kubectl(&["create", "namespace", GATEWAY_NAMESPACE]).await?;
    let bound = format!("--user={OWNER}");
    let binding =
        ["create", "rolebinding", "owner", "--clusterrole=edit", &bound, "--namespace", GATEWAY_NAMESPACE];
    cluster.kubectl(&binding).await?;
    // The controller manager fills the role in.
    let asked =
        ["auth", "can-i", "create", "statefulsets.apps", "--as", OWNER, "--namespace", GATEWAY_NAMESPACE];
    until(async || cluster.kubectl(&asked).await.map(drop)).await?;
    let tools = Tools::find()?;
    for helm in [tools.helm3()?, tools.helm()] {
        is_valid(&cluster, &printed(gateway_with(&helm, GATEWAY, &["--set", VALUES])?)?).await?;
        let chart = gateway_folder().display().to_string();
        let owner = ["--namespace", GATEWAY_NAMESPACE, "--kube-as-user", OWNER];
        let install = [&["install", GATEWAY, &chart, "--set", VALUES][..], &owner].concat();
        cluster.helm_with(&helm, &install).await?;
        // What the API server lets nobody change of a StatefulSet has to be the same, whatever else is not.
        let more = ["--set", VALUES, "--set", "commonLabels.team=mail,replicas=3,smtp.withoutAuth=true"];
        let peers = ["--set", "smtp.peers[0].ipBlock.cidr=10.0.0.0/24"];
        let upgrade = [&["upgrade", GATEWAY, &chart][..], &more, &peers, &owner].concat();
        cluster.helm_with(&helm, &upgrade).await?;
        let get = [
            "get",
            "statefulset",
            GATEWAY,
            "--namespace",
            GATEWAY_NAMESPACE,
            "--output=jsonpath={.spec.replicas}",
        ];
        ensure!(cluster.kubectl(&get).await?.trim() == "3", "the upgrade changed nothing");
        cluster.helm_with(&helm, &[&["uninstall", GATEWAY][..], &owner].concat()).await?;
    }
    Ok(())
}

/// The API server knows every field.
async fn is_valid(cluster: &Cluster, objects: &str) -> Result<()> {
    let dry = ["apply", "--dry-run=server", "--validate=strict", "--as", OWNER, "--filename=-"];
    cluster.kubectl_stdin(&dry, objects).await.map(drop).context(objects.to_owned())
}

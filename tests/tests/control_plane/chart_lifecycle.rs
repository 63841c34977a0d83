//! The charts' life under Helm 3 and Helm 4 on a real API server, after a real operator has written what it owns, again and
//! again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::chart::KUBERNETES;
use e2e::replica::stage::short_lives;
use e2e::replica::{Running, flags, until};
use e2e::scene::{PATIENCE, release, workload};
use e2e::tools::Tools;
use e2e::{Cluster, Tier, wait_for_all};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use mailroute_operator::pki::trust;
use serde_json::Value;

/// One Helm to install with, one for the rest of the release's life.
struct Life {
    cluster: Cluster,
    installs: PathBuf,
    upgrades: PathBuf,
}

impl Life {
    async fn helm(&self, helm: &Path, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", release::NAMESPACE];
        let told = self.cluster.helm_with(helm, &[arguments, &namespace].concat()).await;
        told.with_context(|| format!("{} {}", helm.display(), arguments.join(" ")))
    }

    async fn install(&self) -> Result<()> {
        let mut told = String::new();
        for name in ["mailroute-crds", "mailroute"] {
            told = self.helm(&self.installs, &["install", name, &chart(name), "--create-namespace"]).await?;
        }
        self.is_taken(&told).await
    }

    /// The route that Helm's notes show is one that the API server takes, once the ids are filled in.
    async fn is_taken(&self, notes: &str) -> Result<()> {
        let (_, route) = notes.split_once("2. Apply a MailRoute").with_context(|| notes.to_owned())?;
        let lines = route.lines().skip(1).take_while(|line| !line.starts_with("3. "));
        let route: Vec<_> = lines.map(|line| line.strip_prefix("     ").unwrap_or(line)).collect();
        let route = route.join("\n").replace("<tenant id>", workload::TENANT);
        let route = route.replace("<application (client) id>", workload::CLIENT_ID);
        // One of the other name is there, from the life before.
        let route = route.replace("name: notifications", "name: of-the-notes");
        let dry = ["apply", "--dry-run=server", "--validate=strict", "--filename=-"];
        // The definition is established a moment after it is installed.
        until(async || self.cluster.kubectl_stdin(&dry, &route).await.map(drop)).await.context(route.clone())
    }

    /// An operator replaces its authority, twice, and ends.
    async fn rotate(&self, number: u16) -> Result<()> {
        let running =
            Running::start(&self.cluster, flags(&self.cluster, number, &[])?, short_lives()?).await?;
        for _ in 0..2 {
            let (bundle, _) = self.written().await?;
            until(async || {
                ensure!(self.written().await?.0 != bundle, "the bundle is still the same");
                Ok(())
            })
            .await?;
        }
        running.end().await
    }

    /// What the operator wrote is still there afterwards, and there was no conflict.
    async fn upgrade(&self) -> Result<()> {
        let before = self.written().await?;
        for name in ["mailroute-crds", "mailroute"] {
            self.helm(&self.upgrades, &[&["upgrade", name, &chart(name)], values_of(name)].concat()).await?;
        }
        let after = self.written().await?;
        ensure!(before == after, "the upgrade took something from the operator: {before:?} and {after:?}");
        Ok(())
    }

    /// What the charts render, told by a Helm that may ask the cluster.
    async fn rendered(&self) -> Result<String> {
        let mut text = String::new();
        for name in ["mailroute-crds", "mailroute"] {
            // Tests are not part of a release.
            let template = [
                "template",
                name,
                &chart(name),
                "--dry-run=server",
                "--skip-tests",
                "--kube-version",
                KUBERNETES,
            ];
            text += &self.helm(&self.upgrades, &[&template, values_of(name)].concat()).await?;
        }
        Ok(text)
    }

    /// Nothing of what is rendered would be changed in the cluster, by whoever applies it: what deployers that compare
    /// the two, such as Argo CD, call in sync.
    async fn is_in_sync(&self) -> Result<()> {
        let rendered = self.rendered().await?;
        let manager = "--field-manager=argocd-controller";
        let diff = ["diff", "--server-side", "--force-conflicts", manager, "--filename=-"];
        // It ends with a failure when there is a difference.
        self.cluster.kubectl_stdin(&diff, &rendered).await.context("a difference").map(drop)
    }

    /// The caBundle and the authority.
    async fn written(&self) -> Result<(Vec<u8>, usize)> {
        let client = self.cluster.client();
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        let configuration = configurations.get(release::NAME).await?;
        let entry = configuration.webhooks.as_ref().and_then(|all| all.first()).context("an entry")?;
        let bundle = entry.client_config.ca_bundle.clone().context("the operator fills the bundle")?.0;
        ensure!(trust::live(&configuration).is_some(), "the bundle is damaged");
        let secrets: Api<Secret> = Api::namespaced(client, release::NAMESPACE);
        let authority = secrets.get("mailroute-ca").await?.data.context("the operator fills the Secret")?;
        Ok((bundle, authority.len()))
    }

    /// Nothing is left of the release but the definition and the routes.
    async fn uninstall(&self) -> Result<()> {
        for name in ["mailroute", "mailroute-crds"] {
            self.helm(&self.upgrades, &["uninstall", name]).await?;
        }
        let kinds = "deployments,services,configmaps,secrets,leases,serviceaccounts,roles,rolebindings,poddisruptionbudgets,\
            clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies,\
            validatingadmissionpolicybindings";
        let ours =
            ["--all-namespaces", "--selector", "app.kubernetes.io/instance=mailroute", "--output", "name"];
        until(async || {
            let left = self.cluster.kubectl(&[&["get", kinds][..], &ours].concat()).await?;
            ensure!(left.trim().is_empty(), "left behind: {left}");
            Ok(())
        })
        .await?;
        let routes = self.cluster.kubectl(&["get", "mailroutes", "--namespace", "default"]).await?;
        ensure!(routes.contains("notifications"), "the routes are gone: {routes}");
        Ok(())
    }
}

/// What the release is upgraded with.
fn values_of(chart: &str) -> &'static [&'static str] {
    if chart == "mailroute" { &["--set", "logLevel=debug,commonLabels.team=mail"] } else { &[] }
}

fn chart(name: &str) -> String {
    release::repository().join("charts").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn either_helm_installs_upgrades_after_a_rotation_and_uninstalls() -> Result<()> {
    let (cluster, tools) = (Cluster::start(Tier::ControlPlane).await?, Tools::find()?);
    let (three, four) = (tools.helm3()?, tools.helm());
    // From the second on, the definition that the one before kept is adopted.
    for (number, (installs, upgrades)) in
        [(&three, &three), (&four, &four), (&three, &four)].into_iter().enumerate()
    {
        let life = Life { cluster: cluster.clone(), installs: installs.clone(), upgrades: upgrades.clone() };
        life.install().await?;
        let route = serde_json::to_string(&workload::route("notifications", "default"))?;
        until(async || cluster.apply("default", &route).await.map(drop)).await?;
        let before = life.rendered().await?;
        life.rotate(u16::try_from(number)?).await?;
        ensure!(before == life.rendered().await?, "after a rotation something else is rendered");
        life.upgrade().await?;
        life.is_in_sync().await?;
        life.uninstall().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_switched_on_is_taken_by_an_api_server_that_enforces_pod_security() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    let definitions = Tools::find()?.monitoring()?.display().to_string();
    cluster.kubectl(&["apply", "--server-side", "--filename", &definitions]).await?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await?;
    cluster.kubectl(&["create", "namespace", release::NAMESPACE]).await?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", release::NAMESPACE, enforce]).await?;
    cluster.kubectl(&["create", "namespace", "shop"]).await?;

    let on = "networkPolicy.limitEgress=true,networkPolicy.apiServer.cidrs={10.0.0.0/8},\
        networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring,\
        monitoring.serviceMonitor.enabled=true,monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,\
        monitoring.dashboard.enabled=true,watch.namespaces={shop}";
    let chart = chart("mailroute");
    let text = cluster
        .helm(&["template", release::NAME, &chart, "--namespace", release::NAMESPACE, "--set", on])
        .await?;
    // Strict: a field that a schema does not know is an error, where Helm would have it dropped.
    cluster
        .kubectl_stdin(&["apply", "--dry-run=server", "--validate=strict", "--filename", "-"], &text)
        .await?;
    cluster.helm(&["install", release::NAME, &chart, "--namespace", release::NAMESPACE, "--set", on]).await?;

    let pods: Api<Pod> = Api::namespaced(cluster.client(), release::NAMESPACE);
    // They are made; that they do not run is this cluster's doing.
    wait_for_all(pods, "app.kubernetes.io/name=mailroute", |all| all.len() == 2, PATIENCE).await?;
    let stored = cluster.kubectl(&[
        "get",
        "prometheusrule,podmonitor,servicemonitor",
        "--all-namespaces",
        "--output",
        "json",
    ]);
    let stored: Value = serde_json::from_str(&stored.await?)?;
    ensure!(stored["items"].as_array().is_some_and(|items| items.len() == 3), "{stored:#}");
    Ok(())
}

//! An upgrade of the chart after another actor has written selectors of the webhook configuration, under Helm 3 and Helm 4.

use anyhow::{Context, Result, ensure};
use e2e::scene::release;
use e2e::tools::Tools;
use e2e::{Cluster, Tier};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Who writes, beside Helm.
const ACTOR: &str = "admissionsenforcer";

#[tokio::test(flavor = "multi_thread")]
async fn helm_puts_selectors_right_that_another_actor_wrote() -> Result<()> {
    let (cluster, tools) = (Cluster::start(Tier::ControlPlane).await?, Tools::find()?);
    let chart = release::repository().join("charts/mailroute").display().to_string();
    let of = ["mailroute", &chart, "--namespace", release::NAMESPACE];
    // Helm 4 writes by server-side apply, and owns what it wrote: it names who else does, and wins when told to.
    for (helm, upgrade) in [(tools.helm3()?, &[][..]), (tools.helm(), &["--force-conflicts"][..])] {
        cluster.helm_with(&helm, &[&["install"][..], &of, &["--create-namespace"]].concat()).await?;
        let ours = selector(&cluster).await?;
        // What AKS's enforcer adds to configurations that do not ask to be left alone.
        let added = json!({"key": "control-plane", "operator": "NotIn", "values": ["true"]});
        let patch = json!([{"op": "add", "path": "/webhooks/0/namespaceSelector/matchExpressions/-", "value": added}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let params = PatchParams { field_manager: Some(ACTOR.into()), ..PatchParams::default() };
        configurations(&cluster).patch(release::NAME, &params, &patch).await?;
        ensure!(selector(&cluster).await? != ours, "nothing was added");

        if !upgrade.is_empty() {
            let refused = cluster.helm_with(&helm, &[&["upgrade"][..], &of].concat()).await;
            let told = format!("{:#}", refused.err().context("Helm took it over without a word")?);
            ensure!(told.contains("conflict") && told.contains(ACTOR), "{told}");
        }
        cluster.helm_with(&helm, &[&["upgrade"][..], &of, upgrade].concat()).await?;
        ensure!(selector(&cluster).await? == ours, "{} left it as it was", helm.display());
        cluster.helm_with(&helm, &["uninstall", "mailroute", "--namespace", release::NAMESPACE]).await?;
    }
    Ok(())
}

fn configurations(cluster: &Cluster) -> Api<MutatingWebhookConfiguration> {
    Api::all(cluster.client())
}

/// The keys that the entry's `namespaceSelector` looks at.
async fn selector(cluster: &Cluster) -> Result<Vec<String>> {
    let configuration = configurations(cluster).get(release::NAME).await?;
    let entry = configuration.webhooks.and_then(|entries| entries.into_iter().next()).context("an entry")?;
    let expressions = entry.namespace_selector.and_then(|selector| selector.match_expressions);
    Ok(expressions.into_iter().flatten().map(|expression| expression.key).collect())
}

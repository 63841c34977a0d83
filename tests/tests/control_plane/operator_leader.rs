//! A leader that is cut off from the API server: it stops writing before another begins, and pods are admitted all the while.

use anyhow::{Result, ensure};
use e2e::replica::asking::{ask, review, until};
use e2e::replica::client_of_the_chart;
use e2e::replica::stage::{Replica, Stage, labelled_pod};
use e2e::scene::front::{Conduct, Front};
use e2e::scene::{PATIENCE, condition_of};
use e2e::wait_for;
use kube::Api;
use kube::api::{Patch, PatchParams};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_before_another_begins_and_admission_goes_on() -> Result<()> {
    let mut stage = Stage::set(&[], &["--dns-preflight", "false"], Lifetimes::default()).await?;
    let front = Front::start(client_of_the_chart(&stage.cluster).await?).await?;
    stage.serve(Some(front.client()?)).await?;
    until(async || leads(&stage.replicas[0], true).await).await?;
    stage.serve(None).await?;
    leads(&stage.replicas[1], false).await?;

    front.conduct(Conduct::Silent);
    let question = review(stage.namespace.name(), &labelled_pod());
    // What is wrong meanwhile is remembered, as it may have passed when the other leads.
    let (mut asked, mut wrong) = (0, Vec::new());
    until(async || {
        // The one that begins is looked at first, so that a change in between shows as nobody leading.
        let second = leads(&stage.replicas[1], true).await;
        if leads(&stage.replicas[0], true).await.is_ok() && second.is_ok() {
            wrong.push("both lead".to_owned());
        }
        for replica in &stage.replicas {
            let reviewer = stage.reviewer(replica.webhook).await?;
            wrong.extend(ask(&reviewer, &question).await.err().map(|error| format!("{error:#}")));
            asked += 1;
        }
        second
    })
    .await?;
    ensure!(asked > 2, "it was over at once");
    ensure!(wrong.is_empty(), "{wrong:#?}");
    leads(&stage.replicas[0], false).await?;

    // The new one writes.
    let routes: Api<MailRoute> = Api::namespaced(stage.client(), stage.namespace.name());
    let change = Patch::Merge(json!({"spec": {"limits": {"messagesPerMinute": 20}}}));
    routes.patch("notifications", &PatchParams::default(), &change).await?;
    let is_seen = |route: &MailRoute| {
        condition_of(route, "Accepted").is_some_and(|accepted| accepted.observed_generation == Some(2))
    };
    wait_for(routes, "notifications", is_seen, PATIENCE).await?;

    // The old one comes back, and does not take over.
    front.conduct(Conduct::Through);
    stage.replicas[0].readiness(200).await?;
    leads(&stage.replicas[0], false).await?;
    leads(&stage.replicas[1], true).await?;
    stage.admit().await?;
    stage.namespace.finish()
}

/// Whether a replica says of itself that it leads, or that it does not.
async fn leads(replica: &Replica, wanted: bool) -> Result<()> {
    let says = replica.metric("mailroute_operator_leader").await?;
    ensure!(says == Some(f64::from(u8::from(wanted))), "it says {says:?}");
    Ok(())
}

//! The operator when the API server is in trouble, or says what it does not expect: through a proxy between the two.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replica::asking::{ask, review, until, warnings};
use e2e::replica::client_of_the_chart;
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::front::{Conduct, Front};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use mailroute_operator::logging::{Format, subscriber};
use mailroute_operator::pki::Lifetimes;
use serde_json::json;
use tracing::Level;

/// What must not be repeated. It stands where a token or a key might.
const SECRET: &str = "hunter2-hunter2-hunter2";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_not_repeated_in_the_log() -> Result<()> {
    let log = Log::default();
    // Set before the stage sets its own: at this level everything that the operator has to say is said.
    tracing::subscriber::set_global_default(subscriber(Format::Json, Level::TRACE, log.clone()))?;
    let (stage, front) = staged().await?;
    // Not JSON, JSON of another shape, and refusals that are no Status of Kubernetes.
    let shape =
        json!({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": SECRET}], "spec": SECRET});
    let answers = vec![
        (200, format!("<html>{SECRET}</html>\n")),
        (200, format!("{shape}\n")),
        (500, format!("upstream said {SECRET}")),
        (403, json!({"message": {"token": SECRET}}).to_string()),
    ];
    let (before, rounds) = (front.seen(), answers.len() as u64);
    front.conduct(Conduct::Garbage(answers));
    // The Lease, what the certificates need, and both lists have met each of them.
    until(async || {
        let missing = unmet(&before, &front.seen(), rounds);
        ensure!(missing.is_empty(), "nothing asked often enough for {missing:?}");
        Ok(())
    })
    .await?;
    let text = log.text();
    for part in ["cannot read or write the Lease", "cannot watch", "the watch was interrupted"] {
        ensure!(text.contains(part), "the log does not say: {part}\n{text}");
    }
    ensure!(!text.contains(SECRET), "the log repeats what it could not read:\n{text}");

    // And it recovers by itself.
    front.conduct(Conduct::Through);
    until(async || {
        let leads = stage.replicas[0].metric("mailroute_operator_leader").await?;
        ensure!(leads == Some(1.0), "it does not lead again");
        Ok(())
    })
    .await?;
    stage.admit().await?;
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_pods_are_answered_and_it_ends_in_time() -> Result<()> {
    let (mut stage, front) = staged().await?;
    let reviewer = stage.reviewer(stage.replicas[0].webhook).await?;
    let question = review(stage.namespace.name(), &labelled_pod());
    ask(&reviewer, &question).await?;
    // First it hangs, then it is gone.
    front.conduct(Conduct::Silent);
    let asked = front.seen();
    for _ in 0..100 {
        ask(&reviewer, &question).await?;
    }
    drop(front);
    for _ in 0..100 {
        ask(&reviewer, &question).await?;
    }
    stage.replicas[0].readiness(200).await?;
    ensure!(asked.contains_key("GET leases"), "the proxy was not in between: {asked:?}");
    let took = stage.stop_first().await?;
    ensure!(took < Duration::from_secs(13), "it took {took:?} to stop");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_api_server_does_not_hold_up_the_end() -> Result<()> {
    let (mut stage, front) = staged().await?;
    front.conduct(Conduct::Silent);
    let took = stage.stop_first().await?;
    ensure!(took < Duration::from_secs(13), "it took {took:?} to stop");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconciliation_that_fails_is_one_event_with_its_cause_and_heals_by_itself() -> Result<()> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    let config_maps: Api<ConfigMap> = Api::namespaced(stage.client(), stage.namespace.name());
    let name = "mailroute-notifications";
    let foreign = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    config_maps.create(&PostParams::default(), &foreign).await?;
    stage.serve(None).await?;
    // Tried again with growing pauses: at one, two and four seconds.
    until(async || {
        let failures = "mailroute_reconciles_total{outcome=\"foreign_config_map\"}";
        let failures = stage.replicas[0].metric(failures).await?.unwrap_or_default();
        ensure!(failures >= 3.0, "it was tried {failures} times");
        Ok(())
    })
    .await?;
    let told = warnings(stage.client(), "notifications", "ReconcileFailed").await?;
    let [(1, note)] = &told[..] else { anyhow::bail!("it is told of as {told:?}") };
    ensure!(note.contains(name) && note.contains("does not belong to this MailRoute"), "{note}");

    config_maps.delete(name, &DeleteParams::default()).await?;
    until(async || {
        let rendered = config_maps.get(name).await?.data.unwrap_or_default();
        ensure!(rendered.contains_key("route.json"), "it is not rendered");
        Ok(())
    })
    .await?;
    ensure!(warnings(stage.client(), "notifications", "ReconcileFailed").await?.len() == 1);
    stage.namespace.finish()
}

/// One replica, and the proxy by which it reaches the API server.
async fn staged() -> Result<(Stage, Front)> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    let front = Front::start(client_of_the_chart(&stage.cluster).await?).await?;
    stage.serve(Some(front.client()?)).await?;
    until(async || {
        let leads = stage.replicas[0].metric("mailroute_operator_leader").await?;
        ensure!(leads == Some(1.0), "it does not lead");
        Ok(())
    })
    .await?;
    Ok((stage, front))
}

/// What has not been asked for so often since.
fn unmet(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, often: u64) -> Vec<&'static str> {
    let count = |seen: &BTreeMap<String, u64>, word| seen.get(word).copied().unwrap_or_default();
    let asked =
        ["GET leases", "GET secrets", "GET mutatingwebhookconfigurations", "GET mailroutes", "GET pods"];
    asked.into_iter().filter(|word| count(now, *word) < count(before, *word) + often).collect()
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

//! The operator's own authority on a real API server, with two replicas, while authorities follow one another within
//! seconds.

use anyhow::{Result, ensure};
use e2e::replica::asking::{ask, review};
use e2e::replica::stage::{Stage, labelled_pod, short_lives};
use e2e::scene::{PATIENCE, release};
use e2e::wait_for;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use mailroute_operator::pki::bundle::Bundle;
use mailroute_operator::pki::{Lifetimes, trust};

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_of_the_authority_fail_no_admission() -> Result<()> {
    let mut stage = Stage::set(&[], &[], short_lives()?).await?;
    stage.serve(None).await?;
    stage.serve(None).await?;
    let configurations = stage.configurations();
    let (early, admitted) = stage
        .admit_until(async {
            let mut early = rotated(configurations.clone()).await?;
            early.extend(rotated(configurations).await?);
            Ok(early)
        })
        .await?;
    ensure!(early.is_empty(), "an authority left the bundle before it ended: {early:?}");
    ensure!(admitted > 100, "only {admitted} pods were made while the authority changed twice");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_moment_a_replica_is_ready_the_api_server_can_trust_it() -> Result<()> {
    let mut stage = Stage::set(&[], &[], Lifetimes::default()).await?;
    let question = review(stage.namespace.name(), &labelled_pod());
    // The first one makes the authority and publishes it; the others take a leaf of it.
    for _ in 0..3 {
        let replica = stage.start(None).await?.clone();
        replica.readiness(200).await?;
        // Asked once, with what is published at this moment.
        ask(&stage.reviewer(replica.webhook).await?, &question).await?;
    }
    stage.namespace.finish()
}

/// Waits until none of the authorities of now is published any more, and names those that could still have been needed.
async fn rotated(configurations: Api<MutatingWebhookConfiguration>) -> Result<Vec<String>> {
    let first = published(&configurations.get(release::NAME).await?);
    let is_over = |configuration: &MutatingWebhookConfiguration| {
        let now = published(configuration);
        !now.is_empty() && !first.iter().any(|authority| now.contains(authority))
    };
    wait_for(configurations, release::NAME, is_over, PATIENCE).await?;
    // Until it ends, leaves that it has signed may be served.
    let early = first.iter().filter(|authority| authority.not_after() > Timestamp::now());
    Ok(early.map(|authority| format!("{authority:?}")).collect())
}

fn published(configuration: &MutatingWebhookConfiguration) -> Bundle {
    trust::live(configuration).unwrap_or_default()
}

//! One mailbox, whose limits the operator shares among pods of two namespaces with a route each, on a node of their own.
//! The leader goes in the middle of it.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::scene::admissions::Admissions;
use e2e::scene::{PATIENCE, Scene, release, workload};
use e2e::{Cluster, Tier, wait_for};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use mailroute_m365::Message;
use mailroute_operator_core::crd::MailRoute;

/// Messages of each pod; there are two in each namespace. All of them together are more than a mailbox may send in a minute.
const EACH: u32 = 9;

/// Messages that have arrived when the leader goes: too few for the minute to be the reason of a pause.
const AT_THE_CHANGE: usize = 18;

/// Longest time between two messages around the change.
const PAUSE: Duration = Duration::from_secs(15);

/// Pods that send at once all that they have, and then stay.
async fn send_from(scene: &Scene, route: &str, first: u32) -> Result<()> {
    for (name, begin) in [("one", first), ("two", first + EACH)] {
        let send = workload::send_numbers(begin..begin + EACH, "ada@contoso.com");
        let spec = workload::pod_spec(&format!("{send}\n{}", workload::WAIT));
        scene.apply::<Pod>(&workload::pod(name, route, &spec)).await?;
    }
    Ok(())
}

/// Every application was answered 250 for all that it had.
async fn all_answered(scene: &Scene, first: u32) -> Result<()> {
    for (name, last) in [("one", first + EACH - 1), ("two", first + 2 * EACH - 1)] {
        scene.log_shows(name, "app", &format!("accepted {last} ")).await?;
    }
    Ok(())
}

/// Asks the leader to go, as a drained node would.
async fn delete_the_leader(cluster: &Cluster) -> Result<()> {
    let leader = release::leader_after(cluster, "").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), release::NAMESPACE);
    pods.delete(&leader, &DeleteParams::default()).await?;
    release::leader_after(cluster, &leader).await?;
    Ok(())
}

/// The longest time in which nothing arrived, from the message before the last of `range` to the first after.
fn longest_pause(messages: &[Message], range: Range<usize>) -> Result<Duration> {
    let mut times: Vec<Timestamp> = messages.iter().map(|message| message.received_at).collect();
    times.sort();
    let pauses = times.get(range).context("as many messages")?.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = pauses.map(|pause| pause.total(jiff::Unit::Second)).collect::<Result<Vec<_>, _>>()?;
    Ok(Duration::from_secs_f64(longest.into_iter().fold(0.0, f64::max)))
}

/// The route's status counts what its own pods have sent.
async fn usage_is_shown(scene: &Scene, route: &str) -> Result<()> {
    let counted = |route: &MailRoute| {
        let usage = route.status.as_ref().map(|status| status.usage);
        usage.is_some_and(|it| it.recipients_last_24h == u64::from(2 * EACH) && it.messages_last_minute <= 30)
    };
    wait_for(scene.api::<MailRoute>(), route, counted, PATIENCE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_namespaces_share_a_mailbox_and_a_leader_that_goes_is_a_pause() -> Result<()> {
    let cluster = Cluster::start(Tier::Node).await?;
    release::ensure_installed(&cluster).await?;
    let shop = Scene::on(cluster.clone(), "shop").await?;
    let office = shop.beside("office").await?;
    shop.route(&workload::route("orders", shop.namespace.name())).await?;
    office.route(&workload::route("letters", shop.namespace.name())).await?;
    send_from(&shop, "orders", 0).await?;
    send_from(&office, "letters", 2 * EACH).await?;

    shop.microsoft.wait_for_messages(AT_THE_CHANGE).await?;
    let load = Admissions::begin(&shop, "orders").await?;
    delete_the_leader(&cluster).await?;
    let messages = shop.microsoft.wait_for_numbers(0..4 * EACH).await?;
    load.end().await.context("while the leader changed")?;

    all_answered(&shop, 0).await?;
    all_answered(&office, 2 * EACH).await?;
    let pause = longest_pause(&messages, AT_THE_CHANGE - 1..AT_THE_CHANGE + 2)?;
    ensure!(pause <= PAUSE, "nothing arrived for {pause:?} when the leader went");
    let statistics = shop.microsoft.statistics().await?;
    ensure!(statistics.tally.refusals.is_empty(), "refused: {:?}", statistics.tally.refusals);
    let peak = statistics.mailboxes.get(workload::MAILBOX).context("the mailbox")?;
    ensure!(peak.messages_in_minute <= 30 && peak.submitting_connections <= 3, "{peak:?}");
    usage_is_shown(&shop, "orders").await?;
    usage_is_shown(&office, "letters").await?;
    ensure!(shop.microsoft.violations().await?.is_empty(), "Exchange would refuse something");
    office.finish()?;
    shop.finish()
}

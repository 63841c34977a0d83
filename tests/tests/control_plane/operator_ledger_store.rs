//! Where the operator writes down what mailboxes have sent, on a real API server: an object for each, with the rights of the chart's
//! ServiceAccount.

use anyhow::{Context, Result, ensure};
use e2e::replica::{client_of_the_chart, install_chart};
use e2e::scene::release;
use e2e::{Cluster, Tier};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use mailroute_operator::service::ids::MailboxKey;
use mailroute_operator::service::ledger_store::{Error, LedgerStore, MailboxUsages};
use mailroute_operator_core::crd::{MailboxUsage, MailboxUsageSpec};
use serde_json::json;

fn usage(record: &str) -> MailboxUsageSpec {
    let (messages, recipients) = ("3/30".into(), "12/10000".into());
    let namespaces = "billing, shop".into();
    MailboxUsageSpec { messages, recipients, sidecars: 2, waiting: 1, namespaces, record: record.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_by_the_next_leader_and_never_over_what_it_wrote() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    install_chart(&cluster, &[]).await?;
    let store = async || -> Result<MailboxUsages> {
        Ok(MailboxUsages::new(client_of_the_chart(&cluster).await?, release::NAMESPACE))
    };
    let (old, new) = (store().await?, store().await?);
    let (key, other, shop) = (
        MailboxKey::of("tenant", "noreply@contoso.com"),
        MailboxKey::of("tenant", "shop@contoso.com"),
        "shop".into(),
    );

    ensure!(old.read(&key).await?.is_none(), "nothing was ever sent");
    let first = old.write(&key, None, &shop, &usage("first")).await?;
    let twice = new.write(&key, None, &shop, &usage("mine")).await;
    ensure!(matches!(twice, Err(Error::Overtaken(_))), "{twice:?}");
    ensure!(old.read(&other).await?.is_none(), "each mailbox has an object of its own");
    let found = new.read(&key).await?.context("it is stored")?;
    ensure!(found.record.as_deref() == Some("first") && found.version == first, "{found:?}");
    let second = new.write(&key, Some(&first), &shop, &usage("second")).await?;
    let overtaken = old.write(&key, Some(&first), &shop, &usage("third")).await;
    ensure!(matches!(overtaken, Err(Error::Overtaken(_))), "{overtaken:?}");
    ensure!(old.list().await? == [(key.clone(), shop.clone())]);
    let early = old.remove(&key, &first).await;
    ensure!(matches!(early, Err(Error::Overtaken(_))), "{early:?}");

    let shown = cluster.kubectl(&["get", "mailboxusages", "--namespace", release::NAMESPACE]).await?;
    ensure!(
        shown.contains("NAMESPACES") && shown.contains("billing, shop") && shown.contains("3/30"),
        "{shown}"
    );

    old.remove(&key, &second).await?;
    ensure!(new.read(&key).await?.is_none());
    let gone = new.write(&key, Some(&second), &shop, &usage("third")).await;
    ensure!(matches!(gone, Err(Error::Overtaken(_))), "{gone:?}");
    new.remove(&key, &second).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_writes_there_is_read_as_damaged_and_can_be_written_over() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    install_chart(&cluster, &[]).await?;
    let store = MailboxUsages::new(client_of_the_chart(&cluster).await?, release::NAMESPACE);
    let key = MailboxKey::of("tenant", "noreply@contoso.com");
    store.write(&key, None, &"shop".into(), &usage("first")).await?;
    let usages: Api<MailboxUsage> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let patch = json!({"spec": {"record": "hello"}});
    usages.patch(key.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    let found = store.read(&key).await?.context("it is stored")?;
    ensure!(found.record.as_deref() == Some("hello"), "{found:?}");
    store.write(&key, Some(&found.version), &"shop".into(), &usage("second")).await?;
    usages.delete(key.as_str(), &DeleteParams::default()).await?;
    ensure!(store.read(&key).await?.is_none());
    Ok(())
}

//! Where the operator writes down what mailboxes have sent, on a real API server: the chart's ConfigMaps, with the rights of the
//! chart's ServiceAccount.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::replica::{client_of_the_chart, install_chart};
use e2e::scene::release;
use e2e::{Cluster, Tier};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::DeleteParams;
use mailroute_operator::budget::ledger::Ledger;
use mailroute_operator::budget::mailboxes::Key;
use mailroute_operator::budget::record::Record;
use mailroute_operator::budget::terms::Terms;
use mailroute_operator::control::books::{BOOKS, Books, ConfigMaps, Error, Page};

/// A record that is not the same at another time.
fn record(second: u64) -> Record {
    Ledger::new(Terms::default()).record(None, Duration::from_secs(second))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_by_the_next_leader_and_never_over_what_it_wrote() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    install_chart(&cluster, &[]).await?;
    let books = async || -> Result<ConfigMaps> {
        Ok(ConfigMaps::new(client_of_the_chart(&cluster).await?, release::NAMESPACE, release::NAME))
    };
    let (old, new) = (books().await?, books().await?);
    let (mine, yours) = (Key::of("tenant", "noreply@contoso.com"), Key::of("tenant", "shop@contoso.com"));
    let (first, second, third) = (record(1), record(2), record(3));

    ensure!(old.read(&mine).await? == Page::Blank, "the chart renders them empty");
    old.write(&mine, &first).await?;
    ensure!(old.read(&yours).await? == Page::Blank || mine.place(BOOKS) != yours.place(BOOKS));
    ensure!(new.read(&mine).await? == Page::Written(Box::new(first)));
    new.write(&mine, &second).await?;
    let overtaken = old.write(&mine, &third).await;
    ensure!(matches!(overtaken, Err(Error::Overtaken(_))), "{overtaken:?}");
    // It has to read again before it may write.
    ensure!(matches!(old.write(&mine, &third).await, Err(Error::Overtaken(_))));
    ensure!(old.read(&mine).await? == Page::Written(Box::new(second)));
    old.write(&mine, &third).await?;

    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), release::NAMESPACE);
    let name = format!("{}-budgets-{}", release::NAME, mine.place(BOOKS));
    maps.delete(&name, &DeleteParams::default()).await?;
    let lost = new.read(&mine).await?;
    ensure!(matches!(lost, Page::Lost(Some(_))), "{lost:?}");
    new.write(&mine, &third).await?;
    ensure!(old.read(&mine).await? == Page::Written(Box::new(third)));
    Ok(())
}

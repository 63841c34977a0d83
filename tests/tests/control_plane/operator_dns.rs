//! Advice on DNS on a real API server: the operator asks a name server, and a person reads what to publish.

use anyhow::{Context, Result, ensure};
use e2e::replica::{Running, flags, install_chart, until};
use e2e::scene::{PATIENCE, condition_of, release, workload};
use e2e::{Cluster, Tier, wait_for};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use mailroute_m365::dns::zone::{Data, Record};
use mailroute_m365::{Options, Simulator};
use mailroute_operator::pki::Lifetimes;
use mailroute_operator_core::crd::MailRoute;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_domain_lacks_is_told_and_what_has_everything_is_in_order() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    install_chart(&cluster, &[]).await?;
    let shop = cluster.namespace("dns", &[]).await?;
    let simulator = Simulator::start(Options::default()).await?;
    simulator.config(|config| config.dns.records = records());

    let server = simulator.dns_address().to_string();
    let flags = flags(&cluster, 0, &["--nameserver", &server])?;
    let mut replica = Running::start(&cluster, flags, Lifetimes::default()).await?;

    let routes: Api<MailRoute> = Api::namespaced(cluster.client(), shop.name());
    let mut route = workload::route("notifications", shop.name());
    apply(&routes, &mut route, "noreply@alerts.contoso.com").await?;
    let told = wait_for(routes.clone(), "notifications", |route| says(route, "False"), PATIENCE).await?;
    let condition = condition_of(&told, "DnsPublished").context("the condition")?;
    ensure!(condition.reason == "SpfMissing", "{condition:?}");
    let record = "publish TXT alerts.contoso.com \"v=spf1 include:spf.protection.outlook.com -all\".";
    ensure!(condition.message.contains(record), "{condition:?}");
    ensure!(condition_of(&told, "Accepted").is_some_and(|accepted| accepted.status == "True"), "{told:?}");
    ensure!(
        condition_of(&told, "Ready").is_some_and(|ready| ready.reason == "NoPods"),
        "advice touched Ready: {told:?}"
    );
    let events: Api<Event> = Api::namespaced(cluster.client(), shop.name());
    let of_dns = |event: &Event| event.reason.as_deref() == Some("SpfMissing");
    until(async || {
        let listed = events.list(&ListParams::default()).await?;
        ensure!(listed.iter().filter(|event| of_dns(event)).count() == 1, "not one Event of it: {listed:?}");
        Ok(())
    })
    .await?;

    apply(&routes, &mut route, "noreply@contoso.com").await?;
    let told = wait_for(routes, "notifications", |route| says(route, "True"), PATIENCE).await?;
    let condition = condition_of(&told, "DnsPublished").context("the condition")?;
    ensure!(condition.reason == "DnsPublished", "{condition:?}");
    ensure!(!replica.has_ended(), "the replica ended");
    shop.finish()
}

/// contoso.com publishes everything, and the simulator its MX record; alerts.contoso.com an MX record alone.
fn records() -> Vec<Record> {
    let record = |name: &str, data| Record { name: name.into(), data };
    let text = |name: &str, text: &str| record(name, Data::Txt(text.into()));
    let selector = |selector: &str, domain: &str| {
        let target = format!("{selector}-contoso-com._domainkey.contoso.onmicrosoft.com");
        record(&format!("{selector}._domainkey.{domain}"), Data::Cname(target))
    };
    let host = "contoso-com.mail.protection.outlook.com".to_owned();
    vec![
        text("contoso.com", "v=spf1 include:spf.protection.outlook.com -all"),
        text("spf.protection.outlook.com", "v=spf1 ip4:40.92.0.0/15 -all"),
        text("_dmarc.contoso.com", "v=DMARC1; p=none"),
        selector("selector1", "contoso.com"),
        selector("selector2", "contoso.com"),
        record("alerts.contoso.com", Data::Mx { preference: 0, host }),
        selector("selector1", "alerts.contoso.com"),
        selector("selector2", "alerts.contoso.com"),
    ]
}

async fn apply(routes: &Api<MailRoute>, route: &mut serde_json::Value, mailbox: &str) -> Result<()> {
    let domain = mailbox.rsplit_once('@').context("an address")?.1;
    route["spec"]["tenant"]["acceptedDomains"] = json!([domain]);
    route["spec"]["clientSubmission"]["mailbox"] = json!(mailbox);
    let patch = Patch::Apply(&*route);
    routes.patch("notifications", &PatchParams::apply("test"), &patch).await?;
    Ok(())
}

fn says(route: &MailRoute, status: &str) -> bool {
    condition_of(route, "DnsPublished").is_some_and(|condition| condition.status == status)
}

//! What the chart's ServiceAccount may do, as a real API server answers `kubectl auth can-i --list`: what is on the list of rights,
//! and nothing beside it from anywhere else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::replica::{client_as, install_chart};
use e2e::scene::{PATIENCE, release};
use e2e::{Cluster, Tier, wait_for};
use k8s_openapi::api::authorization::v1::{
    SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};

/// `<role>: <verbs> <group>/<resource> [<names>]`.
const GRANTED: &str = include_str!("../rights.txt");

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_allows_what_is_on_the_list_and_nothing_else() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    release::install_definitions(&cluster).await?;
    install_chart(&cluster, &[]).await?;
    // An account that nobody has given anything.
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), release::NAMESPACE);
    wait_for(accounts, "default", |_| true, PATIENCE).await?;
    let (operator, anybody) =
        (client_as(&cluster, release::NAME).await?, client_as(&cluster, "default").await?);
    for namespace in [release::NAMESPACE, "default"] {
        let (ours, everybodys) = (rules(&operator, namespace).await?, rules(&anybody, namespace).await?);
        let ours: BTreeSet<_> = ours.difference(&everybodys).cloned().collect();
        let listed = listed(namespace);
        let more: Vec<_> = ours.difference(&listed).collect();
        let missing: Vec<_> = listed.difference(&ours).collect();
        ensure!(
            more.is_empty() && missing.is_empty(),
            "in {namespace}: too much {more:#?}, missing {missing:#?}"
        );
    }
    Ok(())
}

/// What the list says of a namespace.
fn listed(namespace: &str) -> BTreeSet<String> {
    let here = ["ClusterRole mailroute".to_owned(), format!("Role {namespace}/mailroute")];
    let rules = GRANTED.lines().filter_map(|line| line.split_once(": "));
    rules.filter(|(role, _)| here.iter().any(|it| it == role)).map(|(_, rule)| rule.to_owned()).collect()
}

/// What a client may do in a namespace, a line for each resource of each rule.
async fn rules(client: &Client, namespace: &str) -> Result<BTreeSet<String>> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let reviews = Api::<SelfSubjectRulesReview>::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    let SubjectRulesReviewStatus { incomplete, non_resource_rules, resource_rules, .. } =
        answer.status.context("an answered review has a status")?;
    ensure!(!incomplete, "the API server does not know all rules");
    let mut lines = BTreeSet::new();
    for rule in resource_rules {
        let names = rule.resource_names.unwrap_or_default().join(",");
        let names = if names.is_empty() { names } else { format!(" [{names}]") };
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.iter().flatten() {
                lines.insert(format!("{} {group}/{resource}{names}", rule.verbs.join(",")));
            }
        }
    }
    for rule in non_resource_rules {
        let urls = rule.non_resource_urls.unwrap_or_default();
        lines.extend(urls.iter().map(|url| format!("{} {url}", rule.verbs.join(","))));
    }
    Ok(lines)
}

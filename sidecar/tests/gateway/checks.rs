//! Whether a gateway can be reached is known before a message needs it, and an error is forgotten when it is over.

use mailroute_route::control::Report;
use mailroute_route::file::DeliveryMode::DeliverOrQueue;
use mailroute_route::file::Durability;
use mailroute_sidecar::cli::health_check;

use crate::authority::certified;
use crate::backlog::nobody;
use crate::kept::down;
use crate::pods::{ANN, Pod, Pods};
use crate::scene::PATIENCE;

/// Waits until this is what the pod reports.
async fn met(pod: &Pod, what: &str) {
    let mut errors = pod.app.gateways().error();
    let met = errors.wait_for(|error| error.as_ref().is_some_and(|error| error.contains(what)));
    let met = tokio::time::timeout(PATIENCE, met).await.map(drop);
    assert!(met.is_ok(), "{:?}", pod.app.gateways().error().borrow());
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_reported_before_there_is_any_mail() {
    let address = nobody();
    let pods = Pods::new(&address, DeliverOrQueue).await;
    let sidecar = pods.sidecar().await;
    met(&sidecar, &address).await;
    let mut reports = pods.control.reports.clone();
    let names = |report: &Report| report.gateway_error.as_ref().is_some_and(|met| met.contains(&address));
    let told = reports.wait_for(|all| all.iter().any(names));
    drop(tokio::time::timeout(PATIENCE, told).await.expect("the operator is told").unwrap());
    let _gateway = pods.gateway(&address).await;
    sidecar.well().await;
}

#[tokio::test]
async fn an_error_that_a_message_met_is_over_without_another_message() {
    let (mut pods, gateway) = Pods::with_gateway(DeliverOrQueue).await;
    pods.route.delivery.durability = Durability::Gateway;
    let address = gateway.gateway_address().to_string();
    let sidecar = pods.sidecar().await;
    sidecar.well().await;
    gateway.stopped().await;
    down(&pods.m365, true).await;
    assert_eq!(sidecar.send(&[ANN], "refused").await.code, 451);
    assert!(sidecar.app.gateways().has_error());
    let _gateway = pods.gateway(&address).await;
    sidecar.well().await;
}

#[tokio::test]
async fn a_pod_without_a_certificate_says_so_and_a_gateway_is_not_ready() {
    let (pods, _gateway) = Pods::with_gateway(DeliverOrQueue).await;
    let bare = pods.without_certificate(&["--gateway", "127.0.0.1:0"]).await;
    met(&bare, "not issued a certificate").await;
    assert_eq!(probe(&bare, false).await, Ok(()), "a restart would not help");
    let unready = probe(&bare, true).await.unwrap_err();
    assert!(unready.contains("not issued a certificate"), "{unready}");
    bare.app.identity().set(certified(bare.pem()));
    assert_eq!(probe(&bare, true).await, Ok(()));
    bare.well().await;

    let serving =
        pods.without_certificate(&["--gateway", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0"]).await;
    met(&serving, "not issued a certificate").await;
    assert_eq!(probe(&serving, true).await, Ok(()), "those who log in need no certificate of ours");
    let sidecar = pods.without_certificate(&[]).await;
    met(&sidecar, "not issued a certificate").await;
    assert_eq!(probe(&sidecar, true).await, Ok(()), "mail is taken on localhost all the same");
}

/// What the kubelet's probe says.
async fn probe(pod: &Pod, is_ready: bool) -> Result<(), String> {
    let (spool, admin) = (pod.files.path(""), pod.app.admin_address());
    let ask = if is_ready { health_check::ask_ready } else { health_check::ask };
    let asked = tokio::task::spawn_blocking(move || ask(&spool, admin));
    asked.await.unwrap().map_err(|error| error.to_string())
}

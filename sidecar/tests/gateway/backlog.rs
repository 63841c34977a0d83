//! `durability: Gateway`: what waits in a pod all the same is handed over while the pod runs.

use mailroute_m365::Stage;
use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::file::{Durability, GatewayUnavailable};
use mailroute_route::identity::Role;

use crate::kept::{down, reply};
use crate::pods::{ANN, BOB, Pods, patient, stored};
use crate::scene::Files;

/// An address at which nobody listens.
pub fn nobody() -> String {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn what_a_pod_keeps_during_an_outage_of_the_gateway_is_handed_over_afterwards() {
    let address = nobody();
    let mut pods = Pods::new(&address, Queue).await;
    pods.route.delivery.durability = Durability::Gateway;
    pods.route.delivery.gateway_unavailable = GatewayUnavailable::Pod;
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], patient(), Files::new()).await;
    down(&pods.m365, true).await;
    for n in 0..5 {
        sidecar.queued(&[ANN], &format!("m{n}")).await;
    }
    assert_eq!(stored(&sidecar.files, "queue"), 5);
    let gateway = pods.gateway(&address).await;
    gateway.figures(|figures| figures.messages == 5).await;
    sidecar.figures(|figures| figures.messages == 0).await;
    assert_eq!(stored(&sidecar.files, "queue"), 0);
    // The pod goes without a word.
    drop(sidecar);
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn what_waited_before_the_route_wanted_a_gateway_is_handed_over_too() {
    let (mut pods, gateway) = Pods::with_gateway(Queue).await;
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], patient(), Files::new()).await;
    pods.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let dead = sidecar.queued(&[ANN], "unknown").await;
    sidecar.figures(|figures| figures.dead_letters == 1).await;
    down(&pods.m365, true).await;
    // Another recipient: the refusal of the first one is remembered.
    let waiting = sidecar.queued(&[BOB], "waiting").await;
    assert!(!gateway.app.queue().knows(&waiting), "with durability Pod it stays");
    pods.route.delivery.durability = Durability::Gateway;
    sidecar.files.write_route(&pods.route);
    sidecar.figures(|figures| figures.messages + figures.dead_letters == 0).await;
    assert!(gateway.app.queue().knows(&waiting));
    assert_eq!(gateway.app.queue().list_dead(), [dead]);
}

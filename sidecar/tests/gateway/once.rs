//! A message that is handed over twice is kept and delivered once, over restarts of either side.

use std::net::SocketAddr;
use std::sync::Arc;

use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::identity::Role;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::client::{Gateways, HandOverError, Offer};
use mailroute_sidecar::gateway::identity::Identity;
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::metrics::Metrics;
use mailroute_sidecar::spool::{Entry, Progress, RecipientStatus, Shelf};
use tokio::sync::watch;

use crate::authority::certified;
use crate::child;
use crate::client::message;
use crate::kept::down;
use crate::pods::{Pods, stored};

/// A sidecar's connections to the gateway, and nothing else of it.
pub fn gateways(pods: &Pods, role: Role, route: &str) -> Arc<Gateways> {
    let (sender, gateways) = with_config(pods, role, route);
    // The route does not change.
    std::mem::forget(sender);
    gateways
}

/// The same, and what changes the route.
fn with_config(pods: &Pods, role: Role, route: &str) -> (watch::Sender<Config>, Arc<Gateways>) {
    let (sender, config) = watch::channel(config(pods));
    let identity = Identity::new(config, role);
    identity.set(certified(&pods.authority.signed(role, route, "web-0")));
    (sender, Gateways::new(identity, None, Arc::new(Metrics::new().unwrap())))
}

fn config(pods: &Pods) -> Config {
    Config { route: Some(Arc::new(pods.route.clone())), ..Config::default() }
}

/// Message number `n`, as a sidecar has it.
pub fn sample(n: u64) -> (Entry, Body) {
    let entry = child::entry(n);
    (entry, Body::new("", message(&format!("m{n}")).into_bytes()))
}

pub async fn give(gateways: &Gateways, n: u64) -> Result<SocketAddr, HandOverError> {
    let (entry, body) = sample(n);
    let progress = Progress::fresh(&entry);
    gateways.hand_over(Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body }).await
}

#[tokio::test]
async fn a_message_that_comes_twice_is_kept_and_delivered_once() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    for _ in 0..2 {
        give(&sidecar, 1).await.unwrap();
    }
    assert_eq!(gateway.app.queue().figures().messages, 1);
    let gateway = gateway.restarted().await;
    give(&sidecar, 1).await.unwrap();
    assert_eq!(gateway.app.queue().figures().messages, 1);
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    give(&sidecar, 1).await.unwrap();
    // The ids of those that are gone are remembered.
    let gateway = gateway.restarted().await;
    give(&gateways(&pods, Role::Sidecar, &pods.route.name), 1).await.unwrap();
    assert_eq!(gateway.app.queue().figures().messages, 0);
    give(&sidecar, 2).await.unwrap();
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["m1", "m2"]);
}

#[tokio::test]
async fn a_message_that_went_to_another_gateway_may_come_back() {
    let pods = Pods::new("gateway.invalid", Queue).await;
    // Over IPv6.
    let (first, second) = pods.two_gateways("[::1]:0").await;
    let both = vec![first.gateway_address(), second.gateway_address()];
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    sidecar.dial(vec![first.gateway_address()]);
    give(&sidecar, 1).await.unwrap();
    let first = first.restarted().await;
    assert_eq!((first.app.queue().figures().messages, second.app.queue().figures().messages), (0, 1));
    first.app.gateways().dial(both.clone());
    let second = second.restarted().await;
    assert_eq!((first.app.queue().figures().messages, second.app.queue().figures().messages), (1, 0));
    down(&pods.m365, false).await;
    first.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.arrived(), ["m1"]);
}

#[tokio::test]
async fn what_came_of_an_attempt_elsewhere_is_taken_in() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    let address = give(&sidecar, 1).await.unwrap();
    let (entry, _) = sample(1);
    let id = &entry.envelope.id;
    let hour = jiff::SignedDuration::from_hours(1);
    let later = Progress { next: jiff::Timestamp::now() + hour, attempts: 3, ..Progress::fresh(&entry) };
    let told = |progress: Progress| {
        let sidecar = Arc::clone(&sidecar);
        async move {
            // Refused while the gateway itself tries the message.
            while let Err(error) = sidecar.update(address, id, &progress).await {
                assert!(matches!(error, HandOverError::Deferred { .. }), "{error}");
            }
        }
    };
    let mut half = later.clone();
    half.statuses[0] = RecipientStatus::Delivered;
    told(half.clone()).await;
    assert_eq!(gateway.app.queue().show(id).await.unwrap().kept.progress.statuses, half.statuses);
    let mut done = half;
    done.statuses[1] = RecipientStatus::Delivered;
    told(done.clone()).await;
    assert_eq!(gateway.app.queue().figures().messages, 0);
    // A second time it is gone already, and one that never was here is unknown.
    told(done.clone()).await;
    let (other, _) = sample(2);
    let error = sidecar.update(address, &other.envelope.id, &done).await.unwrap_err();
    assert!(matches!(error, HandOverError::Refused { .. }), "{error}");
    down(&pods.m365, false).await;
    assert!(pods.m365.messages().is_empty());
}

#[tokio::test]
async fn what_the_pod_has_delivered_before_it_offers_a_message_again_is_not_delivered_again() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    give(&sidecar, 1).await.unwrap();
    // The answer was lost, and the pod has tried the message itself.
    let (entry, body) = sample(1);
    let mut progress = Progress { attempts: 1, ..Progress::fresh(&entry) };
    progress.statuses[0] = RecipientStatus::Delivered;
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    // Refused while the gateway itself tries the message.
    while let Err(error) = sidecar.hand_over(offer).await {
        assert!(matches!(error, HandOverError::Deferred { .. }), "{error}");
    }
    down(&pods.m365, false).await;
    gateway.figures(|figures| figures.messages == 0).await;
    assert_eq!(pods.recipients(), [["c@d.example"]]);
}

#[tokio::test]
async fn a_message_goes_on_to_another_gateway_with_its_reservation() {
    let pods = Pods::new("gateway.invalid", Queue).await;
    let (first, second) = pods.two_gateways("127.0.0.1:0").await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    sidecar.dial(vec![first.gateway_address()]);
    let (entry, body) = sample(1);
    let reserved_until = Some(jiff::Timestamp::now() + jiff::SignedDuration::from_mins(2));
    let progress = Progress { reserved_until, ..Progress::fresh(&entry) };
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    sidecar.hand_over(offer).await.unwrap();
    let (files, _) = first.stopped().await;
    assert_eq!((stored(&files, "queue"), second.app.queue().figures().messages), (0, 1));
    // Another message goes, this one does not.
    sidecar.dial(vec![second.gateway_address()]);
    give(&sidecar, 2).await.unwrap();
    second.figures(|figures| figures.messages == 1).await;
    assert_eq!(pods.arrived(), ["m2"]);
    let kept = second.app.queue().show(&entry.envelope.id).await.unwrap().kept;
    assert_eq!(kept.progress.reserved_until, reserved_until);
}

#[tokio::test]
async fn it_reaches_the_gateway_that_has_the_message_by_then() {
    let pods = Pods::new("gateway.invalid", Queue).await;
    let (first, second) = pods.two_gateways("127.0.0.1:0").await;
    let both = vec![first.gateway_address(), second.gateway_address()];
    down(&pods.m365, true).await;
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    sidecar.dial(vec![first.gateway_address()]);
    let address = give(&sidecar, 1).await.unwrap();
    first.stopped().await;
    assert_eq!(second.app.queue().figures().messages, 1);
    sidecar.dial(both);
    let (entry, _) = sample(1);
    let mut done = Progress::fresh(&entry);
    done.statuses.fill(RecipientStatus::Delivered);
    // Refused while the gateway itself tries the message.
    while let Err(error) = sidecar.update(address, &entry.envelope.id, &done).await {
        assert!(matches!(error, HandOverError::Deferred { .. }), "{error}");
    }
    assert_eq!(second.app.queue().figures().messages, 0);
}

#[tokio::test]
async fn a_rotation_of_the_ca_stops_nothing() {
    let (mut pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let before = gateways(&pods, Role::Sidecar, &pods.route.name);
    give(&before, 1).await.unwrap();
    let (old, new) = (pods.authority.pem.clone(), crate::authority::Authority::new());
    pods.route.gateway.as_mut().unwrap().ca_pem = format!("{old}{}", new.pem);
    gateway.files.write_route(&pods.route);
    while gateway.app.identity().gateway() != pods.route.gateway {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    give(&before, 2).await.unwrap();
    let with_old = gateways(&pods, Role::Sidecar, &pods.route.name);
    let old = std::mem::replace(&mut pods.authority, new);
    let with_new = gateways(&pods, Role::Sidecar, &pods.route.name);
    give(&with_old, 3).await.unwrap();
    give(&with_new, 4).await.unwrap();
    let pem = pods.authority.signed(Role::Gateway, &pods.route.name, "gateway-0");
    gateway.app.identity().set(certified(&pem));
    // Connections that are open go on, and new ones see the new certificate.
    give(&with_old, 5).await.unwrap();
    for n in 6..8 {
        give(&gateways(&pods, Role::Sidecar, &pods.route.name), n).await.unwrap();
    }
    drop(old);
    assert_eq!(gateway.app.queue().figures().messages, 7);
}

#[tokio::test]
async fn an_open_connection_is_not_used_for_a_route_that_has_changed() {
    let (mut pods, first) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let second = pods.gateway("127.0.0.1:0").await;
    let (route, sidecar) = with_config(&pods, Role::Sidecar, &pods.route.name);
    assert_eq!(give(&sidecar, 1).await.unwrap(), first.gateway_address());
    pods.found_at(&second.gateway_address().to_string());
    route.send_replace(config(&pods));
    assert_eq!(give(&sidecar, 2).await.unwrap(), second.gateway_address());
    pods.route.gateway = None;
    route.send_replace(config(&pods));
    let error = give(&sidecar, 3).await.unwrap_err();
    assert!(matches!(error, HandOverError::Identity(_)), "{error}");
}

#[tokio::test]
async fn pods_of_other_routes_and_without_a_certificate_of_the_ca_get_nowhere() {
    let (mut pods, gateway) = Pods::with_gateway(Queue).await;
    let stranger = gateways(&pods, Role::Sidecar, "other");
    let error = give(&stranger, 1).await.unwrap_err();
    assert!(matches!(error, HandOverError::Unreachable { .. }), "{error}");
    // A CA that the gateway does not know; nor does the sidecar know the gateway's.
    pods.authority = crate::authority::Authority::new();
    let error = give(&gateways(&pods, Role::Sidecar, &pods.route.name), 1).await.unwrap_err();
    assert!(matches!(error, HandOverError::Unreachable { .. }), "{error}");
    pods.route.gateway.as_mut().unwrap().ca_pem = pods.authority.pem.clone();
    let error = give(&gateways(&pods, Role::Sidecar, &pods.route.name), 1).await.unwrap_err();
    assert!(matches!(error, HandOverError::Unreachable { .. }), "{error}");
    assert_eq!(gateway.app.queue().figures().messages, 0);
}

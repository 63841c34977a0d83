//! What waits in a pod although its route wants it on a gateway's volume: handed over while the pod runs.
//!
//! Such messages were accepted while no gateway could be reached (`gatewayUnavailable: Pod`), or before the route was switched to
//! `durability: Gateway`. Dead letters from those times go too.
//!
//! Bounds: one message at a time, one pass in a while; a pass ends with the first message that no gateway can be reached for.

use std::sync::Arc;
use std::time::Duration;

use mailroute_route::file::Durability;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::Gateways;
use super::flush::Flush;
use crate::config::Config;
use crate::queue::Queue;

/// Hands over what waits, with this pause between two passes, until `stop`.
pub async fn run(
    queue: Arc<Queue>,
    gateways: Arc<Gateways>,
    config: watch::Receiver<Config>,
    pause: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let flush = Flush::new(&queue, &gateways, 1, None);
    while timeout(pause, stop.wait_for(|&stop| stop)).await.is_err() {
        let figures = queue.figures();
        if is_wanted(&config.borrow()) && figures.messages + figures.dead_letters > 0 {
            flush.pass(&stop).await;
        }
    }
}

/// Whether messages that wait have to be at a gateway.
fn is_wanted(config: &Config) -> bool {
    config
        .route
        .as_deref()
        .is_some_and(|route| route.gateway.is_some() && route.delivery.durability == Durability::Gateway)
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::Gateway;

    use super::*;
    use crate::config;

    #[test]
    fn only_a_route_that_wants_it_has_a_backlog() {
        let with = |durability, gateway: Option<Gateway>| {
            let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
            (route.delivery.durability, route.gateway) = (durability, gateway);
            is_wanted(&Config { route: Some(Arc::new(route)), ..Config::default() })
        };
        let gateway = || Some(Gateway { host: "mail-gateway".into(), ca_pem: String::new() });
        assert!(with(Durability::Gateway, gateway()));
        assert!(!with(Durability::Gateway, None));
        assert!(!with(Durability::Pod, gateway()));
        assert!(!is_wanted(&Config::default()));
    }
}

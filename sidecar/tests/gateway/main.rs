//! Sidecars and gateways of one route, with certificates of a test's own CA: what is handed over, and that it is neither lost nor
//! doubled, over the ends of either side.

#![cfg(test)]

mod authority;
mod backlog;
mod checks;
mod durability;
mod ends;
mod kills;
mod memory;
mod mute;
mod once;
mod pods;
mod protocol;

#[path = "../spool/child.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod child;
#[path = "../relay/client.rs"]
mod client;
#[path = "../relay/control.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod control;
#[path = "../relay/kept.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod kept;
#[path = "../relay/route.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod route;
#[path = "../relay/scene.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod scene;

//! What gateways and their sidecars ask the control service for, answered by the whole service: certificates, and reviews of the
//! tokens that clients log in with. A server that stands in for the API server reviews tokens and counts how often it is asked.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod certificate;
mod review;
mod stage;
#[path = "../broker/stores.rs"]
mod stores;

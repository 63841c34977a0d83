//! Requests for a token as sidecars make them, answered by the whole broker: a server that stands in for the API server
//! reviews the pods' tokens, and the simulator's token endpoint checks issuer, subject, audience and time of what the
//! operator shows.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod entra;
mod log;
mod pods;
mod stage;
mod stores;

//! The control service: where sidecars report what they meet. The messages are in [`mailroute_route::control`].
//!
//! ```text
//! POST /v1/report ─► leader? ─► who calls? ─────────► how often? ─► its own route? ─► Reports ─► controller
//!                    421        TokenReview, cached    429           watched pods      (memory)
//! ```
//!
//! * [`authenticate`]: from a bearer token to a pod.
//! * [`leases`], [`mailbox`] and [`ledger_store`]: each sidecar's share of its mailbox's limits, and where that is stored.
//!   What is granted is decided in [`mailroute_quota::server`]. [`ids`]: digests of mailboxes and pods.
//! * [`reports`]: the newest report of each pod. Pure.
//! * [`server`]: HTTP in and out.
//!
//! Invariants: who calls is taken from the token alone. A pod reports for the route of its own label only. Memory is
//! bounded by the number of watched pods. Reports live in memory: after a change of leader they come in again. What
//! mailboxes have sent does not: it is stored before more is granted.

pub mod authenticate;
pub mod ids;
pub mod leases;
pub mod ledger_store;
pub mod mailbox;
pub mod reports;
pub mod server;

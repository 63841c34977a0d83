//! The admission webhook: `POST /inject` with an AdmissionReview of a pod, answered with a patch or with a reason.
//!
//! ```text
//! API server ──► pki::TlsListener ──► read (bounded) ──► Review::decode ──► Routes::find ──► inject::plan ─► patch
//!                                                                                              └► refusal
//! ```
//! * [`review`]: AdmissionReview in and out. [`routes`]: the watched routes. [`server`]: the service.
//! [`refusals`]: notes on the route who was refused, after the answer.
//!
//! Invariants: no call to the API server before the answer; an answer, whatever happens, before the API server's
//! patience of five seconds ends; no more than a bounded number of bodies in memory; a dry run leaves no trace.

pub mod refusals;
pub mod review;
pub mod routes;
pub mod server;

pub use routes::Routes;
pub use server::{Webhook, router};

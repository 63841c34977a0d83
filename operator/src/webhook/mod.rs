//! The admission webhook: `POST /inject` with an AdmissionReview of a pod, answered with a patch or with a reason.
//!
//! ```text
//! API server ──► crate::server ──► read (bounded) ──► Review::decode ──► Routes::find ──► inject::plan ─► patch
//!                                                                                           └► refusal
//! ```
//! * [`review`]: AdmissionReview in and out. [`routes`]: the watched routes. [`server`]: the service. `weight`: how much
//!   memory a body takes once it is read. [`refusals`]: notes on the route who was refused, after the answer.
//!
//! Invariants: no call to the API server before the answer; an answer, whatever happens, within the five seconds that the API
//! server waits; bounded memory for requests, of each address and in all; a dry run leaves no trace.

pub mod configuration_check;
pub mod kubernetes;
pub mod refusals;
pub mod review;
pub mod routes;
pub mod server;
mod weight;

pub use routes::AwaitedRoutes;
pub use server::{LabelOwner, Webhook, router};

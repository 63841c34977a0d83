//! The control service: where sidecars report what they meet, and are told what they may send of their mailbox's limits; where
//! they get access tokens by the operator's own identity; and where they and gateways get the certificates by which they know each
//! other. The messages are in [`mailroute_route::control`].
//!
//! ```text
//! POST /v1/report ─► leader? ─► who calls? ─────────► how often? ─► its own route? ─► Reports ─► controller
//!                    421        TokenReview, cached    429           watched pods      (memory)
//! POST /v1/token ──────────────► who calls? ─────────► how often? ─► its own route? ─► may the route? ─► token cache ─► Entra
//!                                401                    429           403               403
//! POST /v1/certificate ────────► who calls? ─────────► how often? ─► its own route? ─► a gateway? ─► pki
//! POST /v1/review ─────────────► who calls? ─────────► how often? ─► is it a gateway? ─► TokenReview, cached
//! ```
//!
//! * [`authenticate`]: from a bearer token to a pod. `token_review`: what the API server says of a token. [`request`]: what all
//!   requests but reports have in common.
//! * [`report`]: HTTP in and out of reports. [`lease`], [`mailbox`], [`application`] and [`ledger_store`]: each sidecar's share of its mailbox's
//!   limits, and where that is stored. What is granted is decided in [`mailroute_quota::server`]. [`ids`]: digests of mailboxes and
//!   pods.
//! * [`token`]: HTTP in and out of tokens, and the line in the log for each grant and each refusal. [`token_cache`]: the token of
//!   each application. [`token_transport`]: the connection to Entra.
//! * [`certificate`]: certificates by which sidecars and gateways of a route know each other. [`review`]: whose token a client has
//!   shown to a gateway.
//!
//! One federated credential, for the operator's ServiceAccount, serves any number of namespaces; Entra allows twenty for an
//! application. Which applications there are, and who may use them, is in
//! [`mailroute_operator_core::resolve::operator_identity`].
//!
//! Invariants: who calls is taken from the token alone. A pod reports for the route of its own label only. Memory is bounded by
//! the number of watched pods, and of applications. Reports live in memory: after a change of leader they come in again. What
//! mailboxes have sent does not: it is written down before more is given out. Without settings nobody gets a token. Authority,
//! tenant, application and SMTP server of a token come from the settings alone, so that no route can carry the operator's
//! assertion or its tokens elsewhere. A token is in memory and in the answer over TLS, nowhere else.

pub mod application;
pub mod authenticate;
pub mod certificate;
mod claimed;
pub mod ids;
pub mod lease;
pub mod ledger_store;
pub mod mailbox;
pub mod report;
pub mod request;
pub mod review;
pub mod token;
pub mod token_cache;
mod token_review;
pub mod token_transport;

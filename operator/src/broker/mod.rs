//! The broker: access tokens had with the operator's own identity, handed to the pods of the routes that may use it.
//!
//! One federated credential, for the operator's ServiceAccount, then serves any number of namespaces; Entra allows twenty
//! for an application.
//!
//! ```text
//! POST /v1/token ─► who calls? ─► how often? ─► its own route? ─► may the route? ─► Vault ─► Entra
//!                   TokenReview    429           watched pods       Settings          one token for each
//!                   401                          403                403               application, one question at a time
//! ```
//!
//! * [`settings`]: which applications there are, and who may use them. From a file, read at the start. Pure.
//! * [`vault`]: the token of each application.
//! * [`transport`]: the connection to Entra.
//! * [`desk`]: HTTP in and out, and the line in the log for each grant and each refusal.
//!
//! Invariants: without settings nobody gets anything. Authority, tenant, application and SMTP server of a token come from
//! the settings alone, so that no route can carry the operator's assertion or its tokens elsewhere. Memory is bounded by the
//! number of applications. A token is in memory and in the answer over TLS, nowhere else.

pub mod desk;
pub mod settings;
pub mod transport;
pub mod vault;

//! Access tokens of the route's application.
//!
//! * [`credential`]: what the application proves itself with, from files: service-account token, client secret, or a
//!   certificate, by which it [signs](signed) an assertion of its own.
//! * `transport`: the connection to the authority.
//! * [`proxy`]: the token proxy asked in its place, for pods with an AKS identity binding.
//! * [`broker`]: the operator asked in its place, for routes that use its identity.
//! * [`sources`]: who of them is asked for which credential.
//!
//! What is the same for everybody who asks Entra for tokens, is in the crate `entra`: exchange, store, and the meaning of
//! Entra's errors. Knows nothing of mail.

pub mod broker;
pub mod credential;
pub mod proxy;
pub mod signed;
pub mod sources;
mod transport;

pub use mailroute_entra::{Failure, Token, TokenSource, aadsts, store};
pub use sources::Sources;

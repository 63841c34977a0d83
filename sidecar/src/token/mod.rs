//! Access tokens of the route's application.
//!
//! * [`credential`]: what the application proves itself with, from files: service-account token, client secret, or a
//!   certificate, by which it [signs](signed) an assertion of its own.
//! * `direct`: the connection to the authority.
//! * [`broker`]: the operator asked in its place, for routes that use its identity.
//!
//! What is the same for everybody who asks Entra for tokens, is in the crate `entra`: exchange, store, and the meaning of
//! Entra's errors. Knows nothing of mail.

pub mod broker;
pub mod credential;
mod direct;
pub mod signed;

use std::sync::Arc;

use mailroute_entra::application::Application;
pub use mailroute_entra::{Failure, Token, TokenSource, aadsts, store};
use mailroute_route::file::{Authority, Credential};

use tokio::sync::watch;

use self::broker::Broker;
use self::direct::Direct;
use crate::config::Config;
use crate::net::tls::Trust;

/// What issues tokens to the application of `credential`; none for a password, which no token is had with. `config` says
/// where the operator is.
pub fn source_for(
    credential: &Credential,
    authority: &Authority,
    config: &watch::Receiver<Config>,
) -> Option<Arc<dyn TokenSource>> {
    if matches!(credential, Credential::Operator { .. }) {
        return Some(Arc::new(Broker::new(config.clone())));
    }
    let (client_id, proof) = credential::Proof::of(credential)?;
    let transport = Arc::new(Direct(Trust::from_file(authority.ca_file.as_ref())));
    Some(Arc::new(Application::new(authority.clone(), client_id, proof, transport)))
}

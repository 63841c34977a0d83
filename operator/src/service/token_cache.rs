//! The token of each application: asked for once, used by all, refreshed ahead of its end.
//!
//! Owns one store for each application of the settings, and limits how often pods may have a new token requested. Does not know who
//! gets a token.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_entra::application::Application as Identity;
use mailroute_entra::clock::{self, Instant};
use mailroute_entra::federated::Federated;
use mailroute_entra::secret::Secret;
use mailroute_entra::store::{Observe, Store};
use mailroute_entra::{Failure, Token};
use mailroute_operator_core::resolve::operator_identity::Application;
use mailroute_route::condition::Reason;
use ring::digest::{SHA256, digest};

use super::token_transport::{BundleError, Https, Proxy};
use crate::lock;
use crate::metrics::Metrics;

/// Pods that had a token refused get another one at most this often: a mailbox that lacks a permission refuses every
/// token, and must not make all others' requests slow at Entra.
const RENEWAL: Duration = Duration::from_secs(60);

/// The tokens of all applications.
pub struct TokenCache(Vec<(Application, Held)>);

struct Held {
    store: Arc<Store>,
    /// When a refused token last made it ask anew.
    renewed: Mutex<Option<Instant>>,
}

impl TokenCache {
    /// Empty; nothing is asked for before the first use. The operator's assertion is read from `token_file` each time, and
    /// shown to Entra through `proxy`.
    ///
    /// # Errors
    /// When a `caPem` of the settings holds no certificate.
    pub fn new(
        applications: &[Application],
        token_file: &Path,
        proxy: &Proxy,
        metrics: &Metrics,
    ) -> Result<Self, BundleError> {
        let held = |application: &Application| {
            let transport =
                Arc::new(Https::trusting(application.authority.ca_pem.as_deref(), proxy.clone())?);
            let proof = Federated { file: token_file.to_owned(), whose: "the operator's" };
            let client_id = application.client_id.clone();
            let told = Told { client_id: client_id.clone(), metrics: metrics.clone() };
            let identity = Identity::new(application.token_authority(), client_id, proof, transport);
            let store = Store::new(Arc::new(identity), Arc::new(told));
            Ok((application.clone(), Held { store, renewed: Mutex::default() }))
        };
        applications.iter().map(held).collect::<Result<_, _>>().map(Self)
    }

    /// The token of an application of the settings; another one than that with the fingerprint `refused`, if one can be
    /// had.
    ///
    /// # Errors
    /// When there is none.
    pub async fn token(&self, application: &Application, refused: Option<&str>) -> Result<Token, Failure> {
        let held = self.0.iter().find(|(known, _)| known == application).map(|(_, held)| held);
        let unknown = || Failure::new(Reason::OperatorRefused, "the application is not one of the settings");
        let held = held.ok_or_else(unknown)?;
        let token = held.store.token().await.map_err(own)?;
        if refused == Some(fingerprint(&token.secret).as_str()) && held.may_renew(clock::now()) {
            return held.store.newer(&token).await.map_err(own);
        }
        Ok(token)
    }
}

impl Held {
    fn may_renew(&self, now: Instant) -> bool {
        let mut renewed = lock(&self.renewed);
        let may = renewed.is_none_or(|at| now.duration_since(at) >= RENEWAL);
        if may {
            *renewed = Some(now);
        }
        may
    }
}

/// The reason that a pod sees for a failure of the operator's own assertion, which differs from that for its own.
fn own(failure: Failure) -> Failure {
    match failure.reason {
        Reason::AssertionUnavailable => Failure { reason: Reason::OperatorIdentityMissing, ..failure },
        _ => failure,
    }
}

/// SHA-256 in lower-case hexadecimal digits, by which a pod says which token was refused.
fn fingerprint(token: &Secret) -> String {
    let digest = digest(&SHA256, token.expose().as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports exchanges in metrics and logs.
struct Told {
    client_id: String,
    metrics: Metrics,
}

impl Observe for Told {
    fn issued(&self, life: Duration) {
        self.metrics.token_exchanged(Reason::TokenAcquired);
        tracing::info!(
            client_id = self.client_id,
            seconds = life.as_secs(),
            "Entra issued a token to the operator"
        );
    }

    fn refused(&self, failure: &Failure) {
        let failure = own(failure.clone());
        self.metrics.token_exchanged(failure.reason);
        let (reason, error) = (failure.reason.as_str(), failure.message);
        tracing::warn!(client_id = self.client_id, reason, error, "Entra issued no token to the operator");
    }
}

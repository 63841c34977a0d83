//! Keeps this replica's certificate valid under an authority of our own: watches the Secret and the webhook configuration, and does
//! what the pure parts say is due. Calls the API server and reads the clock.
//!
//! Every replica signs and serves a leaf of its own. Only the leader changes the Secret and the `caBundle`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::anchors::Anchors;
use super::announcements::Expiry;
use super::authority::Authority;
use super::keyring::{self, Due, Keyring, Lifetimes};
use super::leaf::Leaf;
use super::pace::{LONGEST_SLEEP, Pace, SHORTEST_SLEEP, sleep_until};
use super::replica::{Keep, Replica};
use super::secret;
use super::settings::CALL;
use super::watching::replace;
use crate::api_error::ApiError;

/// The state of one replica's certificates.
pub(super) struct CaRotation {
    replica: Replica,
    lifetimes: Lifetimes,
    /// The Secret as it was read last; the outer `None` before the first answer.
    secret: Option<Option<Secret>>,
    /// The last keyring that could be read. Survives a Secret that was damaged or deleted.
    keyring: Option<Keyring>,
    /// Whether the Secret holds something that a person has to look at.
    damaged: bool,
    leaf: Option<Leaf>,
    secret_pace: Pace,
}

impl Keep for CaRotation {
    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    fn see(&mut self, seen: Option<Secret>) {
        match seen.as_ref().map(secret::read).transpose() {
            Ok(keyring) => {
                self.damaged = false;
                self.keyring = keyring.flatten();
            }
            Err(error) => {
                self.damaged = true;
                tracing::error!(secret = %self.replica.secret, %error,
                    "the CA Secret cannot be used; restore it, or delete it to create a new CA");
            }
        }
        self.secret = Some(seen);
    }

    async fn act(&mut self) -> Duration {
        if self.secret.is_none() || !self.replica.publisher.is_known() {
            return LONGEST_SLEEP;
        }
        if self.replica.leads() {
            self.rotate(Timestamp::now()).await;
            if let Some(wanted) = self.wanted() {
                self.replica.publisher.publish(&wanted, Timestamp::now()).await;
            }
        }
        let now = Timestamp::now();
        self.serve(now);
        self.announce(now);
        self.sleep(now)
    }
}

impl CaRotation {
    pub(super) fn new(replica: Replica, lifetimes: Lifetimes) -> Self {
        Self {
            replica,
            lifetimes,
            secret: None,
            keyring: None,
            damaged: false,
            leaf: None,
            secret_pace: Pace::new(),
        }
    }

    /// Everything that has to be trusted.
    fn wanted(&self) -> Option<Anchors> {
        let bundle = self.keyring.as_ref()?.bundle();
        Some(bundle.iter().map(|certificate| certificate.der().clone()).collect())
    }

    fn due(&self, now: Timestamp) -> Option<Due> {
        if self.damaged {
            return None;
        }
        let live = self.replica.publisher.live();
        keyring::due(now, self.keyring.as_ref(), &live, &self.lifetimes)
    }

    async fn rotate(&mut self, now: Timestamp) {
        let Some(due) = self.due(now).filter(|_| self.secret_pace.next() <= now) else { return };
        self.secret_pace.tried(now);
        let mint = || Authority::mint(now, self.lifetimes.ca());
        let advanced = match keyring::advance(due, self.keyring.clone(), now, mint) {
            Ok(advanced) => advanced,
            Err(error) => return tracing::error!(%error, "cannot make a certificate authority"),
        };
        let read = self.secret.as_ref().and_then(Option::as_ref);
        let write = secret::write(&self.replica.secrets, &self.replica.secret, read, &advanced);
        match tokio::time::timeout(CALL, write).await {
            Ok(Ok(written)) => {
                tracing::info!(step = ?due, signing = ?advanced.signing.certificate(), "wrote the CA Secret");
                self.secret_pace = Pace::new();
                self.see(Some(written));
            }
            // The watch brings what another wrote, and then it is decided again.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                tracing::debug!(step = ?due, "another replica wrote the CA Secret first");
            }
            Ok(Err(error)) => {
                let error = ApiError::from(error);
                tracing::warn!(step = ?due, %error, "cannot write the CA Secret; trying again");
            }
            Err(_) => tracing::warn!(step = ?due, "the API server does not answer; trying again"),
        }
    }

    fn serve(&mut self, now: Timestamp) {
        let Some(keyring) = &self.keyring else { return };
        let live = self.replica.publisher.live();
        if !Leaf::is_wanted(self.leaf.as_ref(), keyring.signing.certificate(), &live, now) {
            return;
        }
        match Leaf::sign(&keyring.signing, &self.replica.names, now, self.lifetimes.leaf()) {
            Ok(leaf) => {
                tracing::info!(authority = ?keyring.signing.certificate(), until = %leaf.not_after(),
                    "serving a new server certificate");
                self.replica.served.swap(leaf.certified());
                self.leaf = Some(leaf);
            }
            Err(error) => tracing::error!(%error, "cannot make a server certificate"),
        }
    }

    fn announce(&self, now: Timestamp) {
        let live = self.replica.publisher.live();
        let ready = self.leaf.as_ref().is_some_and(|leaf| leaf.is_trusted(&live, now));
        replace(&self.replica.announce.ready, ready);
        if let Some(keyring) = &self.keyring {
            replace(&self.replica.announce.ca_bundle, keyring.bundle().to_pem());
        }
        let expiry = Expiry {
            leaf: self.leaf.as_ref().map(Leaf::not_after),
            ca: self.keyring.as_ref().map(|keyring| keyring.signing.certificate().not_after()),
        };
        replace(&self.replica.announce.expiry, expiry);
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let leading = self.replica.leads();
        let rotation = match self.due(now) {
            Some(_) => Some(self.secret_pace.next()),
            None => self.keyring.as_ref().map(|keyring| keyring.look_again(&self.lifetimes)),
        };
        let publication = self.wanted().and_then(|wanted| self.replica.publisher.next(&wanted));
        let leader = rotation.into_iter().chain(publication).filter(|_| leading);
        let renewal = self.leaf.as_ref().map(Leaf::renew_at);
        leader.chain(renewal).min().map_or(SHORTEST_SLEEP, |next| sleep_until(next, now))
    }
}

//! Keeps this replica's certificate valid under an authority of our own: watches the Secret and the webhook configuration, and does
//! what the pure parts say is due. Reads the clock.
//!
//! Every replica signs and serves a leaf of its own. Only the leader changes the Secret and the `caBundle`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::anchors::Anchors;
use super::announcements::Expiry;
use super::keyring::Lifetimes;
use super::leaf::Leaf;
use super::pace::{LONGEST_SLEEP, SHORTEST_SLEEP, sleep_until};
use super::replica::{Keep, Replica};
use super::stored_keyring::StoredKeyring;
use super::watching::replace;

/// The state of one replica's certificates.
pub(super) struct CaRotation {
    replica: Replica,
    lifetimes: Lifetimes,
    stored: StoredKeyring,
    leaf: Option<Leaf>,
}

impl Keep for CaRotation {
    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    fn see(&mut self, seen: Option<Secret>) {
        self.stored.see(seen);
    }

    async fn act(&mut self) -> Duration {
        if !self.stored.is_known() || !self.replica.publisher.is_known() {
            return LONGEST_SLEEP;
        }
        if self.replica.leads() {
            let live = self.replica.publisher.live();
            self.stored.rotate(&live, Timestamp::now()).await;
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
    pub(super) const fn new(replica: Replica, lifetimes: Lifetimes, stored: StoredKeyring) -> Self {
        Self { replica, lifetimes, stored, leaf: None }
    }

    /// Everything that has to be trusted.
    fn wanted(&self) -> Option<Anchors> {
        let bundle = self.stored.keyring()?.bundle();
        Some(bundle.iter().map(|certificate| certificate.der().clone()).collect())
    }

    fn serve(&mut self, now: Timestamp) {
        let Some(keyring) = self.stored.keyring() else { return };
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
        if let Some(keyring) = self.stored.keyring() {
            replace(&self.replica.announce.ca_bundle, keyring.bundle().to_pem());
        }
        let expiry = Expiry {
            leaf: self.leaf.as_ref().map(Leaf::not_after),
            ca: self.stored.keyring().map(|keyring| keyring.signing.certificate().not_after()),
        };
        replace(&self.replica.announce.expiry, expiry);
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let leading = self.replica.leads();
        let rotation = self.stored.next(&self.replica.publisher.live(), now);
        let publication = self.wanted().and_then(|wanted| self.replica.publisher.next(&wanted));
        let leader = rotation.into_iter().chain(publication).filter(|_| leading);
        let renewal = self.leaf.as_ref().map(Leaf::renew_at);
        leader.chain(renewal).min().map_or(SHORTEST_SLEEP, |next| sleep_until(next, now))
    }
}

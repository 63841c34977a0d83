//! Keeps this replica's certificate good: watches the Secret and the webhook configuration, and does what the pure
//! parts say is due. The only file of this module that calls the API server or reads the clock.
//!
//! Every replica signs and serves a leaf of its own. Only the leader changes the Secret and the `caBundle`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

use super::anchors::Anchors;
use super::authority::Authority;
use super::keyring::{self, Due, Keyring};
use super::leaf::{Leaf, ServedLeaf};
use super::pace::Pace;
use super::publisher::Publisher;
use super::watching::{complain, replace, watched};
use super::{
    Announcements, CALL, Expiry, LONGEST_SLEEP, Lifetimes, SHORTEST_SLEEP, Settings, secret, sleep_until,
};
use crate::api_error::ApiError;
use crate::lease::Leadership;

/// The state of one replica's certificates.
pub(super) struct Keeper {
    settings: Settings,
    /// Name of the Secret with the authorities.
    name: String,
    lifetimes: Lifetimes,
    secrets: Api<Secret>,
    publisher: Publisher,
    leading: watch::Receiver<Leadership>,
    served: Arc<ServedLeaf>,
    announce: Announcements,
    /// The Secret as it was read last; the outer `None` before the first answer.
    secret: Option<Option<Secret>>,
    /// The last keyring that could be read. Survives a Secret that was damaged or deleted.
    keyring: Option<Keyring>,
    /// Whether the Secret holds something that a person has to look at.
    damaged: bool,
    leaf: Option<Leaf>,
    secret_pace: Pace,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        (settings, name, lifetimes): (Settings, String, Lifetimes),
        leading: watch::Receiver<Leadership>,
        served: Arc<ServedLeaf>,
        announce: Announcements,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            publisher: Publisher::new(client, &settings, announce.registration.clone()),
            settings,
            name,
            lifetimes,
            leading,
            served,
            announce,
            secret: None,
            keyring: None,
            damaged: false,
            leaf: None,
            secret_pace: Pace::new(),
        }
    }

    /// Runs until it is dropped, or until whoever decides who leads is gone.
    pub(super) async fn run(mut self) {
        let mut secrets = watched(&self.secrets, &self.name);
        let mut webhooks = self.publisher.watched();
        let mut leading = self.leading.clone();
        loop {
            let sleep = self.act().await;
            tokio::select! {
                Some(event) = secrets.next() => match event {
                    Ok(seen) => self.see_secret(seen),
                    Err(error) => complain("Secret", &self.name, &error),
                },
                Some(event) = webhooks.next() => self.publisher.hear(event),
                changed = leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn see_secret(&mut self, seen: Option<Secret>) {
        match seen.as_ref().map(secret::read).transpose() {
            Ok(keyring) => {
                self.damaged = false;
                self.keyring = keyring.flatten();
            }
            Err(error) => {
                self.damaged = true;
                tracing::error!(secret = %self.name, %error,
                    "the CA Secret cannot be used; restore it, or delete it to begin with a new CA");
            }
        }
        self.secret = Some(seen);
    }

    /// Does what is due and says how long nothing more will be.
    async fn act(&mut self) -> Duration {
        if self.secret.is_none() || !self.publisher.is_known() {
            return LONGEST_SLEEP;
        }
        if self.leading.borrow().leading {
            self.rotate(Timestamp::now()).await;
            if let Some(wanted) = self.wanted() {
                self.publisher.publish(&wanted, Timestamp::now()).await;
            }
        }
        let now = Timestamp::now();
        self.serve(now);
        self.announce(now);
        self.sleep(now)
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
        let live = self.publisher.live();
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
        let write = secret::write(&self.secrets, &self.name, read, &advanced);
        match tokio::time::timeout(CALL, write).await {
            Ok(Ok(written)) => {
                tracing::info!(step = ?due, signing = ?advanced.signing.certificate(), "the CA Secret is written");
                self.secret_pace = Pace::new();
                self.see_secret(Some(written));
            }
            // The watch brings what another wrote, and then it is decided again.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => {
                tracing::debug!(step = ?due, "the CA Secret was written by another");
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
        let live = self.publisher.live();
        if !Leaf::is_wanted(self.leaf.as_ref(), keyring.signing.certificate(), &live, now) {
            return;
        }
        match Leaf::sign(&keyring.signing, &self.settings.names, now, self.lifetimes.leaf()) {
            Ok(leaf) => {
                tracing::info!(authority = ?keyring.signing.certificate(), until = %leaf.not_after(),
                    "a new server certificate is served");
                self.served.swap(leaf.certified());
                self.leaf = Some(leaf);
            }
            Err(error) => tracing::error!(%error, "cannot make a server certificate"),
        }
    }

    fn announce(&self, now: Timestamp) {
        let live = self.publisher.live();
        let ready = self.leaf.as_ref().is_some_and(|leaf| leaf.is_trusted(&live, now));
        replace(&self.announce.ready, ready);
        if let Some(keyring) = &self.keyring {
            replace(&self.announce.ca_bundle, keyring.bundle().to_pem());
        }
        let expiry = Expiry {
            leaf: self.leaf.as_ref().map(Leaf::not_after),
            ca: self.keyring.as_ref().map(|keyring| keyring.signing.certificate().not_after()),
        };
        replace(&self.announce.expiry, expiry);
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let leading = self.leading.borrow().leading;
        let rotation = match self.due(now) {
            Some(_) => Some(self.secret_pace.next()),
            None => self.keyring.as_ref().map(|keyring| keyring.look_again(&self.lifetimes)),
        };
        let publication = self.wanted().and_then(|wanted| self.publisher.next(&wanted));
        let leader = rotation.into_iter().chain(publication).filter(|_| leading);
        let renewal = self.leaf.as_ref().map(Leaf::renew_at);
        leader.chain(renewal).min().map_or(SHORTEST_SLEEP, |next| sleep_until(next, now))
    }
}

//! Keeps this replica's certificate good: watches the Secret and the webhook configuration, and does what the pure
//! parts say is due. The only file of this module that calls the API server or reads the clock.
//!
//! Every replica signs and serves a leaf of its own. Only the leader changes the Secret and the `caBundle`.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use super::authority::Authority;
use super::bundle::Bundle;
use super::keyring::{self, Due, Keyring};
use super::leaf::{Leaf, ServedLeaf};
use super::pace::Pace;
use super::{Expiry, Settings, secret, trust};
use crate::lease::Leadership;

/// Longest call to the API server.
const CALL: Duration = Duration::from_secs(10);
/// Longest sleep: a clock that was set, or a machine that slept, is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Shortest sleep, so that a wake-up a moment too early does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// What the rest of the program learns.
pub(super) struct Announcements {
    pub(super) ca_bundle: watch::Sender<String>,
    pub(super) ready: watch::Sender<bool>,
    pub(super) expiry: watch::Sender<Expiry>,
}

/// The state of one replica's certificates.
pub(super) struct Keeper {
    settings: Settings,
    secrets: Api<Secret>,
    webhooks: Api<MutatingWebhookConfiguration>,
    leading: watch::Receiver<Leadership>,
    served: Arc<ServedLeaf>,
    announce: Announcements,
    /// The Secret as it was read last; the outer `None` before the first answer.
    secret: Option<Option<Secret>>,
    /// The last keyring that could be read. Survives a Secret that was damaged or deleted.
    keyring: Option<Keyring>,
    /// Whether the Secret holds something that a person has to look at.
    damaged: bool,
    /// The configuration as it was read last; the outer `None` before the first answer.
    configuration: Option<Option<MutatingWebhookConfiguration>>,
    leaf: Option<Leaf>,
    secret_pace: Pace,
    publish_pace: Pace,
    /// What was tried last; to try the same again means that it failed, or that another actor undid it.
    attempted: Bundle,
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        settings: Settings,
        leading: watch::Receiver<Leadership>,
        served: Arc<ServedLeaf>,
        announce: Announcements,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            webhooks: Api::all(client),
            settings,
            leading,
            served,
            announce,
            secret: None,
            keyring: None,
            damaged: false,
            configuration: None,
            leaf: None,
            secret_pace: Pace::new(),
            publish_pace: Pace::new(),
            attempted: Bundle::default(),
        }
    }

    /// Runs until it is dropped, or until whoever decides who leads is gone.
    pub(super) async fn run(mut self) {
        let mut secrets = watched(&self.secrets, &self.settings.secret);
        let mut webhooks = watched(&self.webhooks, &self.settings.webhook_configuration);
        let mut leading = self.leading.clone();
        loop {
            let sleep = self.act().await;
            tokio::select! {
                Some(event) = secrets.next() => match event {
                    Ok(seen) => self.see_secret(seen),
                    Err(error) => self.complain("Secret", &self.settings.secret, &error),
                },
                Some(event) = webhooks.next() => match event {
                    Ok(seen) => self.configuration = Some(seen),
                    Err(error) => {
                        let name = &self.settings.webhook_configuration;
                        self.complain("MutatingWebhookConfiguration", name, &error);
                    }
                },
                changed = leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn complain(&self, kind: &str, name: &str, error: &watcher::Error) {
        tracing::warn!(kind, name, %error, "cannot watch; check the operator's permissions and the API server");
    }

    fn see_secret(&mut self, seen: Option<Secret>) {
        match seen.as_ref().map(secret::read).transpose() {
            Ok(keyring) => {
                self.damaged = false;
                self.keyring = keyring.flatten();
            }
            Err(error) => {
                self.damaged = true;
                tracing::error!(secret = %self.settings.secret, %error,
                    "the CA Secret cannot be used; restore it, or delete it to begin with a new CA");
            }
        }
        self.secret = Some(seen);
    }

    /// Does what is due and says how long nothing more will be.
    async fn act(&mut self) -> Duration {
        let (Some(_), Some(_)) = (&self.secret, &self.configuration) else { return LONGEST_SLEEP };
        if self.leading.borrow().leading {
            self.rotate(Timestamp::now()).await;
            self.publish(Timestamp::now()).await;
        }
        let now = Timestamp::now();
        self.serve(now);
        self.announce(now);
        self.sleep(now)
    }

    fn live(&self) -> Option<Bundle> {
        self.configuration.as_ref()?.as_ref().and_then(trust::live)
    }

    fn due(&self, now: Timestamp) -> Option<Due> {
        if self.damaged {
            return None;
        }
        let live = self.live().unwrap_or_default();
        keyring::due(now, self.keyring.as_ref(), &live, &self.settings.lifetimes)
    }

    async fn rotate(&mut self, now: Timestamp) {
        let Some(due) = self.due(now).filter(|_| self.secret_pace.next() <= now) else { return };
        self.secret_pace.tried(now);
        let mint = || Authority::mint(now, self.settings.lifetimes.ca());
        let advanced = match keyring::advance(due, self.keyring.clone(), now, mint) {
            Ok(advanced) => advanced,
            Err(error) => return tracing::error!(%error, "cannot make a certificate authority"),
        };
        let read = self.secret.as_ref().and_then(Option::as_ref);
        let write = secret::write(&self.secrets, &self.settings.secret, read, &advanced);
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
            Ok(Err(error)) => tracing::warn!(step = ?due, %error, "cannot write the CA Secret; trying again"),
            Err(_) => tracing::warn!(step = ?due, "the API server does not answer; trying again"),
        }
    }

    /// The configuration and the bundle to write into it, when they differ.
    fn unpublished(&self) -> Option<(&MutatingWebhookConfiguration, Bundle)> {
        let configuration = self.configuration.as_ref()?.as_ref()?;
        let wanted = self.keyring.as_ref()?.bundle();
        (trust::live(configuration)? != wanted).then_some((configuration, wanted))
    }

    /// A new bundle at once; the same one again at the pace of a dispute.
    fn may_publish(&self, wanted: &Bundle, now: Timestamp) -> bool {
        self.publish_pace.next() <= now || *wanted != self.attempted
    }

    async fn publish(&mut self, now: Timestamp) {
        let Some((configuration, wanted)) =
            self.unpublished().filter(|(_, wanted)| self.may_publish(wanted, now))
        else {
            return;
        };
        let written =
            tokio::time::timeout(CALL, trust::publish(&self.webhooks, configuration, &wanted)).await;
        self.publish_pace.tried(now);
        self.attempted = wanted;
        match written {
            Ok(Ok(written)) => {
                tracing::info!(authorities = self.attempted.iter().count(), "the caBundle is published");
                self.configuration = Some(Some(written));
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot publish the caBundle; trying again"),
            Err(_) => tracing::warn!("the API server does not answer; trying again"),
        }
    }

    fn serve(&mut self, now: Timestamp) {
        let Some(keyring) = &self.keyring else { return };
        let live = self.live().unwrap_or_default();
        if !Leaf::is_wanted(self.leaf.as_ref(), keyring.signing.certificate(), &live, now) {
            return;
        }
        match Leaf::sign(&keyring.signing, &self.settings.names, now, self.settings.lifetimes.leaf()) {
            Ok(leaf) => {
                tracing::info!(authority = ?keyring.signing.certificate(), until = %leaf.not_after(),
                    "a new server certificate is served");
                self.served.swap(&leaf);
                self.leaf = Some(leaf);
            }
            Err(error) => tracing::error!(%error, "cannot make a server certificate"),
        }
    }

    fn announce(&self, now: Timestamp) {
        let live = self.live().unwrap_or_default();
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
            None => self.keyring.as_ref().map(|keyring| keyring.look_again(&self.settings.lifetimes)),
        };
        let publication = self.unpublished().map(|_| self.publish_pace.next());
        let leader = rotation.into_iter().chain(publication).filter(|_| leading);
        let renewal = self.leaf.as_ref().map(Leaf::renew_at);
        let until = leader.chain(renewal).min().map(|next| next.duration_since(now));
        let until = until.and_then(|until| Duration::try_from(until).ok()).unwrap_or(SHORTEST_SLEEP);
        until.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)
    }
}

fn watched<K>(api: &Api<K>, name: &str) -> impl Stream<Item = watcher::Result<Option<K>>> + Unpin + use<K>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    Box::pin(watcher::watch_object(api.clone(), name).default_backoff())
}

/// Tells receivers only of a change.
fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

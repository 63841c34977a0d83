//! Serves the certificate that somebody else keeps in a Secret: watches it and the webhook configuration, and does what
//! the pure parts say. Calls the API server and reads the clock; changes nothing but, where it is asked to, the `caBundle`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

use super::given::{Given, Succession};
use super::leaf::ServedLeaf;
use super::publisher::Publisher;
use super::watching::{complain, replace, watched};
use super::{Announcements, Expiry, LONGEST_SLEEP, Settings, sleep_until};
use crate::lease::Leadership;

/// The state of one replica that serves a given certificate.
pub(super) struct Follower {
    settings: Settings,
    secret: String,
    /// Whether the leader writes the Secret's `ca.crt` into the `caBundle`; else somebody else does.
    publishes: bool,
    secrets: Api<Secret>,
    publisher: Publisher,
    leading: watch::Receiver<Leadership>,
    served: Arc<ServedLeaf>,
    announce: Announcements,
    succession: Succession,
    /// What was said last of the trust in the served certificate, so that it is said once.
    said: Option<String>,
}

impl Follower {
    pub(super) fn new(
        client: Client,
        (settings, secret, publishes): (Settings, String, bool),
        leading: watch::Receiver<Leadership>,
        served: Arc<ServedLeaf>,
        announce: Announcements,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            publisher: Publisher::new(client, &settings, announce.registration.clone()),
            settings,
            secret,
            publishes,
            leading,
            served,
            announce,
            succession: Succession::default(),
            said: None,
        }
    }

    /// Runs until it is dropped, or until whoever decides who leads is gone.
    pub(super) async fn run(mut self) {
        let mut secrets = watched(&self.secrets, &self.secret);
        let mut webhooks = self.publisher.watched();
        let mut leading = self.leading.clone();
        loop {
            let sleep = self.act().await;
            tokio::select! {
                Some(event) = secrets.next() => match event {
                    Ok(seen) => self.see(seen.as_ref(), Timestamp::now()),
                    Err(error) => complain("Secret", &self.secret, &error),
                },
                Some(event) = webhooks.next() => self.publisher.hear(event),
                changed = leading.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// A Secret that is gone, empty or damaged takes nothing away from what is served.
    fn see(&mut self, seen: Option<&Secret>, now: Timestamp) {
        let secret = &self.secret;
        match seen.map(Given::read).transpose().map(Option::flatten) {
            Ok(Some(given)) => {
                if self.succession.put(given, now) {
                    tracing::info!(secret, "the Secret has a new certificate");
                }
            }
            Ok(None) => tracing::warn!(secret, "there is no certificate in the Secret; waiting for one"),
            Err(error) => {
                tracing::error!(secret, %error, "the Secret cannot be used; waiting for a better one")
            }
        }
    }

    /// Does what is due and says how long nothing more will be.
    async fn act(&mut self) -> Duration {
        if !self.publisher.is_known() {
            return LONGEST_SLEEP;
        }
        let wanted = self.succession.trusted(Timestamp::now());
        if self.publishes && self.leading.borrow().leading {
            self.publisher.publish(&wanted, Timestamp::now()).await;
        }
        let now = Timestamp::now();
        self.serve(now);
        self.announce(now);
        self.sleep(now)
    }

    fn name(&self) -> &str {
        self.settings.names.first().map_or("", String::as_str)
    }

    fn serve(&mut self, now: Timestamp) {
        let (live, name) = (self.publisher.live_anchors(), self.name().to_owned());
        if let Some(given) = self.succession.succeed(&live, &name, now) {
            tracing::info!(secret = %self.secret, until = %given.not_after(), "a new server certificate is served");
            self.served.swap(given.certified());
        }
    }

    fn announce(&mut self, now: Timestamp) {
        let live = self.publisher.live_anchors();
        let served = self.succession.served();
        let trust = served.map(|given| given.check(&live, self.name(), now));
        replace(&self.announce.ready, matches!(trust, Some(Ok(()))));
        let bundle = self.succession.trusted(now);
        if !bundle.is_empty() {
            replace(&self.announce.ca_bundle, bundle.to_pem());
        }
        let expiry =
            Expiry { leaf: served.map(Given::not_after), ca: served.map(Given::authority_not_after) };
        replace(&self.announce.expiry, expiry);
        let said = trust.and_then(Result::err).map(|distrust| distrust.to_string());
        if self.said != said {
            if let Some(reason) = &said {
                tracing::warn!(secret = %self.secret, reason,
                    "API servers do not accept the certificate under the caBundle of the webhook configuration");
            }
            self.said = said;
        }
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let publishes = self.publishes && self.leading.borrow().leading;
        let publication = self.publisher.next(&self.succession.trusted(now)).filter(|_| publishes);
        let end = self.succession.served().map(Given::not_after).filter(|end| now < *end);
        let next = [publication, end, self.succession.look_again(now)].into_iter().flatten().min();
        next.map_or(LONGEST_SLEEP, |next| sleep_until(next, now))
    }
}

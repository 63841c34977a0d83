//! Serves the certificate that somebody else keeps in a Secret: watches it and the webhook configuration, and does what the pure
//! parts decide. Calls the API server and reads the clock; writes only the `caBundle`, and only if asked to.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::announcements::Expiry;
use super::external_certificate::{ExternalCertificate, Succession};
use super::pace::{LONGEST_SLEEP, sleep_until};
use super::replica::{Keep, Replica};
use super::watching::replace;

/// The state of one replica that serves a given certificate.
pub(super) struct SecretWatcher {
    replica: Replica,
    /// Whether the leader writes the Secret's `ca.crt` into the `caBundle`; else somebody else does.
    publishes: bool,
    succession: Succession,
    /// What was logged last about the trust in the served certificate, so that it is logged once.
    said: Option<String>,
}

impl Keep for SecretWatcher {
    fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// A Secret that is gone, empty or damaged takes nothing away from what is served.
    fn see(&mut self, seen: Option<Secret>) {
        let secret = &self.replica.secret;
        match seen.as_ref().map(ExternalCertificate::read).transpose().map(Option::flatten) {
            Ok(Some(given)) => {
                if self.succession.put(given, Timestamp::now()) {
                    tracing::info!(secret, "the Secret has a new certificate");
                }
            }
            Ok(None) => tracing::warn!(secret, "there is no certificate in the Secret; waiting for one"),
            Err(error) => {
                tracing::error!(secret, %error, "the Secret cannot be used; waiting until it is corrected")
            }
        }
    }

    async fn act(&mut self) -> Duration {
        if !self.replica.publisher.is_known() {
            return LONGEST_SLEEP;
        }
        let wanted = self.succession.trusted(Timestamp::now());
        if self.publishes && self.replica.leads() {
            self.replica.publisher.publish(&wanted, Timestamp::now()).await;
        }
        let now = Timestamp::now();
        self.serve(now);
        self.announce(now);
        self.sleep(now)
    }
}

impl SecretWatcher {
    pub(super) fn new(replica: Replica, publishes: bool) -> Self {
        Self { replica, publishes, succession: Succession::default(), said: None }
    }

    fn name(&self) -> &str {
        self.replica.names.first().map_or("", String::as_str)
    }

    fn serve(&mut self, now: Timestamp) {
        let (live, name) = (self.replica.publisher.live_anchors(), self.name().to_owned());
        if let Some(given) = self.succession.succeed(&live, &name, now) {
            tracing::info!(secret = %self.replica.secret, until = %given.not_after(), "serving a new server certificate");
            self.replica.served.swap(given.certified());
        }
    }

    fn announce(&mut self, now: Timestamp) {
        let live = self.replica.publisher.live_anchors();
        let served = self.succession.served();
        let trust = served.map(|given| given.check(&live, self.name(), now));
        replace(&self.replica.announce.ready, matches!(trust, Some(Ok(()))));
        let bundle = self.succession.trusted(now);
        if !bundle.is_empty() {
            replace(&self.replica.announce.ca_bundle, bundle.to_pem());
        }
        let expiry = Expiry {
            leaf: served.map(ExternalCertificate::not_after),
            ca: served.map(ExternalCertificate::authority_not_after),
        };
        replace(&self.replica.announce.expiry, expiry);
        let said = trust.and_then(Result::err).map(|distrust| distrust.to_string());
        if self.said != said {
            if let Some(reason) = &said {
                tracing::warn!(secret = %self.replica.secret, reason,
                    "API servers do not accept the certificate under the caBundle of the webhook configuration");
            }
            self.said = said;
        }
    }

    fn sleep(&self, now: Timestamp) -> Duration {
        let publishes = self.publishes && self.replica.leads();
        let publication = self.replica.publisher.next(&self.succession.trusted(now)).filter(|_| publishes);
        let end = self.succession.served().map(ExternalCertificate::not_after).filter(|end| now < *end);
        let next = [publication, end, self.succession.look_again(now)].into_iter().flatten().min();
        next.map_or(LONGEST_SLEEP, |next| sleep_until(next, now))
    }
}

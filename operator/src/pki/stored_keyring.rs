//! The keyring in its Secret: read as it changes, and advanced by the leader when something is due. Calls the API server.
//!
//! Refuses to know what is signed with it, and where its bundle is published.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::time::timeout;

use super::announcements::IdentityAnnouncements;
use super::authority::Authority;
use super::bundle::Bundle;
use super::keyring::{self, Due, Keyring, Lifetimes};
use super::pace::Pace;
use super::secret;
use super::settings::CALL;
use crate::api_error::ApiError;

/// The keyring as it was read last.
pub(super) struct StoredKeyring {
    secrets: Api<Secret>,
    name: String,
    lifetimes: Lifetimes,
    /// The Secret as it was read last; the outer `None` before the first answer.
    secret: Option<Option<Secret>>,
    /// The last keyring that could be read. Survives a Secret that was damaged or deleted.
    keyring: Option<Keyring>,
    /// Whether the Secret holds something that a person has to look at.
    damaged: bool,
    pace: Pace,
    announce: IdentityAnnouncements,
}

impl StoredKeyring {
    pub(super) const fn new(
        secrets: Api<Secret>,
        name: String,
        lifetimes: Lifetimes,
        announce: IdentityAnnouncements,
    ) -> Self {
        Self {
            secrets,
            name,
            lifetimes,
            secret: None,
            keyring: None,
            damaged: false,
            pace: Pace::new(),
            announce,
        }
    }

    /// The Secret was read; `None` while there is none.
    pub(super) fn see(&mut self, seen: Option<Secret>) {
        match seen.as_ref().map(secret::read).transpose() {
            Ok(keyring) => {
                self.damaged = false;
                self.keyring = keyring.flatten();
            }
            Err(error) => {
                self.damaged = true;
                tracing::error!(secret = %self.name, %error,
                    "the CA Secret cannot be used; restore it, or delete it to create a new CA");
            }
        }
        self.secret = Some(seen);
        self.announce.keyring(self.keyring.as_ref());
    }

    /// Whether there was a first answer.
    pub(super) const fn is_known(&self) -> bool {
        self.secret.is_some()
    }

    pub(super) const fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    fn due(&self, live: &Bundle, now: Timestamp) -> Option<Due> {
        if self.damaged {
            return None;
        }
        keyring::due(now, self.keyring.as_ref(), live, &self.lifetimes)
    }

    /// Does the next thing that is due when `live` is the published bundle, and writes the Secret. For the leader.
    pub(super) async fn rotate(&mut self, live: &Bundle, now: Timestamp) {
        let Some(due) = self.due(live, now).filter(|_| self.pace.next() <= now) else { return };
        self.pace.tried(now);
        let mint = || Authority::mint(now, self.lifetimes.ca());
        let advanced = match keyring::advance(due, self.keyring.clone(), now, mint) {
            Ok(advanced) => advanced,
            Err(error) => return tracing::error!(%error, "cannot make a certificate authority"),
        };
        let read = self.secret.as_ref().and_then(Option::as_ref);
        match timeout(CALL, secret::write(&self.secrets, &self.name, read, &advanced)).await {
            Ok(Ok(written)) => {
                tracing::info!(step = ?due, signing = ?advanced.signing.certificate(), "wrote the CA Secret");
                self.pace = Pace::new();
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

    /// When [`Self::rotate`] may have something to do; none while that waits for the Secret.
    pub(super) fn next(&self, live: &Bundle, now: Timestamp) -> Option<Timestamp> {
        match self.due(live, now) {
            Some(_) => Some(self.pace.next()),
            None => self.keyring.as_ref().map(|keyring| keyring.look_again(&self.lifetimes)),
        }
    }
}

//! The webhook configuration as it was read last, and the one field of it that is ours: `caBundle`.
//!
//! What was read is passed on to other parts. A new bundle is written at once. One that another actor undid is written again, ever
//! more slowly, and reported with that actor's name.

use futures::Stream;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;

use super::anchors::Anchors;
use super::bundle::Bundle;
use super::pace::Pace;
use super::settings::{BundleWritten, CALL, OnBundleWritten, PkiSettings, WebhookConfiguration};
use super::trust;
use super::watching::{complain, replace, watched};
use crate::api_error::ApiError;

/// Publishes the `caBundle` while this replica leads.
pub(super) struct Publisher {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
    /// The outer `None` before the first answer.
    configuration: WebhookConfiguration,
    announce: watch::Sender<WebhookConfiguration>,
    tell: OnBundleWritten,
    pace: Pace,
    /// What was published last by this replica: to do the same again means that another actor undid it.
    published: Option<Anchors>,
    /// What was tried last; to try the same again means that it failed, or that another actor undid it.
    attempted: Option<Anchors>,
}

impl Publisher {
    pub(super) fn new(
        client: Client,
        settings: &PkiSettings,
        announce: watch::Sender<WebhookConfiguration>,
    ) -> Self {
        Self {
            api: Api::all(client),
            name: settings.webhook_configuration.clone(),
            configuration: None,
            announce,
            tell: settings.tell.clone(),
            pace: Pace::new(),
            published: None,
            attempted: None,
        }
    }

    /// The configuration as it is and as it changes, for [`Publisher::hear`].
    pub(super) fn watched(
        &self,
    ) -> impl Stream<Item = watcher::Result<Option<MutatingWebhookConfiguration>>> + Unpin + Send + use<>
    {
        watched(&self.api, &self.name)
    }

    /// The configuration was read, or cannot be.
    pub(super) fn hear(&mut self, event: watcher::Result<Option<MutatingWebhookConfiguration>>) {
        match event {
            Ok(seen) => self.see(seen),
            Err(error) => complain("MutatingWebhookConfiguration", &self.name, &error),
        }
    }

    fn see(&mut self, seen: Option<MutatingWebhookConfiguration>) {
        self.configuration = Some(seen);
        replace(&self.announce, self.configuration.clone());
    }

    /// Whether there was a first answer.
    pub(super) const fn is_known(&self) -> bool {
        self.configuration.is_some()
    }

    fn seen(&self) -> Option<&MutatingWebhookConfiguration> {
        self.configuration.as_ref()?.as_ref()
    }

    /// The live bundle, as of authorities of our own.
    pub(super) fn live(&self) -> Bundle {
        self.seen().and_then(trust::live).unwrap_or_default()
    }

    /// The live bundle, whoever keeps it.
    pub(super) fn live_anchors(&self) -> Anchors {
        let pem = self.seen().and_then(trust::live_pem).unwrap_or_default();
        Anchors::from_pem(&pem)
    }

    /// When to publish `wanted`; `None` when it is published, or there is no entry to publish it to.
    pub(super) fn next(&self, wanted: &Anchors) -> Option<Timestamp> {
        let configuration = self.seen()?;
        trust::entry(configuration)?;
        let is_published = trust::is_everywhere(configuration, |pem| Anchors::from_pem(pem) == *wanted);
        (!is_published).then(|| self.pace.next())
    }

    /// Publishes `wanted` if it is not published and its time has come.
    pub(super) async fn publish(&mut self, wanted: &Anchors, now: Timestamp) {
        let Some(next) = self.next(wanted).filter(|_| !wanted.is_empty()) else { return };
        if now < next && self.attempted.as_ref() == Some(wanted) {
            return;
        }
        let Some(configuration) = self.seen().cloned() else { return };
        let is_repair = self.published.as_ref() == Some(wanted);
        let written = timeout(CALL, trust::publish(&self.api, &configuration, &wanted.to_pem())).await;
        self.pace.tried(now);
        self.attempted = Some(wanted.clone());
        match written {
            Ok(Ok(written)) => {
                self.published = Some(wanted.clone());
                if is_repair {
                    (self.tell)(BundleWritten::Repair(&configuration));
                } else {
                    tracing::info!(certificates = wanted.iter().count(), "published the caBundle");
                    (self.tell)(BundleWritten::Bundle);
                }
                self.see(Some(written));
            }
            Ok(Err(error)) => {
                let error = ApiError::from(error);
                tracing::warn!(%error, "cannot publish the caBundle; trying again");
                (self.tell)(BundleWritten::Failure);
            }
            Err(_) => {
                tracing::warn!("the API server does not answer; trying again to publish the caBundle");
                (self.tell)(BundleWritten::Failure);
            }
        }
    }
}

//! Whether API servers ask us about the pods that want a sidecar: our entry in the MutatingWebhookConfiguration, as it is
//! now, whoever wrote it.
//!
//! The operator owns the `caBundle` of its entry and nothing else. Selectors, rules and policy belong to the chart, and
//! others change them: AKS adds expressions to `namespaceSelector`, people narrow it. What would let a labelled pod start
//! without its sidecar, or would send pods here that nobody labelled, is reported and left as it is.
//!
//! What can be wrong, and what is, given an entry, is in [`mailroute_operator_core::webhook_configuration`]. [`watch`] follows the
//! entry, and tells.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Resource, ResourceExt};
use mailroute_operator_core::webhook_configuration::{ConfigurationFinding, WebhookService, findings};
use tokio::sync::watch as channel;
use tokio::time::sleep;

use crate::cache::route::RouteStore;
use crate::cache::watch::filled;
use crate::events::{Events, OwnReason};
use crate::leader_election::Leadership;
use crate::metrics::Metrics;
use crate::pki::{WebhookConfiguration, trust};

/// Changes of routes within this time are handled together.
const GATHER: Duration = Duration::from_secs(1);

/// What the watch needs.
pub struct Watch {
    /// The configuration.
    pub registration: channel::Receiver<WebhookConfiguration>,
    /// Our Service.
    pub service: WebhookService,
    /// Where MailRoutes are.
    pub routes: RouteStore,
    /// Changes with every change of those.
    pub changes: channel::Receiver<u64>,
    /// Whether this replica leads, and so reports.
    pub leadership: channel::Receiver<Leadership>,
    /// For every replica's metric.
    pub metrics: Metrics,
    /// For the leader's Events.
    pub events: Events,
}

/// Keeps the metric right, and has the leader log each new finding and put an Event on the configuration. Ends when what
/// it watches ends.
pub async fn watch(mut watch: Watch) {
    let mut told = BTreeSet::new();
    // Until MailRoutes are listed, no namespace is known to have some.
    filled(&watch.routes).await;
    loop {
        let leading = watch.leadership.borrow_and_update().leading;
        let registration = watch.registration.borrow_and_update().clone();
        watch.changes.mark_unchanged();
        if let Some(configuration) = registration {
            let found = findings(configuration.as_ref(), &watch.service, &watch.namespaces());
            watch.metrics.webhook_findings(found.iter().map(ConfigurationFinding::reason));
            if leading {
                found.difference(&told).for_each(|news| watch.tell(configuration.as_ref(), news));
            }
            // A new leader says again what it finds.
            told = if leading { found } else { BTreeSet::new() };
        }
        let ended = tokio::select! {
            changed = watch.registration.changed() => changed.is_err(),
            // Routes change often, and where they are seldom does.
            changed = watch.changes.changed() => { sleep(GATHER).await; changed.is_err() }
            changed = watch.leadership.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// Logs that another actor had changed the `caBundle`, and puts an Event on the configuration that names it.
pub fn tell_of_repair(configuration: &MutatingWebhookConfiguration, events: &Events) {
    let by = trust::other_owner(configuration).unwrap_or("another writer");
    tracing::warn!(by, "the caBundle of the webhook configuration was changed; restoring it");
    let note = format!(
        "{by} changed the caBundle of {}, which the operator owns; it is being restored. While it is wrong, labelled pods \
         cannot be created: keep {by} from writing that field.",
        trust::WEBHOOK
    );
    events.warn(configuration.object_ref(&()), OwnReason::CaBundleRepaired.as_str(), "Admission", note);
}

impl Watch {
    fn namespaces(&self) -> BTreeSet<String> {
        self.routes.state().iter().filter_map(|route| route.namespace()).collect()
    }

    fn tell(&self, configuration: Option<&MutatingWebhookConfiguration>, finding: &ConfigurationFinding) {
        tracing::warn!(reason = finding.reason(), %finding, "the webhook configuration was changed");
        if let Some(configuration) = configuration {
            let regarding = configuration.object_ref(&());
            self.events.warn(regarding, finding.reason(), "Admission", finding.to_string());
        }
    }
}

//! What the controller works with, and why a reconciliation fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::SignedDuration;
use kube::Client;
use mailroute_operator_core::inject;
use mailroute_operator_core::reports::Reports;
use mailroute_operator_core::resolve::PlatformSettings;
use mailroute_operator_core::rollout::history::EvictionHistory;
use tokio::sync::watch as channel;

use super::applied::AppliedConfigMaps;
use super::apply;
use super::backoff::Backoff;
use super::lost::LostMessageSums;
use super::orphans::OrphanedRoutes;
use crate::api_error::ApiError;
use crate::cache::federation_capacity::FederationCapacity;
use crate::cache::pods::PodStore;
use crate::cache::route::{RouteRef, RouteStore};
use crate::cache::triggers::Triggers;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::preflight::observations::DnsObservations;

/// Longest reconciliation. It makes at most four calls, so the API server hangs when it takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// What the controller works with. Handles only; the rules are in the steps.
pub struct Context {
    /// To write with.
    pub client: Client,
    /// What routes are rendered with.
    pub settings: Arc<PlatformSettings>,
    /// What is injected now.
    pub sidecar: inject::SidecarSettings,
    /// PEM bundle that the control service's certificate chains to; empty while there is none.
    pub ca_bundle: channel::Receiver<String>,
    /// What the certificates of sidecars and gateways chain to, PEM; empty until that is known.
    pub identity_ca: channel::Receiver<String>,
    /// Watched routes.
    pub routes: RouteStore,
    /// Watched pods.
    pub pods: PodStore,
    /// What sidecars reported.
    pub reports: Arc<Mutex<Reports>>,
    /// What to look at.
    pub triggers: Triggers,
    /// Where Events go.
    pub events: Events,
    /// Where numbers go.
    pub metrics: Metrics,
    /// How long a running sidecar may go without a report.
    pub silent_after: SignedDuration,
    /// Routes that fail at present.
    pub backoff: Backoff,
    /// ConfigMaps that were written lately.
    pub applied: AppliedConfigMaps,
    /// Evictions of late.
    pub rollouts: EvictionHistory<RouteRef>,
    /// What the pods of each application run under.
    pub federation: FederationCapacity,
    /// What domains publish in DNS.
    pub dns: DnsObservations,
    /// Deleted routes whose pods still run.
    pub orphans: OrphanedRoutes,
    /// How many messages each route has lost.
    pub lost: LostMessageSums,
}

/// Why a reconciliation failed. It is tried again, with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration could not be written.
    #[error("cannot write the configuration of the sidecars")]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error("cannot write the status")]
    Publish(#[source] ApiError),
    /// A pod with an outdated sidecar could not be evicted.
    #[error("cannot evict the pod {pod}, whose sidecar is outdated")]
    Evict {
        /// Name of the pod.
        pod: String,
        /// The API server's answer.
        source: ApiError,
    },
    /// The API server did not answer.
    #[error("the API server did not answer within {} seconds", DEADLINE.as_secs())]
    Late,
}

impl Error {
    /// A closed set, for the metric.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Apply(apply::Error::Foreign(_)) => "foreign_config_map",
            Self::Apply(apply::Error::Api { .. }) => "apply",
            Self::Publish(_) => "status",
            Self::Evict { .. } => "evict",
            Self::Late => "timeout",
        }
    }
}

//! What is known of a route, from which its status follows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mailroute_route::condition::Reason;

use crate::crd::MailRoute;
use crate::inject::Refusal;
use crate::pods::{BarePod, SidecarPod};
use crate::reports::ReceivedReport;
use crate::resolve::{NotAccepted, RouteResolution};
use crate::rollout::plan::RolloutPlan;

/// What is known of a route.
#[derive(Clone, Debug)]
pub struct RouteFacts<'a> {
    /// The route, with the status that it has.
    pub route: &'a MailRoute,
    /// How far it got.
    pub acceptance: &'a Acceptance,
    /// What it amounts to on this platform.
    pub resolution: &'a RouteResolution,
    /// Its pods that have the sidecar and have not ended.
    pub pods: &'a [SidecarPod],
    /// Its pods that have no sidecar and have not ended.
    pub bare: &'a [BarePod],
    /// The fresh reports for it, by pod uid.
    pub reports: &'a BTreeMap<String, ReceivedReport>,
    /// While this leader is so new that reports may still be on their way: since when it leads.
    pub settling: Option<Timestamp>,
    /// Which of the pods have an outdated sidecar, and what becomes of them.
    pub rollout: &'a RolloutPlan<'a>,
    /// How many ServiceAccounts the application of the route has to trust in this cluster; 0 when none.
    pub federated: usize,
    /// What its domains publish in DNS.
    pub dns: &'a DnsNotice,
    /// Its sidecars that run and do not report.
    pub silent: &'a [SilentSidecar],
    /// Messages that were left in pods that have ended, since the route was created.
    pub lost: u64,
    /// Whether another route of its tenant says that the tenant's external recipients are used up.
    pub tenant_quota_met: bool,
}

/// How far the route got on its way to its sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Its configuration is rendered.
    Rendered,
    /// It is, and the pods that it describes would be refused.
    Refusing(Refusal),
    /// It is not accepted.
    NotAccepted(NotAccepted),
    /// It could not be written, for this reason.
    Unwritten(String),
}

/// What is known of the domains of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DnsNotice {
    /// Nobody looks, or the route has no domain to look at.
    #[default]
    None,
    /// Not all of its domains were looked at yet.
    Pending,
    /// All were.
    Known(DnsVerdict),
}

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsVerdict {
    /// Whether the domains publish what they should; none when name servers could not tell.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// In words, with the records to publish.
    pub message: String,
}

/// A sidecar that runs and does not report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentSidecar {
    /// Name of the pod.
    pub pod: String,
    /// When it reported last; the start of the pod, or of this leader, when it never did.
    pub since: Timestamp,
}

//! What the installation chooses for every sidecar.

use std::fmt;
use std::str::FromStr;

/// When the kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a pull policy.
#[derive(Debug, thiserror::Error)]
#[error("must be Always, IfNotPresent or Never")]
pub struct ParsePullPolicyError;

impl FromStr for PullPolicy {
    type Err = ParsePullPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::IfNotPresent, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or(ParsePullPolicyError)
    }
}

/// What the installation chooses for every sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarSettings {
    /// Image of the sidecar.
    pub image: String,
    /// When to pull it; `None` leaves it to Kubernetes, which goes by the tag.
    pub pull_policy: Option<PullPolicy>,
    /// Names of Secrets to pull it with. They have to be in the namespace of each pod.
    pub pull_secrets: Vec<String>,
    /// Whether a pod may name another image.
    pub allows_image_override: bool,
    /// Whether runAsUser and runAsGroup are left out, for a platform that assigns them (OpenShift).
    pub assigns_users: bool,
    /// `host:port` of the control service, the only one that a sidecar talks to; none leaves it to the rendered route.
    pub control_address: Option<String>,
}

//! Flags about sidecars, which `run` and `inject` share.

use clap::Args;
use mailroute_operator_core::inject::{PullPolicy, SidecarSettings};
use mailroute_route::paths::is_for_entra;

/// Flags about the sidecars that are injected, but for their image: that has a default offline and none in a cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct InjectionFlags {
    /// Pull policy of that image: Always, IfNotPresent or Never. Default: what Kubernetes chooses by tag.
    #[arg(long, env = "MAILROUTE_SIDECAR_IMAGE_PULL_POLICY")]
    pub sidecar_image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets to pull that image with, which pods have in their own namespace.
    #[arg(long, env = "MAILROUTE_SIDECAR_IMAGE_PULL_SECRETS", value_name = "NAME", value_delimiter = ',')]
    pub sidecar_image_pull_secrets: Vec<String>,
    /// Let pods name another image in the annotation mailroute.dev/sidecar-image.
    #[arg(long, env = "MAILROUTE_ALLOW_IMAGE_OVERRIDE")]
    pub allow_image_override: bool,
    /// Leave runAsUser and runAsGroup of the sidecar to the platform, as OpenShift wants it.
    #[arg(long, env = "MAILROUTE_SIDECAR_USER_BY_PLATFORM")]
    pub sidecar_user_by_platform: bool,
    /// Audiences, beginning with api://, that routes may name in spec.tenant.authority.audience besides those that Entra
    /// publishes.
    #[arg(
        long,
        env = "MAILROUTE_ENTRA_AUDIENCES",
        value_name = "AUDIENCE",
        value_delimiter = ',',
        value_parser = entra_audience
    )]
    pub entra_audiences: Vec<String>,
}

impl InjectionFlags {
    /// What the installation chooses for every sidecar, which has this image and talks to this control service.
    pub fn platform(&self, image: &str, control_address: &str) -> SidecarSettings {
        SidecarSettings {
            image: image.to_owned(),
            pull_policy: self.sidecar_image_pull_policy,
            pull_secrets: self.sidecar_image_pull_secrets.clone(),
            allows_image_override: self.allow_image_override,
            assigns_users: self.sidecar_user_by_platform,
            control_address: Some(control_address.to_owned()),
        }
    }
}

/// An audience whose tokens may be shown to a token authority.
fn entra_audience(text: &str) -> Result<String, &'static str> {
    is_for_entra(text).then(|| text.to_owned()).ok_or("must begin with api://, as the audiences of Entra do")
}

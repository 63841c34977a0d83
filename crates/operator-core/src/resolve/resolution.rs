//! One resolution of one route, which everybody reads: controller, webhook, control service, status and the offline command. Pure.

use kube::{Resource, ResourceExt};
use mailroute_route::RouteFile;
use mailroute_route::file::FORMAT_VERSION;

use super::credential::{MountedSecret, entra_token_audience, secret};
use super::invalid::Invalid;
use super::mailbox_rules::MailboxNotAllowed;
use super::operator_identity::{Application, IdentityNotAllowed};
use super::platform::PlatformSettings;
use super::{limits, method, rules, validate};
use crate::crd::MailRoute;
use crate::crd::method::{Graph, GraphFallback};
use crate::crd::sidecar::Sidecar;
use crate::crd::tenant::CaBundleRef;

/// What a route amounts to on this platform. What the platform withholds is apart from what the route has wrong: pods of a route that
/// lacks a permission still start, and its status says why they send nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteResolution {
    /// Whether its namespace may send as the mailbox that it names.
    pub mailbox: Result<(), MailboxNotAllowed>,
    /// The application that it uses with the operator's identity; none when its pods use their own.
    pub identity: Result<Option<Application>, IdentityNotAllowed>,
    /// What its sidecars read and its pods get.
    pub route: Result<ResolvedRoute, Invalid>,
}

/// A route with presets looked up, references turned into mounted files, and amounts into numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedRoute {
    /// What its sidecars read, but for the certificate authorities, which change in time, and with them the control service.
    pub file: RouteFile,
    /// Uid of the route, by which it owns what is rendered.
    pub uid: String,
    /// The Secret with the credential or the certificate.
    pub secret: Option<MountedSecret>,
    /// Audience of the pod's token that Entra is shown; none when the pod asks Entra nothing, or by a secret.
    pub entra_token_audience: Option<String>,
    /// The CA bundle for the token authority.
    pub authority_ca: Option<CaBundleRef>,
    /// The CA bundle for the upstream.
    pub endpoint_ca: Option<CaBundleRef>,
    /// The CA bundle for the upstream of Graph's fallback.
    pub fallback_ca: Option<CaBundleRef>,
    /// Connections, or requests of Graph, that all sidecars of the mailbox share; without a mailbox each sidecar's own.
    pub connections: u32,
    /// The container: what it may use, and its volume.
    pub sidecar: Sidecar,
}

/// Why a route is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Its namespace may not send as the mailbox.
    #[error(transparent)]
    Mailbox(#[from] MailboxNotAllowed),
    /// It may not use the operator's identity.
    #[error(transparent)]
    Identity(#[from] IdentityNotAllowed),
    /// It cannot be used as it is written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl RouteResolution {
    /// The route, if it makes sense and the platform lets its namespace have what it names. Only then is it rendered, and only to its
    /// pods is anything leased.
    ///
    /// # Errors
    /// Why it is not accepted: what the platform withholds goes first.
    pub fn accepted(&self) -> Result<&ResolvedRoute, NotAccepted> {
        self.mailbox.clone()?;
        self.identity.as_ref().map_err(Clone::clone)?;
        Ok(self.route.as_ref().map_err(Clone::clone)?)
    }
}

/// Resolves a route on a platform.
pub fn resolve(route: &MailRoute, settings: &PlatformSettings) -> RouteResolution {
    let identity = settings.operator_identity.application_for(route).map(|lent| lent.cloned());
    let lent = identity.as_ref().ok().and_then(Option::as_ref);
    RouteResolution {
        mailbox: settings.mailbox_rules.allow(route),
        route: resolved(route, lent, settings),
        identity,
    }
}

fn resolved(
    route: &MailRoute,
    lent: Option<&Application>,
    settings: &PlatformSettings,
) -> Result<ResolvedRoute, Invalid> {
    let spec = &route.spec;
    validate::audience(spec, &settings.entra_audiences)?;
    let name = route.meta().name.clone().ok_or(Invalid::Unidentified)?;
    let namespace = route.namespace().ok_or(Invalid::Unidentified)?;
    let secret = secret(spec);
    let authority = spec.tenant.authority.as_ref();
    let falls_back = |graph: &&Graph| graph.fallback == GraphFallback::ClientSubmission;
    let fallback = spec.graph.as_ref().filter(falls_back).and_then(|graph| graph.fallback_endpoint.as_ref());
    Ok(ResolvedRoute {
        uid: route.uid().ok_or(Invalid::Unidentified)?,
        file: RouteFile {
            version: FORMAT_VERSION,
            gateway: validate::gateway(spec, &namespace, &settings.cluster_domain)?,
            ehlo_name: format!("{name}.{namespace}.svc.{}", settings.cluster_domain),
            name,
            namespace,
            generation: route.meta().generation.unwrap_or_default(),
            method: method(spec, lent)?,
            delivery: validate::delivery(spec)?,
            limits: limits::limits(spec)?,
            senders: validate::senders(spec)?,
            recipients: rules::recipients(spec)?,
            archive: rules::archive(spec)?,
            headers: rules::headers(spec)?,
            listen: spec.listen,
            secret: secret.as_ref().map(|secret| secret.name.clone()),
            log_addresses: spec.sidecar.log_addresses,
            control: None,
        },
        secret,
        entra_token_audience: entra_token_audience(spec),
        authority_ca: authority.and_then(|authority| authority.ca_bundle_ref.clone()),
        endpoint_ca: spec.endpoint.as_ref().and_then(|endpoint| endpoint.ca_bundle_ref.clone()),
        fallback_ca: fallback.and_then(|endpoint| endpoint.ca_bundle_ref.clone()),
        connections: limits::connections(spec),
        sidecar: spec.sidecar.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::mailbox_rules::MailboxRules;
    use crate::samples;

    #[test]
    fn a_route_that_is_invalid_or_may_not_use_the_operators_identity_is_not_accepted() {
        let settings = PlatformSettings::default();
        let lent = resolve(&samples::with_operator_identity(), &settings);
        assert!(matches!(lent.accepted(), Err(NotAccepted::Identity(_))), "{lent:?}");
        assert!(lent.route.is_ok(), "its pods start, and its status says why they get no tokens");
        let mut broken = samples::route();
        broken.spec.delivery.wait = "soon".into();
        let broken = resolve(&broken, &settings);
        assert!(matches!(broken.accepted(), Err(NotAccepted::Invalid(_))), "{broken:?}");
    }

    #[test]
    fn a_route_whose_namespace_may_not_send_as_the_mailbox_is_not_accepted() {
        let rules = "mailboxes: [{namespaces: [billing], mailboxes: [noreply@contoso.com]}]";
        let mailbox_rules = MailboxRules::parse(rules).unwrap();
        let settings = PlatformSettings { mailbox_rules, ..Default::default() };
        let resolution = resolve(&samples::route(), &settings);
        assert!(matches!(resolution.accepted(), Err(NotAccepted::Mailbox(_))), "{resolution:?}");
    }
}

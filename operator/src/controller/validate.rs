//! From a `MailRoute` as people write it to one that can be rendered: defaults filled in, presets looked up. Pure.
//!
//! The schema's rules refuse all of this at `kubectl apply`; here it is asked again, because an object may have been
//! stored under an older schema, and so that building cannot fail.

use kube::{Resource, ResourceExt};
use mailroute_route::file::{Authority, Endpoint};
use mailroute_route::paths;

use crate::crd::MailRoute;
use crate::crd::cloud::Cloud;
use crate::crd::mail_route::{
    self as spec, ClientSubmission, CredentialType, DeliveryMode, MailRouteSpec, Method,
};

/// Port of client submission where the route does not say (RFC 6409, and Microsoft's guide).
const SUBMISSION_PORT: u16 = 587;

/// A route that can be rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// Name of the route.
    pub name: String,
    /// Namespace of the route.
    pub namespace: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Uid of the route, by which it owns what is rendered.
    pub uid: String,
    /// Mailbox to log in as.
    pub mailbox: String,
    /// Application (client) id.
    pub client_id: String,
    /// Where tokens come from.
    pub authority: Authority,
    /// Where mail is handed to.
    pub endpoint: Endpoint,
    /// Bounds on one message.
    pub limits: spec::Limits,
    /// Where applications connect.
    pub listen: spec::Listen,
}

/// Why a route cannot be rendered. The text names the field and what to put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The API server gives every object these; without them nothing can be owned.
    #[error("the object has no name, namespace or uid")]
    Unidentified,
    /// A method of a later version.
    #[error("spec.method: {0:?} is not built yet; use ClientSubmission")]
    Method(Method),
    /// A mode of a later version.
    #[error("spec.delivery.mode: {0:?} is not built yet; use Deliver")]
    DeliveryMode(DeliveryMode),
    /// A credential of a later version.
    #[error("spec.clientSubmission.credential.type: {0:?} is not built yet; use WorkloadIdentity")]
    Credential(CredentialType),
    /// The method's own block is missing.
    #[error("spec.clientSubmission: the method ClientSubmission needs this block")]
    ClientSubmissionMissing,
    /// No preset and no override.
    #[error("spec.endpoint.host: Microsoft publishes no SMTP host for the cloud {0:?}; set it")]
    HostMissing(Cloud),
}

/// Looks at everything that rendering needs.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(route: &MailRoute) -> Result<Valid, Invalid> {
    let spec = &route.spec;
    if spec.method != Method::ClientSubmission {
        return Err(Invalid::Method(spec.method));
    }
    if spec.delivery.mode != DeliveryMode::Deliver {
        return Err(Invalid::DeliveryMode(spec.delivery.mode));
    }
    let submission = submission(spec)?;
    Ok(Valid {
        name: route.meta().name.clone().ok_or(Invalid::Unidentified)?,
        namespace: route.namespace().ok_or(Invalid::Unidentified)?,
        generation: route.meta().generation.unwrap_or_default(),
        uid: route.uid().ok_or(Invalid::Unidentified)?,
        mailbox: submission.mailbox.clone(),
        client_id: submission.credential.client_id.clone(),
        authority: authority(spec),
        endpoint: endpoint(spec)?,
        limits: spec.limits,
        listen: spec.listen,
    })
}

fn submission(spec: &MailRouteSpec) -> Result<&ClientSubmission, Invalid> {
    let submission = spec.client_submission.as_ref().ok_or(Invalid::ClientSubmissionMissing)?;
    match submission.credential.type_ {
        CredentialType::WorkloadIdentity => Ok(submission),
        other => Err(Invalid::Credential(other)),
    }
}

/// Where tokens come from: the cloud's preset, and over it what the route says.
pub fn authority(spec: &MailRouteSpec) -> Authority {
    let preset = spec.tenant.cloud.preset();
    let own = spec.tenant.authority.clone().unwrap_or_default();
    Authority {
        host: own.host.unwrap_or_else(|| preset.authority_host.to_owned()),
        tenant: spec.tenant.id.clone(),
        scope: own.scope.unwrap_or_else(|| preset.scope.to_owned()),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::AUTHORITY_CA_DIR)),
    }
}

/// Where mail is handed to: the cloud's preset, and over it what the route says.
///
/// # Errors
/// When neither names a host.
pub fn endpoint(spec: &MailRouteSpec) -> Result<Endpoint, Invalid> {
    let preset = spec.tenant.cloud.preset().submission_host.map(str::to_owned);
    let own = spec.endpoint.clone().unwrap_or_default();
    Ok(Endpoint {
        host: own.host.or(preset).ok_or(Invalid::HostMissing(spec.tenant.cloud))?,
        port: own.port.unwrap_or(SUBMISSION_PORT),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::ENDPOINT_CA_DIR)),
    })
}

fn ca_file(directory: &str) -> std::path::PathBuf {
    std::path::Path::new(directory).join(paths::CA_FILE)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::crd::mail_route::CaBundleRef;

    #[test]
    fn presets_fill_what_the_route_leaves_out() {
        let valid = validate(&samples::route()).unwrap();
        assert_eq!(valid.authority.host, "login.microsoftonline.com");
        assert_eq!(valid.authority.scope, "https://outlook.office365.com/.default");
        assert_eq!((valid.endpoint.host.as_str(), valid.endpoint.port), ("smtp.office365.com", 587));
        assert_eq!(valid.endpoint.ca_file, None);
    }

    #[test]
    fn each_field_of_the_route_replaces_its_preset_alone() {
        let mut route = samples::route();
        let ca = CaBundleRef { name: "m365-ca".into(), key: "ca.crt".into() };
        route.spec.tenant.authority = Some(spec::Authority {
            host: Some("login.m365.svc:8443".into()),
            ca_bundle_ref: Some(ca.clone()),
            ..Default::default()
        });
        route.spec.endpoint = Some(spec::Endpoint { host: None, port: Some(25), ca_bundle_ref: Some(ca) });
        let valid = validate(&route).unwrap();
        assert_eq!(valid.authority.host, "login.m365.svc:8443");
        assert_eq!(valid.authority.scope, "https://outlook.office365.com/.default");
        assert_eq!(valid.authority.ca_file, Some("/etc/mailroute/authority-ca/ca.crt".into()));
        assert_eq!((valid.endpoint.host.as_str(), valid.endpoint.port), ("smtp.office365.com", 25));
        assert_eq!(valid.endpoint.ca_file, Some("/etc/mailroute/endpoint-ca/ca.crt".into()));
    }

    #[test]
    fn what_this_version_does_not_serve_is_named() {
        let mut method = samples::route();
        method.spec.method = Method::DirectSend;
        let mut mode = samples::route();
        mode.spec.delivery.mode = DeliveryMode::Queue;
        let mut credential = samples::route();
        credential.spec.client_submission.as_mut().unwrap().credential.type_ = CredentialType::Password;
        let mut block = samples::route();
        block.spec.client_submission = None;
        let mut host = samples::route();
        host.spec.tenant.cloud = Cloud::USGovernmentDoD;
        for (route, field) in [
            (method, "spec.method"),
            (mode, "spec.delivery.mode"),
            (credential, "spec.clientSubmission.credential.type"),
            (block, "spec.clientSubmission"),
            (host, "spec.endpoint.host"),
        ] {
            let error = validate(&route).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }
}

//! From a `MailRoute` as people write it to one that can be rendered. Pure.
//!
//! The schema's rules refuse all of this at `kubectl apply`; here it is asked again, because an object may have been
//! stored under an older schema, and so that building cannot fail.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt};
use mailroute_route::file;
use mailroute_route::paths::{ENTRA_AUDIENCES, is_for_entra};

use super::way;
use crate::broker::settings::Application;
use crate::crd::cloud::Cloud;
use crate::crd::delivery::{Delivery, Limits};
use crate::crd::local::OnViolation;
use crate::crd::method::{CredentialType, Method};
use crate::crd::units;
use crate::crd::{MailRoute, MailRouteSpec};

/// Connections of one sidecar by client submission. Exchange takes three of a mailbox at a time, whose sidecars do not know
/// of each other.
const CONNECTIONS_PER_MAILBOX_SIDECAR: u32 = 1;

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
    /// How mail leaves.
    pub method: file::Method,
    /// What is promised.
    pub delivery: file::Delivery,
    /// Bounds on messages and on what is sent.
    pub limits: file::Limits,
    /// Who may be named as the sender.
    pub senders: Option<file::Senders>,
    /// Where applications connect.
    pub listen: file::Listen,
    /// Name of the Secret with the credential or the certificate.
    pub secret: Option<String>,
    /// How much of an address is logged.
    pub log_addresses: file::LogAddresses,
}

/// Why a route cannot be rendered. The text names the field and what to put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The API server gives every object these; without them nothing can be owned.
    #[error("the object has no name, namespace or uid")]
    Unidentified,
    /// The method's own block is missing.
    #[error("spec.{0}: the method requires this block")]
    BlockMissing(&'static str),
    /// The method goes by domains.
    #[error("spec.tenant.acceptedDomains: the method {0:?} requires at least one")]
    AcceptedDomainsMissing(Method),
    /// No preset and no override.
    #[error("spec.endpoint.host: Microsoft publishes no SMTP host for the cloud {0:?}; set it")]
    HostMissing(Cloud),
    /// The platform's to set.
    #[error("spec.{0}: leave it out with credential.subject Operator; the platform sets it")]
    Lent(&'static str),
    /// No preset, and nothing in the platform's settings.
    #[error(
        "spec.tenant.cloud: Microsoft publishes no SMTP host for the cloud {0:?}, and the platform has set none under \
         broker.applications"
    )]
    LentHostMissing(Cloud),
    /// A log-in would go without TLS.
    #[error("spec.endpoint.tls: ClientSubmission requires the value Required, because it logs in")]
    SubmissionWithoutTls,
    /// A certificate would be of no use.
    #[error("spec.endpoint.tls: relay by certificate requires the value Required")]
    CertificateWithoutTls,
    /// Tokens are asked for by an application.
    #[error("spec.clientSubmission.credential.clientId: the type {0:?} requires it")]
    ClientIdMissing(CredentialType),
    /// A credential that is a secret.
    #[error("spec.clientSubmission.credential.secretRef: the type {0:?} requires it")]
    SecretMissing(CredentialType),
    /// The one key of a Secret that holds it.
    #[error("spec.clientSubmission.credential.secretRef.key: the type {0:?} requires it")]
    SecretKeyMissing(CredentialType),
    /// Rewriting needs a mailbox to write.
    #[error("spec.senders.onViolation: Rewrite requires the method ClientSubmission; use Reject")]
    RewriteWithoutMailbox,
    /// The token would be good for somebody else than Entra.
    #[error(
        "spec.tenant.authority.audience: {0:?} is neither an audience of Entra ({known}) nor listed in entra.audiences of \
         the chart's values",
        known = ENTRA_AUDIENCES.join(", ")
    )]
    Audience(String),
    /// Not a duration.
    #[error("spec.delivery.{field}: {value:?} is not a duration such as 48h")]
    Duration {
        /// Which.
        field: &'static str,
        /// What stands there.
        value: String,
    },
    /// Not an amount of bytes.
    #[error("spec.{field}: {value:?} is not a size such as 1Gi")]
    Size {
        /// Which.
        field: &'static str,
        /// What stands there.
        value: String,
    },
}

/// Looks at everything that rendering needs, where the platform lends nothing and allows no further audiences.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(route: &MailRoute) -> Result<Valid, Invalid> {
    validate_with(route, None, &[])
}

/// The same on a platform that allows `audiences` besides Entra's own, for a route that uses the operator's identity as the
/// application `lent`.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate_with(
    route: &MailRoute,
    lent: Option<&Application>,
    audiences: &[String],
) -> Result<Valid, Invalid> {
    let spec = &route.spec;
    audience(spec, audiences)?;
    Ok(Valid {
        name: route.meta().name.clone().ok_or(Invalid::Unidentified)?,
        namespace: route.namespace().ok_or(Invalid::Unidentified)?,
        generation: route.meta().generation.unwrap_or_default(),
        uid: route.uid().ok_or(Invalid::Unidentified)?,
        method: way::method(spec, lent)?,
        delivery: delivery(spec)?,
        limits: limits(spec.method, &spec.limits)?,
        senders: senders(spec)?,
        listen: spec.listen.into(),
        secret: way::secret(spec).map(|(name, _)| name.to_owned()),
        log_addresses: spec.sidecar.log_addresses.into(),
    })
}

/// The author of a route says which audience a token of the pods' ServiceAccount has, and whom it is shown to. A token that
/// the API server or the control service takes would be the pod's identity.
fn audience(spec: &MailRouteSpec, allowed: &[String]) -> Result<(), Invalid> {
    let named = spec.tenant.authority.as_ref().and_then(|authority| authority.audience.as_ref());
    let is_allowed = |audience: &&String| {
        ENTRA_AUDIENCES.contains(&audience.as_str()) || (is_for_entra(audience) && allowed.contains(audience))
    };
    named.filter(|audience| !is_allowed(audience)).map_or(Ok(()), |it| Err(Invalid::Audience(it.clone())))
}

fn delivery(spec: &MailRouteSpec) -> Result<file::Delivery, Invalid> {
    let Delivery { mode, max_age, wait, dead_letter } = &spec.delivery;
    let duration = |field, text: &String| {
        let positive = units::seconds(text).filter(|seconds| *seconds > 0);
        positive.ok_or_else(|| Invalid::Duration { field, value: text.clone() })
    };
    let bytes = size("sidecar.spool.sizeLimit", &spec.sidecar.spool.size_limit)?;
    Ok(file::Delivery {
        mode: (*mode).into(),
        wait_seconds: duration("wait", wait)?,
        max_age_seconds: duration("maxAge", max_age)?,
        dead_letters: file::DeadLetters { keep: dead_letter.keep, notify_sender: dead_letter.notify_sender },
        // The rest is for messages that pass through and for the file system's own, as a pod with an overfull volume is
        // evicted.
        max_spool_bytes: bytes - bytes.div_ceil(10),
    })
}

/// Only a mailbox has limits of its own; connections of the other methods are each sidecar's.
fn limits(method: Method, limits: &Limits) -> Result<file::Limits, Invalid> {
    let max_message_bytes = size("limits.maxMessageBytes", &limits.max_message_bytes)?;
    let bare = file::Limits::new(max_message_bytes, limits.max_recipients);
    Ok(match method {
        Method::ClientSubmission => file::Limits {
            messages_per_minute: Some(limits.messages_per_minute),
            recipients_per_day: Some(limits.recipients_per_day),
            connections: CONNECTIONS_PER_MAILBOX_SIDECAR,
            ..bare
        },
        Method::SmtpRelay | Method::DirectSend => {
            file::Limits { connections: limits.connections.max(1), ..bare }
        }
    })
}

/// Bytes of a size.
fn size(field: &'static str, size: &Quantity) -> Result<u64, Invalid> {
    units::bytes(size).ok_or_else(|| Invalid::Size { field, value: size.0.clone() })
}

fn senders(spec: &MailRouteSpec) -> Result<Option<file::Senders>, Invalid> {
    let rewrites = spec.senders.as_ref().is_some_and(|senders| senders.on_violation == OnViolation::Rewrite);
    if rewrites && spec.method != Method::ClientSubmission {
        return Err(Invalid::RewriteWithoutMailbox);
    }
    Ok(spec.senders.clone().map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::crd::local::Senders;
    use crate::crd::method::Endpoint;
    use crate::crd::tenant::Authority;
    use serde_json::json;

    #[test]
    fn nine_tenths_of_the_volume_are_for_kept_messages() {
        let mut route = samples::route();
        for (size, expected) in [("1Gi", 966_367_641), ("100", 90), ("101", 90), ("0", 0)] {
            route.spec.sidecar.spool.size_limit = Quantity(size.into());
            assert_eq!(validate(&route).unwrap().delivery.max_spool_bytes, expected, "{size}");
        }
    }

    #[test]
    fn the_largest_message_is_a_size_or_a_number_of_bytes() {
        for (written, bytes) in
            [(json!(36_700_160), 36_700_160), (json!("35Mi"), 36_700_160), (json!("1k"), 1000)]
        {
            let mut route = samples::route();
            route.spec.limits = serde_json::from_value(json!({"maxMessageBytes": written})).unwrap();
            assert_eq!(validate(&route).unwrap().limits.max_message_bytes, bytes);
        }
        assert_eq!(validate(&samples::route()).unwrap().limits.max_message_bytes, 36_700_160, "the default");
    }

    #[test]
    fn durations_become_seconds() {
        let delivery = validate(&samples::route()).unwrap().delivery;
        assert_eq!((delivery.max_age_seconds, delivery.wait_seconds), (172_800, 4));
        assert_eq!(delivery.mode, file::DeliveryMode::DeliverOrQueue);
    }

    #[test]
    fn limits_of_the_mailbox_are_for_client_submission_alone() {
        let submission = validate(&samples::route()).unwrap().limits;
        assert_eq!((submission.messages_per_minute, submission.recipients_per_day), (Some(30), Some(10_000)));
        assert_eq!(submission.connections, 1, "the mailbox's three are shared");
        for route in [samples::relay(true), samples::direct()] {
            let limits = validate(&route).unwrap().limits;
            assert_eq!((limits.messages_per_minute, limits.recipients_per_day), (None, None));
            assert_eq!(limits.connections, 3);
        }
    }

    #[test]
    fn a_token_of_the_pod_is_projected_for_entra_alone() {
        let with = |audience: &str, allowed: &[&str]| {
            let mut route = samples::route();
            let audience = Some(audience.to_owned());
            route.spec.tenant.authority = Some(Authority { audience, ..Default::default() });
            let allowed: Vec<_> = allowed.iter().map(|&audience| audience.to_owned()).collect();
            validate_with(&route, None, &allowed)
        };
        for audience in ENTRA_AUDIENCES {
            assert!(with(audience, &[]).is_ok(), "{audience}");
        }
        let forbidden = [
            "mailroute.dev",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "https://oidc.example.com/id/1",
            "kubernetes",
            "",
        ];
        for audience in forbidden {
            let told = with(audience, &[audience]).unwrap_err();
            assert_eq!(told, Invalid::Audience(audience.to_owned()), "listed all the same");
        }
        assert!(with("api://private-cloud", &[]).is_err());
        assert!(with("api://private-cloud", &["api://private-cloud"]).is_ok());
    }

    #[test]
    fn what_an_older_schema_let_through_is_named_with_its_field() {
        type Change = fn(&mut MailRouteSpec);
        let endpoint = |s: &mut MailRouteSpec| s.endpoint = Some(Endpoint::default());
        let table: [(MailRoute, Change, &str); 15] = [
            (samples::lent(), endpoint, "spec.endpoint"),
            (samples::lent(), |s| s.tenant.authority = Some(Authority::default()), "spec.tenant.authority"),
            (samples::lent(), |s| s.tenant.cloud = Cloud::USGovernmentDoD, "spec.tenant.cloud"),
            (samples::route(), |s| s.client_submission = None, "spec.clientSubmission"),
            (samples::relay(true), |s| s.smtp_relay = None, "spec.smtpRelay"),
            (samples::direct(), |s| s.direct_send = None, "spec.directSend"),
            (samples::direct(), |s| s.tenant.accepted_domains.clear(), "spec.tenant.acceptedDomains"),
            (samples::route(), |s| s.tenant.cloud = Cloud::USGovernmentDoD, "spec.endpoint.host"),
            (samples::route(), |s| s.delivery.wait = "soon".into(), "spec.delivery.wait"),
            (samples::route(), |s| s.delivery.max_age = "0s".into(), "spec.delivery.maxAge"),
            (
                samples::route(),
                |s| s.sidecar.spool.size_limit = Quantity("much".into()),
                "spec.sidecar.spool.sizeLimit",
            ),
            (
                samples::route(),
                |s| s.limits.max_message_bytes = Quantity("much".into()),
                "spec.limits.maxMessageBytes",
            ),
            (
                samples::with_secret(CredentialType::ClientSecret, None),
                |_| {},
                "spec.clientSubmission.credential.secretRef.key",
            ),
            (
                samples::route(),
                |s| s.client_submission.as_mut().unwrap().credential.client_id = None,
                "spec.clientSubmission.credential.clientId",
            ),
            (
                samples::relay(true),
                |s| s.senders = Some(Senders { allow: vec![], on_violation: OnViolation::Rewrite }),
                "spec.senders.onViolation",
            ),
        ];
        for (mut route, change, field) in table {
            change(&mut route.spec);
            let error = validate(&route).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }
}

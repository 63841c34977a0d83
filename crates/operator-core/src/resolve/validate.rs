//! What of a route needs no look at the platform: its promise, its bounds, its senders; and which audience its tokens may have. Pure.
//!
//! The schema's rules refuse all of this at `kubectl apply`; here it is asked again, because an object may have been
//! stored under an older schema.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mailroute_route::file::{
    self, DeliveryMode, Durability, GatewayUnavailable, OnViolation, SubmissionService,
};
use mailroute_route::paths::{ENTRA_AUDIENCES, is_for_entra};

use super::invalid::Invalid;
use crate::crd::MailRouteSpec;
use crate::crd::delivery::Delivery;
use crate::crd::method::{ClientSubmission, Graph, GraphFallback};
use crate::crd::units;

/// The author of a route says which audience a token of the pods' ServiceAccount has, and whom it is shown to. A token that
/// the API server or the control service takes would be the pod's identity.
pub(super) fn audience(spec: &MailRouteSpec, allowed: &[String]) -> Result<(), Invalid> {
    let named = spec.tenant.authority.as_ref().and_then(|authority| authority.audience.as_ref());
    let is_allowed = |audience: &&String| {
        ENTRA_AUDIENCES.contains(&audience.as_str()) || (is_for_entra(audience) && allowed.contains(audience))
    };
    named.filter(|audience| !is_allowed(audience)).map_or(Ok(()), |it| Err(Invalid::Audience(it.clone())))
}

pub(super) fn delivery(spec: &MailRouteSpec) -> Result<file::Delivery, Invalid> {
    let Delivery { mode, max_age, wait, dead_letter, durability, gateway_unavailable } = &spec.delivery;
    let duration = |field, text: &String| {
        let positive = units::seconds(text).filter(|seconds| *seconds > 0);
        positive.ok_or_else(|| Invalid::Duration { field, value: text.clone() })
    };
    let falls_back = |graph: &Graph| graph.fallback == GraphFallback::ClientSubmission;
    if dead_letter.notify_sender && !spec.graph.as_ref().is_none_or(falls_back) {
        return Err(Invalid::NotificationByGraph);
    }
    match (durability, gateway_unavailable) {
        (Durability::Gateway, _) if spec.gateway.is_none() => return Err(Invalid::GatewayMissing),
        (Durability::Gateway, _) if *mode == DeliveryMode::Deliver => {
            return Err(Invalid::DurabilityWithoutQueue);
        }
        (Durability::Pod, GatewayUnavailable::Pod) => return Err(Invalid::GatewayNotUsed),
        (Durability::Gateway, _) | (Durability::Pod, GatewayUnavailable::Refuse) => {}
    }
    let bytes = size("sidecar.spool.sizeLimit", &spec.sidecar.spool.size_limit)?;
    Ok(file::Delivery {
        mode: *mode,
        wait_seconds: duration("wait", wait)?,
        max_age_seconds: duration("maxAge", max_age)?,
        dead_letters: file::DeadLetters { keep: dead_letter.keep, notify_sender: dead_letter.notify_sender },
        // The rest is for messages that pass through and for the file system's own, as a pod with an overfull volume is
        // evicted.
        max_spool_bytes: bytes - bytes.div_ceil(10),
        durability: *durability,
        gateway_unavailable: *gateway_unavailable,
    })
}

/// Where the route's gateway is. Its CA is filled in when the route is rendered.
pub(super) fn gateway(
    spec: &MailRouteSpec,
    namespace: &str,
    cluster_domain: &str,
) -> Result<Option<file::Gateway>, Invalid> {
    let Some(gateway) = &spec.gateway else { return Ok(None) };
    let name = &gateway.service_name;
    let is_label = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_label {
        return Err(Invalid::ServiceName(name.clone()));
    }
    Ok(Some(file::Gateway {
        host: format!("{name}.{namespace}.svc.{cluster_domain}"),
        ca_pem: String::new(),
    }))
}

/// Bytes of a size.
pub(super) fn size(field: &'static str, size: &Quantity) -> Result<u64, Invalid> {
    units::bytes(size).ok_or_else(|| Invalid::Size { field, value: size.0.clone() })
}

/// Who may be named as the sender. High Volume Email takes mail from the account alone, so that every other sender is rewritten
/// unless the route says otherwise.
pub(super) fn senders(spec: &MailRouteSpec) -> Result<Option<file::Senders>, Invalid> {
    let rewrites = spec.senders.as_ref().is_some_and(|senders| senders.on_violation == OnViolation::Rewrite);
    if rewrites && spec.mailbox().is_none() {
        return Err(Invalid::RewriteWithoutMailbox);
    }
    let is_account = |it: &ClientSubmission| it.service == SubmissionService::HighVolumeEmail;
    let rewritten = file::Senders { allow: vec![], on_violation: OnViolation::Rewrite };
    let preset = spec.client_submission.as_ref().is_some_and(is_account).then_some(rewritten);
    Ok(spec.senders.clone().map(Into::into).or(preset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::crd::cloud::Cloud;
    use crate::crd::delivery::Gateway;
    use crate::crd::local::Senders;
    use crate::crd::method::{CredentialType, Endpoint, SecretRef, Subject};
    use crate::crd::tenant::Authority;
    use crate::resolve::{PlatformSettings, resolve};
    use crate::samples;

    #[test]
    fn nine_tenths_of_the_volume_are_for_kept_messages() {
        let mut route = samples::route();
        for (size, expected) in [("1Gi", 966_367_641), ("100", 90), ("101", 90), ("0", 0)] {
            route.spec.sidecar.spool.size_limit = Quantity(size.into());
            assert_eq!(samples::resolved(&route).file.delivery.max_spool_bytes, expected, "{size}");
        }
    }

    #[test]
    fn durations_become_seconds() {
        let delivery = samples::resolved(&samples::route()).file.delivery;
        assert_eq!((delivery.max_age_seconds, delivery.wait_seconds), (172_800, 4));
        assert_eq!(delivery.mode, DeliveryMode::DeliverOrQueue);
    }

    #[test]
    fn a_gateway_is_looked_up_by_the_name_of_its_service() {
        let settings = PlatformSettings { cluster_domain: "cluster.local".into(), ..Default::default() };
        let file = resolve(&samples::with_gateway(), &settings).route.unwrap().file;
        assert_eq!(file.gateway.unwrap().host, "mail-gateway.shop.svc.cluster.local");
        assert_eq!(file.delivery.durability, Durability::Gateway);
        assert_eq!(samples::resolved(&samples::route()).file.gateway, None);
    }

    #[test]
    fn a_token_of_the_pod_is_projected_for_entra_alone() {
        let with = |audience: &str, allowed: &[&str]| {
            let mut route = samples::route();
            let audience = Some(audience.to_owned());
            route.spec.tenant.authority = Some(Authority { audience, ..Default::default() });
            let allowed: Vec<_> = allowed.iter().map(|&audience| audience.to_owned()).collect();
            resolve(&route, &PlatformSettings { entra_audiences: allowed, ..Default::default() })
                .route
                .map(drop)
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
    fn high_volume_email_rewrites_senders_unless_the_route_says_otherwise() {
        let mut route = samples::submitted_to(SubmissionService::HighVolumeEmail);
        let rewritten = file::Senders { allow: vec![], on_violation: OnViolation::Rewrite };
        assert_eq!(samples::resolved(&route).file.senders, Some(rewritten));
        let rejected = Senders { allow: vec!["a@contoso.com".into()], on_violation: OnViolation::Reject };
        route.spec.senders = Some(rejected.clone());
        assert_eq!(samples::resolved(&route).file.senders, Some(rejected.into()));
        assert_eq!(samples::resolved(&samples::route()).file.senders, None);
    }

    #[test]
    fn what_an_older_schema_let_through_is_named_with_its_field() {
        type Change = fn(&mut MailRouteSpec);
        let endpoint = |s: &mut MailRouteSpec| s.endpoint = Some(Endpoint::default());
        let rewrite = |s: &mut MailRouteSpec| {
            s.senders = Some(Senders { allow: vec![], on_violation: OnViolation::Rewrite });
        };
        let durable = |s: &mut MailRouteSpec| s.delivery.durability = Durability::Gateway;
        let named = |s: &mut MailRouteSpec| s.gateway = Some(Gateway { service_name: "a.b".into() });
        let table: [(MailRoute, Change, &str); 27] = [
            (samples::route(), durable, "spec.gateway"),
            (samples::route(), named, "spec.gateway.serviceName"),
            (
                samples::with_gateway(),
                |s| s.delivery.mode = DeliveryMode::Deliver,
                "spec.delivery.durability",
            ),
            (
                samples::route(),
                |s| s.delivery.gateway_unavailable = GatewayUnavailable::Pod,
                "spec.delivery.gatewayUnavailable",
            ),
            (samples::with_operator_identity(), endpoint, "spec.endpoint"),
            (
                samples::with_operator_identity(),
                |s| s.tenant.authority = Some(Authority::default()),
                "spec.tenant.authority",
            ),
            (
                samples::with_operator_identity(),
                |s| s.tenant.cloud = Cloud::USGovernmentDoD,
                "spec.tenant.cloud",
            ),
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
                |s| s.limits.max_message_bytes = Some(Quantity("much".into())),
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
            (samples::relay(true), rewrite, "spec.senders.onViolation"),
            (samples::graph(), |s| s.graph = None, "spec.graph"),
            (
                samples::graph(),
                |s| s.graph.as_mut().unwrap().credential.client_id = None,
                "spec.graph.credential.clientId",
            ),
            (
                samples::graph(),
                |s| {
                    let credential = &mut s.graph.as_mut().unwrap().credential;
                    credential.type_ = CredentialType::Password;
                    credential.secret_ref = Some(SecretRef { name: "m365".into(), key: Some("k".into()) });
                },
                "spec.graph.credential.type",
            ),
            (
                samples::graph(),
                |s| s.graph.as_mut().unwrap().credential.subject = Subject::Operator,
                "spec.graph.credential.subject",
            ),
            (
                samples::graph(),
                |s| s.delivery.dead_letter.notify_sender = true,
                "spec.delivery.deadLetter.notifySender",
            ),
            (
                samples::graph(),
                |s| {
                    s.tenant.cloud = Cloud::USGovernmentDoD;
                    s.graph.as_mut().unwrap().fallback = GraphFallback::ClientSubmission;
                },
                "spec.graph.fallbackEndpoint.host",
            ),
            (
                samples::submitted_to(SubmissionService::HighVolumeEmail),
                |s| s.tenant.accepted_domains.clear(),
                "spec.tenant.acceptedDomains",
            ),
            (
                samples::submitted_to(SubmissionService::CommunicationServices),
                |s| s.client_submission.as_mut().unwrap().credential.subject = Subject::Operator,
                "spec.clientSubmission.credential.subject",
            ),
        ];
        for (mut route, change, field) in table {
            change(&mut route.spec);
            let settings = PlatformSettings::default();
            let error = resolve(&route, &settings).route.unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }
}

//! Objects for tests, of this crate and of those above it.

#![expect(clippy::unwrap_used, reason = "for tests alone")]

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mailroute_route::condition::Reason;
use mailroute_route::control::{Observation, Queue, Report, Usage};
use mailroute_route::file::{Durability, SubmissionService};
use mailroute_route::identity::Role;
use serde_json::json;

use crate::crd::MailRoute;
use crate::crd::delivery::Gateway;
use crate::crd::method::{
    CertificateSecretRef, CredentialType, DirectSend, Graph, GraphFallback, Method, SecretRef,
    SendingMailbox, SmtpRelay, Subject,
};
use crate::inject::{InjectedSidecar, Overrides, SidecarSettings};
use crate::pods::{PodOwner, SidecarPod};
use crate::resolve::{PlatformSettings, ResolvedRoute, resolve};

/// The application of the sample routes.
pub const CLIENT_ID: &str = "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9";

/// A route that is as simple as a route can be.
pub fn route() -> MailRoute {
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 3},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": "72f988bf-86f1-41af-91ab-2d7cd011db47"},
            "clientSubmission": {
                "mailbox": "noreply@contoso.com",
                "credential": {
                    "type": "WorkloadIdentity",
                    "clientId": CLIENT_ID,
                },
            },
        },
    }))
    .unwrap()
}

/// A route, resolved on a platform that lends and restricts nothing.
pub fn resolved(route: &MailRoute) -> ResolvedRoute {
    resolve(route, &PlatformSettings::default()).route.unwrap()
}

/// The same with the operator's identity.
pub fn with_operator_identity() -> MailRoute {
    let mut route = route();
    route.spec.client_submission.iter_mut().for_each(|it| it.credential.subject = Subject::Operator);
    route
}

/// The same with a credential from the Secret `m365`.
pub fn with_secret(type_: CredentialType, key: Option<&str>) -> MailRoute {
    let mut route = route();
    if let Some(submission) = &mut route.spec.client_submission {
        let credential = &mut submission.credential;
        credential.type_ = type_;
        credential.secret_ref = Some(SecretRef { name: "m365".into(), key: key.map(str::to_owned) });
        credential.client_id.take_if(|_| type_ == CredentialType::Password);
    }
    route
}

/// The sample route by client submission to another service.
pub fn submitted_to(service: SubmissionService) -> MailRoute {
    let mut route = route();
    route.spec.tenant.accepted_domains = vec!["contoso.com".into()];
    route.spec.client_submission.iter_mut().for_each(|it| it.service = service);
    route
}

/// The sample route with a gateway, and every message that waits in it.
pub fn with_gateway() -> MailRoute {
    let mut route = route();
    route.spec.gateway = Some(Gateway { service_name: "mail-gateway".into() });
    route.spec.delivery.durability = Durability::Gateway;
    route
}

/// The mailbox and the application of the sample route, by Graph.
pub fn graph() -> MailRoute {
    let mut route = route();
    let submission = route.spec.client_submission.take().unwrap();
    route.spec.method = Method::Graph;
    route.spec.graph = Some(Graph {
        mailbox: submission.mailbox,
        credential: submission.credential,
        fallback: GraphFallback::None,
        fallback_endpoint: None,
        max_message_bytes: Quantity("3Mi".into()),
    });
    route
}

/// A route with a further mailbox.
pub fn several() -> MailRoute {
    let mut route = route();
    if let Some(submission) = &mut route.spec.client_submission {
        let (address, senders) = ("alerts@contoso.com".into(), vec!["*@alerts.contoso.com".into()]);
        submission.mailboxes = vec![SendingMailbox { address, senders }];
    }
    route
}

/// A route by SMTP relay, with the certificate of the Secret `relay-tls` or by IP address.
pub fn relay(with_certificate: bool) -> MailRoute {
    let certificate = with_certificate.then(|| CertificateSecretRef { name: "relay-tls".into() });
    let mut route = direct();
    route.spec.method = Method::SmtpRelay;
    route.spec.direct_send = None;
    route.spec.smtp_relay = Some(SmtpRelay { certificate_secret_ref: certificate });
    route
}

/// A route by Direct Send.
pub fn direct() -> MailRoute {
    let mut route = route();
    route.spec.method = Method::DirectSend;
    route.spec.client_submission = None;
    route.spec.direct_send = Some(DirectSend {});
    route.spec.tenant.accepted_domains = vec!["contoso.com".into(), "fabrikam.com".into()];
    route
}

/// A running pod with the sidecar, as the API server shows it.
pub fn pod(name: &str, image: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("{name}-uid"),
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "labels": {"mailroute.dev/route": "notifications", "app": "web", "pod-template-hash": "5d4f"},
            "annotations": {
                "note": "long",
                "mailroute.dev/sidecar-log-level": "debug",
                "mailroute.dev/injected": "{\"image\": \"i\", \"route\": \"notifications\", \"generation\": 3, \"hash\": \"00ff\"}",
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "rs", "controller": true},
            ],
        },
        "spec": {
            "nodeName": "node-1",
            "restartPolicy": "Always",
            "initContainers": [
                {"name": "migrate", "image": "shop/migrate"},
                {"name": "mailroute", "image": image, "restartPolicy": "Always"},
            ],
            "containers": [{"name": "web", "image": "shop/web"}],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True"},
            ],
            "initContainerStatuses": [
                {"name": "migrate", "image": "", "imageID": "", "ready": true, "restartCount": 0},
                {"name": "mailroute", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                 "started": true},
            ],
        },
    }))
    .unwrap()
}

/// A running gateway pod, as the API server shows it.
pub fn gateway_pod(name: &str, image: &str) -> Pod {
    let mut pod = serde_json::to_value(pod(name, image)).unwrap();
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "mail-gateway", "uid": "set", "controller": true});
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod["spec"]["initContainers"] = json!([]);
    pod["spec"]["containers"] = json!([{"name": "mailroute", "image": image}]);
    pod["status"]["initContainerStatuses"] = json!([]);
    pod["status"]["containerStatuses"] = json!([
        {"name": "mailroute", "image": "", "imageID": "", "ready": true, "restartCount": 0, "started": true},
    ]);
    serde_json::from_value(pod).unwrap()
}

/// What is injected now.
pub fn platform() -> SidecarSettings {
    SidecarSettings { image: "mailroute.dev/sidecar:0.1.0".into(), ..SidecarSettings::default() }
}

/// A ready pod of the Deployment `web` with the sidecar that a new pod of the sample route would get.
pub fn current(name: &str) -> SidecarPod {
    let record =
        InjectedSidecar::of(Role::Sidecar, &resolved(&route()), &platform(), &Overrides::default()).record;
    SidecarPod {
        role: Role::Sidecar,
        name: name.into(),
        uid: format!("{name}-uid"),
        owner: Some(PodOwner { kind: "Deployment".into(), name: "web".into() }),
        image: Some(record.image),
        hash: Some(record.hash),
        annotations: Default::default(),
        ready: true,
        is_pod_ready: true,
        is_ending: false,
        runs_on: true,
        created: Some("2026-11-01T00:00:00Z".parse().unwrap()),
    }
}

/// A ready gateway pod of the StatefulSet `mail-gateway`, as a new one of the sample route would be.
pub fn gateway(name: &str) -> SidecarPod {
    let record =
        InjectedSidecar::of(Role::Gateway, &resolved(&route()), &platform(), &Overrides::default()).record;
    SidecarPod {
        role: Role::Gateway,
        owner: Some(PodOwner { kind: "StatefulSet".into(), name: "mail-gateway".into() }),
        image: Some(record.image),
        hash: Some(record.hash),
        ..current(name)
    }
}

/// What a sidecar met, at a second.
pub fn observation(reason: Reason, message: &str, at: i64) -> Observation {
    Observation { condition: reason.condition(), holds: reason.holds(), reason, message: message.into(), at }
}

/// A report with these observations.
pub fn report(observations: Vec<Observation>) -> Report {
    Report {
        route: "notifications".into(),
        generation: 3,
        sidecar_version: env!("CARGO_PKG_VERSION").into(),
        config_error: None,
        observations,
        queue: Queue::default(),
        usage: Usage { messages_last_minute: 1, recipients_last_24h: 2 },
        egress: None,
        left: vec![],
        gateway_error: None,
        claim: None,
        mailboxes: vec![],
    }
}

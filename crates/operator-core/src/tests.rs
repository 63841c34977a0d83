//! What the whole promises, over generated routes and platforms: whatever is accepted can be injected, whatever is injected can be
//! read by the sidecar, and what the status shows is what is mounted.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::crd::MailRoute;
use crate::inject::{self, SidecarSettings};
use crate::resolve::mailbox_rules::MailboxRules;
use crate::resolve::operator_identity::OperatorIdentity;
use crate::resolve::{PlatformSettings, RouteResolution, place, render, resolve};
use crate::rollout::plan::RolloutPlan;
use crate::samples::{self, CLIENT_ID, observation, report};
use crate::status::DnsNotice;
use crate::status::{Acceptance, RouteFacts, compute};

const CLOUDS: [&str; 4] = ["Global", "USGovernment", "USGovernmentDoD", "China"];

/// A reference to a CA bundle, or none.
fn ca() -> impl Strategy<Value = Value> {
    select(vec![json!(null), json!({"name": "m365-ca", "key": "ca.pem"})])
}

fn method() -> impl Strategy<Value = Value> {
    let types = vec!["WorkloadIdentity", "ClientSecret", "ClientCertificate", "Password"];
    let secrets = vec![json!(null), json!({"name": "m365"}), json!({"name": "m365", "key": "one"})];
    let subjects = select(vec!["Pod", "Operator"]);
    let services = select(vec!["ExchangeOnline", "HighVolumeEmail", "CommunicationServices"]);
    let credential = (select(types), subjects, select(secrets), option::weighted(0.9, Just(CLIENT_ID)))
        .prop_map(|(type_, subject, secret, client)| json!({"type": type_, "subject": subject, "secretRef": secret, "clientId": client}));
    let submission = (credential.clone(), services).prop_map(|(credential, service)| {
        json!({"method": "ClientSubmission", "clientSubmission": {
            "service": service, "mailbox": "noreply@contoso.com", "credential": credential,
        }})
    });
    let fallbacks = select(vec!["None", "ClientSubmission"]);
    let graph = (credential, fallbacks, ca()).prop_map(|(credential, fallback, ca)| {
        json!({"method": "Graph", "graph": {
            "mailbox": "noreply@contoso.com", "credential": credential, "fallback": fallback,
            "fallbackEndpoint": {"caBundleRef": ca},
        }})
    });
    let certificates = select(vec![json!(null), json!({"name": "relay-tls"})]);
    let relay = certificates.prop_map(
        |certificate| json!({"method": "SmtpRelay", "smtpRelay": {"certificateSecretRef": certificate}}),
    );
    let others = select(vec![
        json!({"method": "DirectSend", "directSend": {}}),
        json!({"method": "SmtpRelay"}),
        json!({"method": "ClientSubmission"}),
    ]);
    prop_oneof![6 => submission, 4 => graph, 3 => relay, 2 => others]
}

fn endpoint() -> impl Strategy<Value = Value> {
    let hosts = option::of(Just("mail.example.com"));
    let tls = select(vec![json!(null), json!("Required"), json!("Opportunistic")]);
    (hosts, option::of(Just(25)), tls, ca())
        .prop_map(|(host, port, tls, ca)| json!({"host": host, "port": port, "tls": tls, "caBundleRef": ca}))
}

fn authority() -> impl Strategy<Value = Value> {
    let audiences = vec![json!(null), json!("api://AzureADTokenExchange"), json!("api://private-cloud")];
    let hosts = option::of(Just("login.example.com"));
    (hosts, select(audiences), ca())
        .prop_map(|(host, audience, ca)| json!({"host": host, "audience": audience, "caBundleRef": ca}))
}

fn route() -> impl Strategy<Value = MailRoute> {
    let domains = vec![json!([]), json!(["contoso.com"]), json!(["contoso.com", "fabrikam.com"])];
    let senders = vec![
        json!(null),
        json!({"allow": ["a@contoso.com"], "onViolation": "Reject"}),
        json!({"allow": ["a@contoso.com"], "onViolation": "Rewrite"}),
    ];
    let modes = select(vec!["DeliverOrQueue", "Queue", "Deliver"]);
    let durability = select(vec![
        json!({}),
        json!({}),
        json!({"durability": "Gateway"}),
        json!({"gatewayUnavailable": "Pod"}),
    ]);
    let delivery =
        (modes, select(vec!["4s", "4s", "4s", "soon"]), durability).prop_map(|(mode, wait, mut delivery)| {
            delivery["mode"] = json!(mode);
            delivery["wait"] = json!(wait);
            delivery
        });
    let gateway = select(vec![json!(null), json!({"serviceName": "mail-gateway"})]);
    let sidecar =
        (select(vec!["1Gi", "1Gi", "much"]), option::of(Just("fast")), select(vec!["128Mi", "16Mi"]))
            .prop_map(|(size, class, limit)| {
                json!({
                    "spool": {"sizeLimit": size, "storageClassName": class},
                    "resources": {"requests": {"memory": "32Mi"}, "limits": {"memory": limit}},
                    "logAddresses": "Domain",
                })
            });
    let listen = select(vec![json!({"port": 25}), json!({"port": 2525, "auth": "Ignore"})]);
    let tenant = (select(CLOUDS.to_vec()), select(domains), option::of(authority()));
    (method(), tenant, option::of(endpoint()), select(senders), (delivery, gateway), sidecar, listen)
        .prop_map(
            |(
                mut spec,
                (cloud, domains, authority),
                endpoint,
                senders,
                (delivery, gateway),
                sidecar,
                listen,
            )| {
                spec["tenant"] = json!({
                    "id": "contoso.com", "cloud": cloud, "acceptedDomains": domains, "authority": authority,
                });
                spec["endpoint"] = json!(endpoint);
                spec["senders"] = senders;
                spec["delivery"] = delivery;
                spec["gateway"] = gateway;
                spec["sidecar"] = sidecar;
                spec["listen"] = listen;
                serde_json::from_value(json!({
                    "apiVersion": "mailroute.dev/v1alpha1",
                    "kind": "MailRoute",
                    "metadata": {"name": "notifications", "namespace": "shop", "uid": "u", "generation": 3},
                    "spec": spec,
                }))
                .unwrap()
            },
        )
}

/// Settings that lend to the namespace or to another one, in one of the clouds, over a host of their own or not.
fn settings() -> impl Strategy<Value = PlatformSettings> {
    let namespaces = || select(vec!["shop", "*", "elsewhere"]);
    let host = option::of(Just("smtp.example.com"));
    let lends = option::weighted(0.8, (select(CLOUDS.to_vec()), namespaces(), host));
    let rules = option::of(namespaces());
    (lends, rules, any::<bool>()).prop_map(|(lends, rules, has_audience)| {
        let rule = |namespace| json!({"namespaces": [namespace], "mailboxes": ["*@contoso.com"]});
        let lends = lends.map(|(cloud, namespace, host)| {
            let application = json!({
                "tenantId": "contoso.com", "clientId": CLIENT_ID, "cloud": cloud,
                "allow": [rule(namespace)], "endpoint": {"host": host},
            });
            // Where a host is needed and missing the operator does not start.
            OperatorIdentity::parse(&json!({"applications": [application]}).to_string()).unwrap_or_default()
        });
        let rules = rules.map(|namespace| {
            MailboxRules::parse(&json!({"mailboxes": [rule(namespace)]}).to_string()).unwrap()
        });
        PlatformSettings {
            operator_identity: lends.unwrap_or_default(),
            mailbox_rules: rules.unwrap_or_default(),
            entra_audiences: if has_audience { vec!["api://private-cloud".to_owned()] } else { vec![] },
            control_address: "mailroute.mail.svc:8444".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
        }
    })
}

/// A pod that has nothing of its own but a group, which a volume of a storage class needs.
fn pod() -> Value {
    json!({
        "metadata": {"labels": {"mailroute.dev/route": "notifications"}},
        "spec": {"containers": [{"name": "web"}], "securityContext": {"fsGroup": 1000}},
    })
}

/// The pod of a gateway as its owner makes it.
fn gateway() -> Value {
    json!({
        "metadata": {"labels": {"mailroute.dev/route": "notifications"}},
        "spec": {
            "containers": [{"name": "mailroute", "image": "auto"}], "securityContext": {"fsGroup": 1000},
            "volumes": [{"name": "mailroute-spool", "persistentVolumeClaim": {"claimName": "mailroute-spool-0"}}],
        },
    })
}

/// The pod with its sidecar, if it gets one.
fn injected(resolution: &RouteResolution, platform: &SidecarSettings) -> Option<Value> {
    completed(resolution, platform, pod())
}

/// The pod with what the webhook adds, if it is not refused.
fn completed(resolution: &RouteResolution, platform: &SidecarSettings, mut pod: Value) -> Option<Value> {
    let route = resolution.route.as_ref().ok()?;
    let plan = inject::plan(&pod, route, platform).ok()?;
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    Some(pod)
}

/// The status of the route while one pod reports that its credential is missing.
fn status(
    route: &MailRoute,
    resolution: &RouteResolution,
    platform: &SidecarSettings,
) -> crate::crd::MailRouteStatus {
    let acceptance = Acceptance::of(resolution, platform);
    let received = crate::reports::ReceivedReport {
        pod: "web-1".into(),
        report: report(vec![observation(Reason::SecretMissing, "", 1)]),
        at: Timestamp::UNIX_EPOCH,
        since: Timestamp::UNIX_EPOCH,
        is_told: false,
        accounted: Default::default(),
    };
    let pods = [samples::current("web-1")];
    let facts = RouteFacts {
        route,
        acceptance: &acceptance,
        resolution,
        pods: &pods,
        bare: &[],
        reports: &BTreeMap::from([(pods[0].uid.clone(), received)]),
        settling: None,
        rollout: &RolloutPlan::default(),
        federated: 0,
        dns: &DnsNotice::None,
        silent: &[],
        lost: 0,
        tenant_quota_met: false,
    };
    compute(&facts, Timestamp::UNIX_EPOCH)
}

/// The file as the sidecar reads it.
fn rendered(resolution: &RouteResolution, settings: &PlatformSettings) -> RouteFile {
    let map = render::config_map(resolution.route.as_ref().unwrap(), settings, "PEM", "PEM");
    RouteFile::parse(map.data.unwrap()["route.json"].as_bytes()).unwrap()
}

/// Every absolute path that a value names.
fn paths(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields.values().flat_map(paths).collect(),
        Value::Array(items) => items.iter().flat_map(paths).collect(),
        Value::String(text) if text.starts_with('/') => vec![text.clone()],
        _ => vec![],
    }
}

/// Every file that the volumes of the sidecar or the gateway hold, where it has them.
fn mounted(pod: &Value) -> Vec<String> {
    let native = &pod["spec"]["initContainers"][0];
    let sidecar = if native.is_null() { &pod["spec"]["containers"][0] } else { native };
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let mounts = sidecar["volumeMounts"].as_array().unwrap();
    let files = mounts.iter().flat_map(|mount| {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        let items = ["/secret/items", "/configMap/items"].into_iter().filter_map(|at| volume.pointer(at));
        let items = items.flat_map(|items| items.as_array().unwrap()).map(|item| &item["path"]);
        let tokens = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
        let tokens = tokens.map(|source| &source["serviceAccountToken"]["path"]);
        let directory = mount["mountPath"].as_str().unwrap();
        items
            .chain(tokens)
            .map(move |file| format!("{directory}/{}", file.as_str().unwrap()))
            .collect::<Vec<_>>()
    });
    files.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_accepted_is_injectable(route in route(), settings in settings()) {
        let (resolution, platform) = (resolve(&route, &settings), samples::platform());
        match Acceptance::of(&resolution, &platform) {
            Acceptance::Rendered => prop_assert!(injected(&resolution, &platform).is_some()),
            Acceptance::Refusing(_) => prop_assert!(injected(&resolution, &platform).is_none()),
            Acceptance::NotAccepted(_) | Acceptance::Unwritten(_) => {}
        }
    }

    #[test]
    fn whatever_is_injected_can_be_read_and_every_file_that_it_names_is_mounted(
        route in route(),
        settings in settings(),
    ) {
        let (resolution, platform) = (resolve(&route, &settings), samples::platform());
        for pod in [pod(), gateway()] {
            let Some(pod) = completed(&resolution, &platform, pod) else { return Ok(()) };
            let (file, mounted) = (rendered(&resolution, &settings), mounted(&pod));
            prop_assert_eq!(&file.name, "notifications");
            for path in paths(&serde_json::to_value(&file).unwrap()) {
                prop_assert!(mounted.contains(&path), "{path} is not among {mounted:?}");
            }
        }
    }

    #[test]
    fn what_the_status_shows_is_what_is_mounted(route in route(), settings in settings()) {
        let (resolution, platform) = (resolve(&route, &settings), samples::platform());
        let status = status(&route, &resolution, &platform);
        let accepted = status.conditions.iter().find(|condition| condition.type_ == "Accepted").unwrap();
        let is_accepted = Acceptance::of(&resolution, &platform) == Acceptance::Rendered;
        prop_assert_eq!(accepted.status == "True", is_accepted);
        let Some(pod) = injected(&resolution, &platform) else { return Ok(()) };
        let file = rendered(&resolution, &settings);
        prop_assert_eq!(status.endpoint, Some(place(&file.method)));
        let volumes = pod["spec"]["volumes"].as_array().unwrap().iter();
        let secret = volumes.filter_map(|volume| volume.pointer("/secret/secretName")?.as_str()).next();
        prop_assert_eq!(file.secret.as_deref(), secret);
        let credential = status.conditions.iter().find(|condition| condition.type_ == "CredentialReady");
        let message = &credential.unwrap().message;
        prop_assert!(message.contains(secret.unwrap_or("<secret>")), "{message}");
    }
}

//! What is right and wrong with an installation. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, ResourceExt};
use mailroute_operator_core::crd::{MailRoute, MailboxUsage};
use mailroute_operator_core::kubernetes_version::{NativeSidecars, OLDEST};
use mailroute_operator_core::webhook_configuration::{WebhookService, entry, findings};
use serde::Serialize;
use x509_parser::pem::Pem;

use super::seen::{Look, Operator, Seen};
use crate::status::view::RouteView;
use crate::time::{second, span};

/// How long before the end of a certificate it is named. The operator renews long before.
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The age at which a leader counts as gone: it renews its Lease every few seconds.
const LEADER_GONE: SignedDuration = SignedDuration::from_secs(60);

/// Routes that are named at most.
const NAMED: usize = 10;

/// How one part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// As it should be.
    Ok,
    /// To be looked at.
    Warning,
    /// It could not be looked at.
    NotSeen,
    /// Wrong.
    Problem,
}

/// What was found about one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Which part.
    pub part: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

fn ok(part: &'static str, found: impl Into<String>) -> Finding {
    Finding { part, state: State::Ok, found: found.into(), remedy: String::new() }
}

fn warning(part: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { part, state: State::Warning, found: found.into(), remedy: remedy.into() }
}

fn problem(part: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { part, state: State::Problem, found: found.into(), remedy: remedy.into() }
}

/// Everything that can be said. `version` is that of this program.
pub fn judge(seen: &Seen, version: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(look("kubernetes", &seen.api_server, |info| {
        vec![kubernetes(&NativeSidecars::of(info), &info.git_version)]
    }));
    found.extend(look("definitions", &seen.definitions, |it| definitions(it)));
    found.extend(look("operator", &seen.operators, |it| operators(it, version)));
    found.extend(look("leader", &seen.lease, |lease| {
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        leader(holder, spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0), seen.now)
    }));
    found.extend(look("webhook", &seen.configuration, |it| webhook(it.as_ref(), seen)));
    found.extend(look("policy", &seen.policies, |it| vec![policies(it)]));
    found.extend(look("injection", &seen.trial, |trial| {
        let Some(trial) = trial else {
            return vec![ok("injection", "not tried: there is no MailRoute to try it with")];
        };
        vec![match &trial.outcome {
            Ok(image) => ok(
                "injection",
                format!("a pod with the label of {} would get the sidecar {image}", trial.route),
            ),
            Err(why) => problem(
                "injection",
                format!("a pod with the label of {} would not start: {why}", trial.route),
                "The message says why; docs/reference/messages.md explains each.",
            ),
        }]
    }));
    found.extend(look("sidecars", &seen.pods, |_| sidecars(seen)));
    found.extend(look("routes", &seen.routes, |it| routes(it)));
    found
}

fn look<T>(part: &'static str, look: &Look<T>, judge: impl FnOnce(&T) -> Vec<Finding>) -> Vec<Finding> {
    match look {
        Ok(seen) => judge(seen),
        Err(why) => vec![Finding { part, state: State::NotSeen, found: why.clone(), remedy: String::new() }],
    }
}

/// 0: all is well. 1: there are problems. 2: something could not be looked at.
pub fn exit_code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.state).max() {
        Some(State::Problem) => 1,
        Some(State::NotSeen) => 2,
        _ => 0,
    }
}

fn kubernetes(sidecars: &NativeSidecars, version: &str) -> Finding {
    match sidecars {
        NativeSidecars::TooOld(_) => problem(
            "kubernetes",
            format!("the API server is {version}, without native sidecars"),
            format!("Upgrade Kubernetes to {OLDEST} or newer."),
        ),
        _ => ok("kubernetes", version),
    }
}

fn definitions(installed: &[CustomResourceDefinition]) -> Vec<Finding> {
    let remedy = "helm upgrade --install mailroute-crds charts/mailroute-crds";
    let wanted = [MailRoute::crd(), MailboxUsage::crd()];
    let judge = |wanted: &CustomResourceDefinition| {
        let name = wanted.name_any();
        let Some(installed) = installed.iter().find(|it| it.name_any() == name) else {
            return problem("definitions", format!("{name} is not installed"), remedy);
        };
        let conditions = installed.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is =
            |type_: &str| conditions.into_iter().flatten().any(|it| it.type_ == type_ && it.status == "True");
        if !is("Established") {
            return problem(
                "definitions",
                format!("{name} is not established"),
                format!("kubectl describe crd {name}"),
            );
        }
        let (ours, theirs) = (fields(wanted), fields(installed));
        let list = |fields: Vec<&String>| fields.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
        match (list(ours.difference(&theirs).collect()), list(theirs.difference(&ours).collect())) {
            (missing, _) if !missing.is_empty() => warning(
                "definitions",
                format!("{name} lacks fields that this program knows: {missing}"),
                format!("Upgrade the definitions, which Helm does not do by itself: {remedy}"),
            ),
            (_, more) if !more.is_empty() => warning(
                "definitions",
                format!("{name} has fields that this program does not know: {more}"),
                "Upgrade this program.",
            ),
            _ => ok("definitions", name),
        }
    };
    wanted.iter().map(judge).collect()
}

/// The fields of the spec in the version that is served.
fn fields(definition: &CustomResourceDefinition) -> BTreeSet<String> {
    let schema = definition
        .spec
        .versions
        .iter()
        .find(|version| version.name == "v1alpha1")
        .and_then(|it| it.schema.as_ref());
    let schema = schema.and_then(|schema| serde_json::to_value(schema).ok()).unwrap_or_default();
    let spec = schema.pointer("/openAPIV3Schema/properties/spec/properties").and_then(|it| it.as_object());
    spec.into_iter().flat_map(|spec| spec.keys().map(|key| format!("spec.{key}"))).collect()
}

fn operators(operators: &[Operator], version: &str) -> Vec<Finding> {
    if operators.is_empty() {
        return vec![problem(
            "operator",
            "no Deployment of the operator was found",
            "helm upgrade --install mailroute charts/mailroute, or name its namespace with --operator-namespace",
        )];
    }
    let mut found: Vec<Finding> = operators.iter().map(operator).collect();
    if let [_, _, ..] = operators {
        let names: Vec<_> = operators.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
        let text = format!("there are {}: {}", operators.len(), names.join(", "));
        found.push(warning(
            "operator",
            text,
            "One operator serves the whole cluster; several need separate watch.namespaces.",
        ));
    }
    found.extend(operators.iter().filter_map(|it| {
        let installed = it.version.as_deref().filter(|installed| *installed != version)?;
        let text = format!("the operator is {installed}, this program {version}");
        Some(warning("version", text, "Use the program of the same release."))
    }));
    found
}

fn operator(it: &Operator) -> Finding {
    let (wanted, ready) = it.replicas;
    let name = format!("{}/{}", it.namespace, it.name);
    let text = format!("{name}: {ready} of {wanted} replicas ready, image {}", it.image);
    let remedy = format!("kubectl describe pods -n {} -l app.kubernetes.io/name=mailroute", it.namespace);
    if ready == 0 {
        problem("operator", format!("{text}; no pod with the label can start"), remedy)
    } else if ready < wanted || it.is_rolling {
        warning("operator", text, remedy)
    } else {
        ok("operator", text)
    }
}

fn leader(holder: &str, renewed: Option<Timestamp>, now: Timestamp) -> Vec<Finding> {
    let remedy = "See the log of the operator.";
    vec![match renewed {
        _ if holder.is_empty() => {
            problem("leader", "no replica is the leader, so no status is written", remedy)
        }
        Some(renewed) if now.duration_since(renewed) > LEADER_GONE => problem(
            "leader",
            format!("{holder} has not renewed its Lease for {}", span(renewed, now)),
            remedy,
        ),
        _ => ok("leader", holder),
    }]
}

fn webhook(configuration: Option<&MutatingWebhookConfiguration>, seen: &Seen) -> Vec<Finding> {
    let Some(operator) = seen.operators.as_ref().ok().and_then(|operators| operators.first()) else {
        return vec![Finding {
            part: "webhook",
            state: State::NotSeen,
            found: "which Service it has to call is not known without the operator".into(),
            remedy: String::new(),
        }];
    };
    let service = WebhookService { namespace: operator.namespace.clone(), name: operator.name.clone() };
    let routes = seen.routes.as_deref().unwrap_or_default();
    let namespaces = routes.iter().map(|route| route.namespace.clone()).collect();
    let findings = findings(configuration, &service, &namespaces);
    let mut found: Vec<_> = findings
        .iter()
        .map(|finding| problem("webhook", format!("{}: {finding}", finding.reason()), ""))
        .collect();
    if found.is_empty() {
        found.push(ok(
            "webhook",
            format!("API servers ask {}/{} about labelled pods", service.namespace, service.name),
        ));
    }
    found.extend(configuration.map(|configuration| certificate(configuration, seen.now)));
    found
}

/// The CA by which API servers know the webhook.
fn certificate(configuration: &MutatingWebhookConfiguration, now: Timestamp) -> Finding {
    let remedy = "The operator writes it within a minute; see its log. With cert-manager or a Secret, see docs/guides/certificates.md.";
    let bundle = entry(configuration).and_then(|entry| entry.client_config.ca_bundle.as_ref());
    let bundle = bundle.map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    let ends = Pem::iter_from_buffer(bundle).filter_map(Result::ok).filter_map(|pem| {
        let certificate = pem.parse_x509().ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    match ends.max() {
        None => problem(
            "certificate",
            "the webhook has no caBundle that can be read, so API servers do not trust it",
            remedy,
        ),
        Some(end) if end <= now => {
            problem("certificate", format!("the webhook's CA expired at {}", second(end)), remedy)
        }
        Some(end) if end.duration_since(now) < SOON => {
            warning("certificate", format!("the webhook's CA expires at {}", second(end)), remedy)
        }
        Some(end) => ok("certificate", format!("the webhook's CA is valid until {}", second(end))),
    }
}

fn policies(found: &[String]) -> Finding {
    match found.len() {
        6.. => ok("policy", "pods that come out without their sidecar are refused"),
        0 => warning(
            "policy",
            "the admission policy is not installed: a labelled pod that the webhook does not see starts without a sidecar",
            "Set admissionPolicy.enabled in the chart's values, if that is not intended.",
        ),
        _ => problem(
            "policy",
            format!("only a part of the admission policy is there: {}", found.join(", ")),
            "helm upgrade restores it.",
        ),
    }
}

fn sidecars(seen: &Seen) -> Vec<Finding> {
    let pods = seen.pods.as_deref().unwrap_or_default();
    let mut images: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        *images.entry(pod.image.as_deref().unwrap_or("?")).or_default() += 1;
    }
    let count = |(image, count): (&&str, &usize)| format!("{count} with {image}");
    let text = format!("{} pods: {}", pods.len(), images.iter().map(count).collect::<Vec<_>>().join(", "));
    let wanted =
        seen.operators.as_ref().ok().and_then(|it| it.first()).and_then(|it| it.sidecar_image.as_deref());
    let idle: Vec<_> = pods
        .iter()
        .filter(|pod| pod.runs && !pod.ready && !pod.ending)
        .map(|pod| pod.name.as_str())
        .collect();
    let mut found = Vec::new();
    if pods.is_empty() {
        return vec![ok("sidecars", "no pod uses a MailRoute")];
    }
    match wanted {
        Some(wanted) if images.keys().any(|image| *image != wanted) => found.push(warning(
            "sidecars",
            format!("{text}; a new pod gets {wanted}"),
            "Restart the workloads, or set spec.rollout: Restart; a route's own choice of an image is no problem.",
        )),
        _ => found.push(ok("sidecars", text)),
    }
    if !idle.is_empty() {
        let named = idle.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        found.push(problem(
            "sidecars",
            format!("{} take no mail: {named}", idle.len()),
            "kubectl logs <pod> -c mailroute",
        ));
    }
    found
}

fn routes(routes: &[RouteView]) -> Vec<Finding> {
    let count = |status: &str| routes.iter().filter(|route| route.ready.status == status).count();
    let mut found = Vec::new();
    let bad = count("False");
    let text =
        format!("{} routes: {} ready, {bad} not, {} unknown", routes.len(), count("True"), count("Unknown"));
    for route in routes.iter().filter(|route| route.ready.is_bad()).take(NAMED) {
        let name = format!("{}/{}", route.namespace, route.name);
        let remedy = format!("kubectl mailroute status {} -n {}", route.name, route.namespace);
        found.push(problem("routes", format!("{name} is not ready: {}", route.ready.reason), remedy));
    }
    if bad == 0 {
        found.push(ok("routes", text));
    } else if bad > NAMED {
        found.push(problem("routes", text, "kubectl mailroute status -A"));
    }
    for (condition, part) in [
        ("DnsPublished", "dns"),
        ("FederationFits", "federation"),
        ("GatewayReady", "gateway"),
        ("CertificateValid", "certificate"),
    ] {
        let advice = routes.iter().flat_map(move |route| {
            let of = route
                .conditions
                .iter()
                .filter(move |it| it.type_ == condition && (it.is_bad() || it.warns()));
            of.map(move |it| (route, it))
        });
        for (route, it) in advice.take(NAMED) {
            let text = format!("{}/{}: {}: {}", route.namespace, route.name, it.reason, it.message);
            found.push(warning(part, text, ""));
        }
    }
    let dns = routes.iter().flat_map(|route| &route.conditions).filter(|it| it.type_ == "DnsPublished");
    if dns.clone().next().is_some() && dns.clone().all(|it| it.status == "True") {
        found.push(ok("dns", "the accepted domains publish what receivers look for"));
    }
    found
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

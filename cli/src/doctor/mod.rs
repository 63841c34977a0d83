//! `doctor`: whether the installation is as it should be.
//!
//! * [`seen`]: what is looked at. [`judge`](mod@judge): what is wrong with it. Both without I/O.
//! * Here: the looks. One that is not allowed is named with its right, and the others go on.

pub mod judge;
pub mod seen;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use mailroute_operator_core::inject::names::CONTAINER;
use serde_json::json;

use self::judge::{Finding, State, exit_code, judge};
use self::seen::{Look, Operator, Seen, Trial};
use crate::args::{Doctor, Output, PAUSE, Visit};
use crate::cluster::{Cluster, visit};
use crate::error::{Error, Right};
use crate::status::view::RouteView;
use crate::terminal::{self, Style, Terminal, Tone, clean};

/// The chart's label of everything that it installs.
const CHART: &str = "app.kubernetes.io/name=mailroute";

/// The definitions.
const DEFINITIONS: [&str; 2] = ["mailroutes.mailroute.dev", "mailboxusages.mailroute.dev"];

/// Width of the columns in front of what was found.
const COLUMNS: (usize, usize) = (9, 12);

/// Looks at the installation. The exit code says how it is.
///
/// # Errors
/// When the output cannot be written.
pub async fn run(options: &Doctor, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    terminal.progress("looking at the installation …");
    let seen = look(options, cluster).await;
    terminal.progress("");
    let findings = judge(&seen, env!("CARGO_PKG_VERSION"));
    let code = exit_code(&findings);
    let text = match options.output {
        Output::Json => terminal::json(&json!({"well": code == 0, "findings": findings})),
        Output::Text => print(&findings, terminal.style),
    };
    terminal.say(&text)?;
    Ok(code)
}

/// Findings as text.
fn print(findings: &[Finding], style: Style) -> String {
    let (left, right) = COLUMNS;
    let line = |finding: &Finding| {
        let (word, tone) = match finding.state {
            State::Ok => ("ok", Tone::Good),
            State::Warning => ("WARNING", Tone::Warning),
            State::Problem => ("PROBLEM", Tone::Bad),
            State::NotSeen => ("not seen", Tone::Warning),
        };
        let found = style.wrapped(&clean(&finding.found.replace('\n', ";")), left + right);
        let remedy = if finding.remedy.is_empty() {
            String::new()
        } else {
            style.wrapped(&clean(&finding.remedy), left + right)
        };
        let head = format!(
            "{}{}",
            style.paint(tone, &format!("{word:left$}")),
            format_args!("{:right$}", finding.part)
        );
        format!("{head}{}{remedy}", found.trim_start())
    };
    let mut text: String = findings.iter().map(line).collect();
    text.push_str(match exit_code(findings) {
        0 => "\nAll is well.\n",
        1 => "\nThere are problems.\n",
        _ => "\nNo problem was found, but not all of it could be looked at.\n",
    });
    text
}

async fn look(options: &Doctor, cluster: &Cluster) -> Seen {
    let operators = operators(options, cluster).await;
    let first = operators.as_ref().ok().and_then(|operators| operators.first()).cloned();
    let (api_server, definitions, routes, pods) =
        tokio::join!(api_server(cluster), definitions(cluster), routes(cluster), pods(cluster));
    let (lease, configuration, policies) = match &first {
        Some(operator) => tokio::join!(
            lease(cluster, operator),
            configuration(cluster, operator),
            policies(cluster, operator)
        ),
        None => (without(), without(), without()),
    };
    let trial = match &routes {
        Ok(routes) => trial(cluster, routes).await,
        Err(why) => Err(why.clone()),
    };
    Seen {
        api_server,
        definitions,
        operators,
        lease,
        configuration,
        policies,
        routes,
        pods,
        trial,
        now: Timestamp::now(),
    }
}

fn without<T>() -> Look<T> {
    Err("which ones are the operator's is not known without it".to_owned())
}

fn why(error: &kube::Error, right: Right) -> String {
    Error::of(error, right).to_string()
}

async fn api_server(cluster: &Cluster) -> Look<k8s_openapi::apimachinery::pkg::version::Info> {
    cluster
        .client()
        .apiserver_version()
        .await
        .map_err(|error| why(&error, Right::new("get", "/version", None)))
}

async fn definitions(cluster: &Cluster) -> Look<Vec<CustomResourceDefinition>> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let mut found = Vec::new();
    for name in DEFINITIONS {
        let right = || Right::new("get", "customresourcedefinitions.apiextensions.k8s.io", None);
        found.extend(api.get_opt(name).await.map_err(|error| why(&error, right()))?);
    }
    Ok(found)
}

async fn operators(options: &Doctor, cluster: &Cluster) -> Look<Vec<Operator>> {
    let namespace = options.operator_namespace.as_deref();
    let api: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client(), namespace),
        None => Api::all(cluster.client()),
    };
    let listed = api.list(&ListParams::default().labels(CHART)).await;
    let listed = listed.map_err(|error| why(&error, Right::new("list", "deployments.apps", namespace)))?;
    Ok(listed.items.iter().filter_map(Operator::of).collect())
}

async fn lease(cluster: &Cluster, operator: &Operator) -> Look<Option<Lease>> {
    let api: Api<Lease> = Api::namespaced(cluster.client(), &operator.namespace);
    let right = Right::new("get", "leases.coordination.k8s.io", Some(&operator.namespace));
    api.get_opt(&operator.name).await.map_err(|error| why(&error, right))
}

async fn configuration(cluster: &Cluster, operator: &Operator) -> Look<Option<MutatingWebhookConfiguration>> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(cluster.client());
    let right = Right::new("get", "mutatingwebhookconfigurations.admissionregistration.k8s.io", None);
    api.get_opt(&operator.name).await.map_err(|error| why(&error, right))
}

/// The names of the policies and bindings that the chart installs, as far as they are there.
async fn policies(cluster: &Cluster, operator: &Operator) -> Look<Vec<String>> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(cluster.client());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(cluster.client());
    let right = |resource| Right::new("get", resource, None);
    let mut found = Vec::new();
    for name in ["", "-namespaces", "-pod-updates"].map(|part| format!("{}{part}", operator.name)) {
        let policy = policies.get_opt(&name).await.map_err(|error| {
            why(&error, right("validatingadmissionpolicies.admissionregistration.k8s.io"))
        })?;
        found.extend(policy.map(|it| format!("policy {}", it.name_any())));
        let binding = bindings.get_opt(&name).await.map_err(|error| {
            why(&error, right("validatingadmissionpolicybindings.admissionregistration.k8s.io"))
        })?;
        found.extend(binding.map(|it| format!("binding {}", it.name_any())));
    }
    Ok(found)
}

/// The routes of all namespaces; of one's own where others may not be seen.
async fn routes(cluster: &Cluster) -> Look<Vec<RouteView>> {
    let routes = match cluster.routes(None).await {
        Err(error) if error.is_denied() => cluster.routes(Some(cluster.namespace())).await,
        routes => routes,
    };
    routes.map(|routes| routes.iter().map(RouteView::of).collect()).map_err(|error| error.to_string())
}

async fn pods(cluster: &Cluster) -> Look<Vec<crate::cluster::pods::RoutePod>> {
    let pods = match cluster.route_pods(None, None).await {
        Err(error) if error.is_denied() => cluster.route_pods(Some(cluster.namespace()), None).await,
        pods => pods,
    };
    pods.map_err(|error| error.to_string())
}

/// Has a labelled pod admitted without making it, in the namespace of a route: that of this command if it has one.
async fn trial(cluster: &Cluster, routes: &[RouteView]) -> Look<Option<Trial>> {
    let accepted = |route: &&RouteView| {
        route.conditions.iter().any(|condition| condition.type_ == "Accepted" && condition.status == "True")
    };
    let own = routes.iter().filter(accepted).find(|route| route.namespace == cluster.namespace());
    let Some(route) = own.or_else(|| routes.iter().find(accepted)) else { return Ok(None) };
    let options =
        Visit { service_account: "default".into(), image: PAUSE.into(), timeout: 60, ..Visit::default() };
    let pod =
        serde_json::from_value(visit::manifest(&route.name, &options)).map_err(|error| error.to_string())?;
    let api: Api<Pod> = Api::namespaced(cluster.client(), &route.namespace);
    let tried = api.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await;
    let outcome = match tried {
        Ok(pod) => {
            let containers = pod.spec.and_then(|spec| spec.init_containers).unwrap_or_default();
            let image = containers.into_iter().find(|it| it.name == CONTAINER).and_then(|it| it.image);
            image.ok_or_else(|| "it came out without the sidecar: the webhook was not asked".to_owned())
        }
        Err(error) => match visit::refusal(&error, Right::new("create", "pods", Some(&route.namespace))) {
            Error::Refused(why) => Err(why),
            other => return Err(other.to_string()),
        },
    };
    Ok(Some(Trial { route: format!("{}/{}", route.namespace, route.name), outcome }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_a_line_for_each_part_and_below_it_what_to_do() {
        let finding = |part, state, found: &str, remedy: &str| Finding {
            part,
            state,
            found: found.into(),
            remedy: remedy.into(),
        };
        let findings = [
            finding("kubernetes", State::Ok, "v1.36.0", ""),
            finding(
                "operator",
                State::Problem,
                "mail/mailroute: 0 of 2 replicas ready\x1b",
                "kubectl describe pods",
            ),
            finding("policy", State::NotSeen, "you lack a right: get x\n  check it", ""),
        ];
        let expected = "\
ok       kubernetes  v1.36.0
PROBLEM  operator    mail/mailroute: 0 of 2 replicas ready\u{fffd}
                     kubectl describe pods
not seen policy      you lack a right: get x;  check it

There are problems.
";
        assert_eq!(print(&findings, Style::default()), expected);
    }
}

//! Our entries, judged as they stand: do they call us, about every pod that wants a sidecar, and about no other? Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::crd::ROUTE_LABEL;
use crate::inject::names::INJECT_LABEL;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};

use super::entry::{NAMESPACE_WEBHOOK, WEBHOOK, entry};
use super::finding::ConfigurationFinding;

/// The label by which Kubernetes names every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Our Service, as the entry has to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is wrong with the configuration, given the namespaces that have MailRoutes.
pub fn findings(
    configuration: Option<&MutatingWebhookConfiguration>,
    service: &WebhookService,
    namespaces: &BTreeSet<String>,
) -> BTreeSet<ConfigurationFinding> {
    let Some(entry) = configuration.and_then(entry) else {
        return [ConfigurationFinding::EntryMissing].into();
    };
    let mut found = BTreeSet::new();
    let mut note = |holds: bool, finding: ConfigurationFinding| {
        if holds {
            found.insert(finding);
        }
    };
    note(!calls(entry, service), ConfigurationFinding::NotOurService);
    note(!covers_pods(entry), ConfigurationFinding::PodsNotCovered);
    let objects = entry.object_selector.clone().unwrap_or_default();
    note(selects(&objects, &[]), ConfigurationFinding::TooWide);
    note(!selects(&objects, &[(ROUTE_LABEL, "any")]), ConfigurationFinding::TooNarrow);
    let (excluded, labels) = judge(entry.namespace_selector.as_ref(), namespaces);
    note(!excluded.is_empty(), ConfigurationFinding::NamespacesExcluded(excluded));
    note(!labels.is_empty(), ConfigurationFinding::NamespaceLabels(labels));
    note(is_failure_ignored(entry), ConfigurationFinding::FailureIgnored);
    found.extend(configuration.and_then(|configuration| about_namespaces(configuration, service)));
    found
}

/// What is wrong with the entry about pods of namespaces that name a route.
fn about_namespaces(
    configuration: &MutatingWebhookConfiguration,
    service: &WebhookService,
) -> Option<ConfigurationFinding> {
    let place = |name: &str| configuration.webhooks.iter().flatten().position(|entry| entry.name == name);
    let Some(at) = place(NAMESPACE_WEBHOOK) else { return Some(ConfigurationFinding::NamespaceEntryMissing) };
    let entry = configuration.webhooks.as_ref()?.get(at)?;
    let [objects, namespaces] = [&entry.object_selector, &entry.namespace_selector]
        .map(|selector| selector.clone().unwrap_or_default());
    let is_too_wide = selects(&objects, &[(ROUTE_LABEL, "any")])
        || selects(&objects, &[(INJECT_LABEL, "false")])
        || selects(&namespaces, &[(NAMESPACE_NAME, "any")]);
    let is_ineffective = !calls(entry, service)
        || !covers_pods(entry)
        || !selects(&objects, &[])
        || is_failure_ignored(entry)
        || place(WEBHOOK).is_some_and(|other| other < at);
    if is_too_wide {
        return Some(ConfigurationFinding::NamespaceEntryTooWide);
    }
    is_ineffective.then_some(ConfigurationFinding::NamespaceEntryIneffective)
}

fn is_failure_ignored(entry: &MutatingWebhook) -> bool {
    entry.failure_policy.as_deref() == Some("Ignore")
}

fn calls(entry: &MutatingWebhook, service: &WebhookService) -> bool {
    entry
        .client_config
        .service
        .as_ref()
        .is_some_and(|called| called.name == service.name && called.namespace == service.namespace)
}

fn covers_pods(entry: &MutatingWebhook) -> bool {
    let has = |list: Option<&Vec<String>>, wanted: &str| {
        list.into_iter().flatten().any(|item| item == wanted || item == "*")
    };
    entry.rules.iter().flatten().any(|rule| {
        has(rule.api_groups.as_ref(), "")
            && has(rule.api_versions.as_ref(), "v1")
            && has(rule.resources.as_ref(), "pods")
            && has(rule.operations.as_ref(), "CREATE")
    })
}

fn selects(selector: &LabelSelector, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    // The API server stores none that cannot be read.
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
}

/// Of a namespace only its name is known here: by name it is judged; what asks for other labels is named.
fn judge(
    selector: Option<&LabelSelector>,
    namespaces: &BTreeSet<String>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let Some(selector) = selector else { return Default::default() };
    let requirements = selector.match_expressions.iter().flatten();
    let by_name: Vec<_> = requirements.clone().filter(|it| it.key == NAMESPACE_NAME).cloned().collect();
    let names = LabelSelector {
        match_expressions: Some(by_name),
        match_labels: selector.match_labels.clone().map(|mut labels| {
            labels.retain(|key, _| key == NAMESPACE_NAME);
            labels
        }),
    };
    let is_asked_for = |it: &&LabelSelectorRequirement| {
        it.key != NAMESPACE_NAME && matches!(it.operator.as_str(), "In" | "Exists")
    };
    let asked = requirements.filter(is_asked_for).map(|it| it.key.clone());
    let equal = selector.match_labels.iter().flat_map(BTreeMap::keys);
    let equal = equal.filter(|key| *key != NAMESPACE_NAME).cloned();
    let excluded = namespaces.iter().filter(|name| !selects(&names, &[(NAMESPACE_NAME, name)]));
    (excluded.cloned().collect(), asked.chain(equal).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the chart makes it, with a part of the entry replaced.
    fn configuration(path: &str, value: Value) -> MutatingWebhookConfiguration {
        let entry = |name: &str, objects: Value, namespaces: Value| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {"service": {"name": "mailroute", "namespace": "mail", "path": "/inject"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "objectSelector": {"matchExpressions": objects},
                "namespaceSelector": {"matchExpressions": namespaces},
            })
        };
        let reachable =
            json!({"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["kube-system", "mail"]});
        let exists = json!({"key": ROUTE_LABEL, "operator": "Exists"});
        let of_none = json!([
            {"key": ROUTE_LABEL, "operator": "DoesNotExist"},
            {"key": INJECT_LABEL, "operator": "NotIn", "values": ["false"]},
        ]);
        let mut configuration = json!({
            "metadata": {"name": "mailroute", "uid": "u-1"},
            "webhooks": [
                entry(NAMESPACE_WEBHOOK, of_none, json!([reachable, exists])),
                entry(WEBHOOK, json!([exists]), json!([reachable])),
            ],
        });
        if !path.is_empty() {
            *configuration.pointer_mut(path).unwrap() = value;
        }
        serde_json::from_value(configuration).unwrap()
    }

    fn found(path: &str, value: Value) -> Vec<&'static str> {
        let service = WebhookService { namespace: "mail".into(), name: "mailroute".into() };
        let namespaces = ["shop".to_owned(), "news".to_owned()].into();
        let found = findings(Some(&configuration(path, value)), &service, &namespaces);
        found.iter().map(ConfigurationFinding::reason).collect()
    }

    #[test]
    fn nothing_is_found_in_what_the_chart_makes() {
        assert_eq!(found("", Value::Null), Vec::<&str>::new());
    }

    #[test]
    fn what_the_aks_enforcer_adds_is_no_finding() {
        let selector = json!({"matchExpressions": [
            {"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["kube-system", "mail"]},
            {"key": "control-plane", "operator": "DoesNotExist"},
            {"key": "kubernetes.azure.com/managedby", "operator": "NotIn", "values": ["aks"]},
        ]});
        assert_eq!(found("/webhooks/1/namespaceSelector", selector), Vec::<&str>::new());
    }

    #[test]
    fn every_change_that_matters_is_found() {
        let label = |operator| json!([{"key": "team", "operator": operator, "values": ["mail"]}]);
        let cases = [
            ("/webhooks/1/name", json!("other.example.com"), "WebhookEntryMissing"),
            ("/webhooks/1/clientConfig/service/name", json!("other"), "WebhookNotOurService"),
            ("/webhooks/1/clientConfig", json!({"url": "https://a.example.com"}), "WebhookNotOurService"),
            ("/webhooks/1/rules/0/operations", json!(["UPDATE"]), "WebhookPodsNotCovered"),
            ("/webhooks/1/rules", json!([]), "WebhookPodsNotCovered"),
            ("/webhooks/1/objectSelector", Value::Null, "WebhookTooWide"),
            ("/webhooks/1/objectSelector/matchExpressions", label("NotIn"), "WebhookTooWide"),
            ("/webhooks/1/objectSelector/matchExpressions", label("In"), "WebhookTooNarrow"),
            ("/webhooks/1/namespaceSelector/matchExpressions", label("In"), "WebhookNamespaceLabels"),
            (
                "/webhooks/1/namespaceSelector",
                json!({"matchLabels": {"mail": "on"}}),
                "WebhookNamespaceLabels",
            ),
            ("/webhooks/1/failurePolicy", json!("Ignore"), "WebhookFailureIgnored"),
        ];
        for (path, value, reason) in cases {
            assert_eq!(found(path, value), [reason], "{path}");
        }
    }

    #[test]
    fn every_change_of_the_entry_about_namespaces_that_matters_is_found() {
        let none = |key: &str| json!([{"key": key, "operator": "DoesNotExist"}]);
        let exists = |key: &str| json!([{"key": key, "operator": "Exists"}]);
        let cases = [
            ("name", json!("other.example.com"), "WebhookNamespaceEntryMissing"),
            ("objectSelector", Value::Null, "WebhookNamespaceEntryTooWide"),
            ("objectSelector/matchExpressions", none(ROUTE_LABEL), "WebhookNamespaceEntryTooWide"),
            ("objectSelector/matchExpressions", none(INJECT_LABEL), "WebhookNamespaceEntryTooWide"),
            ("namespaceSelector", Value::Null, "WebhookNamespaceEntryTooWide"),
            ("objectSelector/matchExpressions", exists("team"), "WebhookNamespaceEntryIneffective"),
            ("clientConfig/service/name", json!("other"), "WebhookNamespaceEntryIneffective"),
            ("rules", json!([]), "WebhookNamespaceEntryIneffective"),
            ("failurePolicy", json!("Ignore"), "WebhookNamespaceEntryIneffective"),
        ];
        for (path, value, reason) in cases {
            assert_eq!(found(&format!("/webhooks/0/{path}"), value), [reason], "{path}");
        }
        let mut turned = configuration("", Value::Null);
        turned.webhooks.as_mut().unwrap().reverse();
        let service = WebhookService { namespace: "mail".into(), name: "mailroute".into() };
        let found = findings(Some(&turned), &service, &BTreeSet::new());
        assert_eq!(found, [ConfigurationFinding::NamespaceEntryIneffective].into());
    }

    #[test]
    fn a_namespace_with_routes_that_is_left_out_is_named() {
        let selector = json!([{"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["news", "test"]}]);
        let configuration = configuration("/webhooks/1/namespaceSelector/matchExpressions", selector);
        let service = WebhookService { namespace: "mail".into(), name: "mailroute".into() };
        let found = findings(Some(&configuration), &service, &["shop".into(), "news".into()].into());
        assert_eq!(found, [ConfigurationFinding::NamespacesExcluded(["news".to_owned()].into())].into());
        assert!(found.first().unwrap().to_string().contains("excludes news"));
    }

    #[test]
    fn without_the_configuration_its_entry_is_missing() {
        let service = WebhookService { namespace: "mail".into(), name: "mailroute".into() };
        assert_eq!(findings(None, &service, &BTreeSet::new()), [ConfigurationFinding::EntryMissing].into());
    }
}

//! Whether API servers ask us about the pods that want a sidecar: our entry in the MutatingWebhookConfiguration, as it is
//! now, whoever wrote it.
//!
//! The operator owns the `caBundle` of its entry and nothing else. Selectors, rules and policy belong to the chart, and
//! others change them: AKS adds expressions to `namespaceSelector`, people narrow it. What would let a labelled pod start
//! without its sidecar, or would send pods here that nobody labelled, is found, and told of, and left as it is.
//!
//! Pure, apart from [`watch`], which tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use tokio::sync::watch as channel;
use tokio::time::sleep;

use crate::controller::watch::filled;
use crate::crd::{MailRoute, ROUTE_LABEL};
use crate::events::Events;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::pki::{Registration, trust};

/// The label by which Kubernetes names every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// After a change of the routes, others that come within this time are taken along.
const GATHER: Duration = Duration::from_secs(1);

/// Namespaces that one finding names at most.
const NAMED: usize = 5;

/// Something about the entry that is not as the chart makes it, and matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// There is no such configuration, or no entry of ours in it.
    EntryMissing,
    /// The entry calls something else than our Service.
    NotOurService,
    /// Its rules leave out that pods are created.
    PodsNotCovered,
    /// Pods that nobody labelled are sent here too.
    TooWide,
    /// Pods need more than the label.
    TooNarrow,
    /// Namespaces need a label; which ones have it is not known here.
    NamespaceLabels(BTreeSet<String>),
    /// These namespaces have routes, and are left out.
    NamespacesExcluded(BTreeSet<String>),
    /// A failing call lets pods through.
    FailureIgnored,
}

impl Finding {
    /// Every reason that a finding can have: the closed set of the metric's label.
    pub const REASONS: [&str; 8] = [
        "WebhookEntryMissing",
        "WebhookNotOurService",
        "WebhookPodsNotCovered",
        "WebhookTooWide",
        "WebhookTooNarrow",
        "WebhookNamespaceLabels",
        "WebhookNamespacesExcluded",
        "WebhookFailureIgnored",
    ];

    /// Its reason, for Events and the metric.
    pub const fn reason(&self) -> &'static str {
        let index = match self {
            Self::EntryMissing => 0,
            Self::NotOurService => 1,
            Self::PodsNotCovered => 2,
            Self::TooWide => 3,
            Self::TooNarrow => 4,
            Self::NamespaceLabels(_) => 5,
            Self::NamespacesExcluded(_) => 6,
            Self::FailureIgnored => 7,
        };
        Self::REASONS[index]
    }
}

impl fmt::Display for Finding {
    /// What is wrong, what comes of it, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without = "start without a sidecar, or are refused by the policy of the chart";
        match self {
            Self::EntryMissing => write!(
                f,
                "The configuration has no entry {}, so labelled pods {without}. helm upgrade puts it back.",
                trust::WEBHOOK
            ),
            Self::NotOurService => write!(
                f,
                "The entry does not call the Service of this operator, so labelled pods {without}. helm upgrade puts \
                 it right."
            ),
            Self::PodsNotCovered => write!(
                f,
                "The rules of the entry do not cover the creation of pods, so labelled pods {without}. helm upgrade \
                 puts them right."
            ),
            Self::TooWide => write!(
                f,
                "objectSelector lets pods without the label {ROUTE_LABEL} through to the operator; while it is away, \
                 none of them can be created. helm upgrade puts it right."
            ),
            Self::TooNarrow => write!(
                f,
                "objectSelector asks for more than the label {ROUTE_LABEL}, so some labelled pods {without}. helm \
                 upgrade puts it right."
            ),
            Self::NamespaceLabels(keys) => write!(
                f,
                "namespaceSelector asks for namespaces with the label {}; in others, labelled pods {without}.",
                some(keys)
            ),
            Self::NamespacesExcluded(namespaces) => write!(
                f,
                "namespaceSelector leaves out {}, where there are MailRoutes; labelled pods there {without}. Move the \
                 MailRoutes, or take the namespace out of the selector.",
                some(namespaces)
            ),
            Self::FailureIgnored => write!(
                f,
                "failurePolicy is Ignore: while the operator is away, labelled pods {without}. helm upgrade puts it \
                 right."
            ),
        }
    }
}

fn some(names: &BTreeSet<String>) -> String {
    let first: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", first.join(", "))
}

/// Our Service, as the entry has to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is wrong with the configuration, given the namespaces that have MailRoutes.
pub fn findings(
    configuration: Option<&MutatingWebhookConfiguration>,
    service: &Service,
    namespaces: &BTreeSet<String>,
) -> BTreeSet<Finding> {
    let Some(entry) = configuration.and_then(trust::entry) else { return [Finding::EntryMissing].into() };
    let mut found = BTreeSet::new();
    let mut note = |holds: bool, finding: Finding| {
        if holds {
            found.insert(finding);
        }
    };
    note(!calls(entry, service), Finding::NotOurService);
    note(!covers_pods(entry), Finding::PodsNotCovered);
    let objects = entry.object_selector.clone().unwrap_or_default();
    note(selects(&objects, &[]), Finding::TooWide);
    note(!selects(&objects, &[(ROUTE_LABEL, "any")]), Finding::TooNarrow);
    let (excluded, labels) = judge(entry.namespace_selector.as_ref(), namespaces);
    note(!excluded.is_empty(), Finding::NamespacesExcluded(excluded));
    note(!labels.is_empty(), Finding::NamespaceLabels(labels));
    note(entry.failure_policy.as_deref() == Some("Ignore"), Finding::FailureIgnored);
    found
}

fn calls(entry: &MutatingWebhook, service: &Service) -> bool {
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

/// What telling needs.
pub struct Watch {
    /// The configuration.
    pub registration: channel::Receiver<Registration>,
    /// Our Service.
    pub service: Service,
    /// Where MailRoutes are.
    pub routes: Store<MailRoute>,
    /// Changes with every change of those.
    pub changes: channel::Receiver<u64>,
    /// Whether this replica is the one that speaks.
    pub leadership: channel::Receiver<Leadership>,
    /// For every replica's metric.
    pub metrics: Metrics,
    /// For the leader's Events.
    pub events: Events,
}

/// Keeps the metric right, and has the leader log each new finding and put an Event on the configuration. Ends when what
/// it watches ends.
pub async fn watch(mut watch: Watch) {
    let mut told = BTreeSet::new();
    // Until MailRoutes are listed, no namespace is known to have some.
    filled(&watch.routes).await;
    loop {
        let leading = watch.leadership.borrow_and_update().leading;
        let registration = watch.registration.borrow_and_update().clone();
        watch.changes.mark_unchanged();
        if let Some(configuration) = registration {
            let found = findings(configuration.as_ref(), &watch.service, &watch.namespaces());
            watch.metrics.webhook_findings(found.iter().map(Finding::reason));
            if leading {
                found.difference(&told).for_each(|news| watch.tell(configuration.as_ref(), news));
            }
            // A new leader says again what it finds.
            told = if leading { found } else { BTreeSet::new() };
        }
        let ended = tokio::select! {
            changed = watch.registration.changed() => changed.is_err(),
            // Routes change often, and where they are seldom does.
            changed = watch.changes.changed() => { sleep(GATHER).await; changed.is_err() }
            changed = watch.leadership.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// Logs that another actor had changed the `caBundle`, and puts an Event on the configuration that names it.
pub fn tell_of_repair(configuration: &MutatingWebhookConfiguration, events: &Events) {
    let by = trust::other_owner(configuration).unwrap_or("another writer");
    tracing::warn!(by, "the caBundle of the webhook configuration was changed, and is put right");
    let note = format!(
        "{by} changed the caBundle of {}, which the operator keeps; it is put right. While it is wrong, labelled pods \
         cannot be created: keep {by} from writing that field.",
        trust::WEBHOOK
    );
    events.warn(configuration.object_ref(&()), "CaBundleRepaired", "Admission", note);
}

impl Watch {
    fn namespaces(&self) -> BTreeSet<String> {
        self.routes.state().iter().filter_map(|route| route.namespace()).collect()
    }

    fn tell(&self, configuration: Option<&MutatingWebhookConfiguration>, finding: &Finding) {
        tracing::warn!(reason = finding.reason(), %finding, "the webhook configuration was changed");
        if let Some(configuration) = configuration {
            let regarding = configuration.object_ref(&());
            self.events.warn(regarding, finding.reason(), "Admission", finding.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As the chart makes it, with a part of the entry replaced.
    fn configuration(path: &str, value: Value) -> MutatingWebhookConfiguration {
        let mut configuration = json!({
            "metadata": {"name": "mailroute", "uid": "u-1"},
            "webhooks": [{
                "name": trust::WEBHOOK,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "clientConfig": {"service": {"name": "mailroute", "namespace": "mail", "path": "/inject"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "objectSelector": {"matchExpressions": [{"key": ROUTE_LABEL, "operator": "Exists"}]},
                "namespaceSelector": {"matchExpressions": [
                    {"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["kube-system", "mail"]},
                ]},
            }],
        });
        if !path.is_empty() {
            *configuration.pointer_mut(path).unwrap() = value;
        }
        serde_json::from_value(configuration).unwrap()
    }

    fn found(path: &str, value: Value) -> Vec<&'static str> {
        let service = Service { namespace: "mail".into(), name: "mailroute".into() };
        let namespaces = ["shop".to_owned(), "news".to_owned()].into();
        let found = findings(Some(&configuration(path, value)), &service, &namespaces);
        found.iter().map(Finding::reason).collect()
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
        assert_eq!(found("/webhooks/0/namespaceSelector", selector), Vec::<&str>::new());
    }

    #[test]
    fn every_change_that_matters_is_found() {
        let label = |operator| json!([{"key": "team", "operator": operator, "values": ["mail"]}]);
        let cases = [
            ("/webhooks/0/name", json!("other.example.com"), "WebhookEntryMissing"),
            ("/webhooks/0/clientConfig/service/name", json!("other"), "WebhookNotOurService"),
            ("/webhooks/0/clientConfig", json!({"url": "https://a.example.com"}), "WebhookNotOurService"),
            ("/webhooks/0/rules/0/operations", json!(["UPDATE"]), "WebhookPodsNotCovered"),
            ("/webhooks/0/rules", json!([]), "WebhookPodsNotCovered"),
            ("/webhooks/0/objectSelector", Value::Null, "WebhookTooWide"),
            ("/webhooks/0/objectSelector/matchExpressions", label("NotIn"), "WebhookTooWide"),
            ("/webhooks/0/objectSelector/matchExpressions", label("In"), "WebhookTooNarrow"),
            ("/webhooks/0/namespaceSelector/matchExpressions", label("In"), "WebhookNamespaceLabels"),
            (
                "/webhooks/0/namespaceSelector",
                json!({"matchLabels": {"mail": "on"}}),
                "WebhookNamespaceLabels",
            ),
            ("/webhooks/0/failurePolicy", json!("Ignore"), "WebhookFailureIgnored"),
        ];
        for (path, value, reason) in cases {
            assert_eq!(found(path, value), [reason], "{path}");
        }
    }

    #[test]
    fn a_namespace_with_routes_that_is_left_out_is_named() {
        let selector = json!([{"key": NAMESPACE_NAME, "operator": "NotIn", "values": ["news", "test"]}]);
        let configuration = configuration("/webhooks/0/namespaceSelector/matchExpressions", selector);
        let service = Service { namespace: "mail".into(), name: "mailroute".into() };
        let found = findings(Some(&configuration), &service, &["shop".into(), "news".into()].into());
        assert_eq!(found, [Finding::NamespacesExcluded(["news".to_owned()].into())].into());
        assert!(found.first().unwrap().to_string().contains("leaves out news"));
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: BTreeSet<_> = (0..9).map(|n| format!("n{n}")).collect();
        assert!(Finding::NamespacesExcluded(many).to_string().contains("n4 and 4 more"));
    }

    #[test]
    fn without_the_configuration_its_entry_is_missing() {
        let service = Service { namespace: "mail".into(), name: "mailroute".into() };
        assert_eq!(findings(None, &service, &BTreeSet::new()), [Finding::EntryMissing].into());
    }
}

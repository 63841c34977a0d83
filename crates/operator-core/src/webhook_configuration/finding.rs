//! What can be wrong with our entry, each with its reason, its consequence and its remedy.

use std::collections::BTreeSet;
use std::fmt;

use crate::crd::ROUTE_LABEL;

use super::entry::{NAMESPACE_WEBHOOK, WEBHOOK};

/// Namespaces that one finding names at most.
const NAMED: usize = 5;

/// A difference between the entry and what the chart installs that matters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigurationFinding {
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
    /// There is no entry about pods of namespaces that name a route.
    NamespaceEntryMissing,
    /// That entry sends pods here that have a label of their own, or opted out, or are of namespaces that name no route.
    NamespaceEntryTooWide,
    /// That entry does not make API servers ask us about every such pod, in time for the other entry.
    NamespaceEntryIneffective,
}

impl ConfigurationFinding {
    /// Every reason that a finding can have: the closed set of the metric's label.
    pub const REASONS: [&str; 11] = [
        "WebhookEntryMissing",
        "WebhookNotOurService",
        "WebhookPodsNotCovered",
        "WebhookTooWide",
        "WebhookTooNarrow",
        "WebhookNamespaceLabels",
        "WebhookNamespacesExcluded",
        "WebhookFailureIgnored",
        "WebhookNamespaceEntryMissing",
        "WebhookNamespaceEntryTooWide",
        "WebhookNamespaceEntryIneffective",
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
            Self::NamespaceEntryMissing => 8,
            Self::NamespaceEntryTooWide => 9,
            Self::NamespaceEntryIneffective => 10,
        };
        Self::REASONS[index]
    }
}

impl fmt::Display for ConfigurationFinding {
    /// What is wrong, what comes of it, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without = "start without a sidecar, or are refused by the policy of the chart";
        match self {
            Self::EntryMissing => write!(
                f,
                "The configuration has no entry {}, so labelled pods {without}. helm upgrade restores it.",
                WEBHOOK
            ),
            Self::NotOurService => write!(
                f,
                "The entry does not call the Service of this operator, so labelled pods {without}. helm upgrade restores it."
            ),
            Self::PodsNotCovered => write!(
                f,
                "The rules of the entry do not cover the creation of pods, so labelled pods {without}. helm upgrade \
                 restores them."
            ),
            Self::TooWide => write!(
                f,
                "objectSelector sends pods without the label {ROUTE_LABEL} to the operator; while it is down, none of them \
                 can be created. helm upgrade restores it."
            ),
            Self::TooNarrow => write!(
                f,
                "objectSelector requires more than the label {ROUTE_LABEL}, so some labelled pods {without}. helm upgrade \
                 restores it."
            ),
            Self::NamespaceLabels(keys) => write!(
                f,
                "namespaceSelector requires namespaces with the label {}; in others, labelled pods {without}.",
                some(keys)
            ),
            Self::NamespacesExcluded(namespaces) => write!(
                f,
                "namespaceSelector excludes {}, where there are MailRoutes; labelled pods there {without}. Move the \
                 MailRoutes, or remove the namespace from the selector.",
                some(namespaces)
            ),
            Self::FailureIgnored => write!(
                f,
                "failurePolicy is Ignore: while the operator is down, labelled pods {without}. helm upgrade restores it."
            ),
            Self::NamespaceEntryMissing => write!(
                f,
                "The configuration has no entry {NAMESPACE_WEBHOOK}, so pods of namespaces with the label {ROUTE_LABEL} \
                 {without}, unless they have a label of their own. helm upgrade restores it."
            ),
            Self::NamespaceEntryTooWide => write!(
                f,
                "The selectors of the entry {NAMESPACE_WEBHOOK} send pods to the operator that it has nothing to add to; while \
                 it is down, none of them can be created. helm upgrade restores them."
            ),
            Self::NamespaceEntryIneffective => write!(
                f,
                "The entry {NAMESPACE_WEBHOOK} was changed so that some pods of namespaces with the label {ROUTE_LABEL} \
                 {without}. helm upgrade restores it."
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let many: BTreeSet<_> = (0..9).map(|n| format!("n{n}")).collect();
        assert!(ConfigurationFinding::NamespacesExcluded(many).to_string().contains("n4 and 4 more"));
    }
}

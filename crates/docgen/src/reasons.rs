//! `docs/reference/reasons.md`, from the table of reasons.

use mailroute_route::condition::{ConditionType, Reason};

use crate::page::PLACEHOLDERS;

const HEAD: &str = "\
<!-- Written from crates/route/src/condition.rs; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Conditions and reasons

`kubectl describe mailroute <name>` shows the conditions below. Each has a reason, and a message that says what was met
(the literal reply of Microsoft 365 where there was one) and what to do about it. The same reasons are in the sidecar's
log, in its metrics and in the text of its 451 replies.

The conditions stand in the order in which they are met on the way to Microsoft 365: when several are False, the first
one is the cause. In what follows `<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` are the route's
own values; a message shows them filled in.
";

const CONDITIONS: [ConditionType; 11] = [
    ConditionType::Accepted,
    ConditionType::CertificateValid,
    ConditionType::CredentialReady,
    ConditionType::UpstreamReachable,
    ConditionType::Authenticated,
    ConditionType::SendersAccepted,
    ConditionType::Ready,
    ConditionType::SidecarsReporting,
    ConditionType::SidecarsCurrent,
    ConditionType::DnsPublished,
    ConditionType::FederationFits,
];

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for condition in CONDITIONS {
        page.push_str(&format!("\n## {condition}\n\n{}\n", meaning(condition)));
        for reason in Reason::ALL.iter().filter(|reason| reason.condition() == condition) {
            entry(&mut page, *reason);
        }
    }
    page
}

fn entry(page: &mut String, reason: Reason) {
    page.push_str(&format!("\n### {reason}\n\n{}\n", reason.sentence()));
    let remedy = reason.remedy(&PLACEHOLDERS);
    if !remedy.is_empty() {
        // Markdown would take a bare `<` for HTML and swallow the placeholder.
        page.push_str(&format!("\n**What to do:** {}\n", remedy.replace('<', "\\<")));
    }
}

const fn meaning(condition: ConditionType) -> &'static str {
    match condition {
        ConditionType::Accepted => {
            "The route makes sense and its configuration is rendered for the sidecars."
        }
        ConditionType::CredentialReady => "An access token can be had with the route's credential.",
        ConditionType::CertificateValid => {
            "The certificate that the route presents is there, belongs to its key and is in force."
        }
        ConditionType::UpstreamReachable => "The upstream answers over verified TLS.",
        ConditionType::Authenticated => {
            "The upstream knows who is sending: the mailbox by its log-in, or the tenant by its connector."
        }
        ConditionType::SendersAccepted => "The upstream takes mail from the mailbox and the senders in use.",
        ConditionType::DnsPublished => {
            "Receivers find in DNS that the accepted domains send through Microsoft 365. Advice: it is no part of Ready, and \
             no mail waits for it. It is Unknown while name servers cannot tell, and left out when the operator runs with \
             `--dns-preflight=false` or the route has no domain of its own."
        }
        ConditionType::Ready => {
            "Mail can flow: the sum of those above. When one of them is False, Ready is False with that condition's reason. \
             While nothing is known (no pod, or no report yet) it is Unknown. Its reason also tells of pods that do not report, or \
             that are refused, while mail flows from the others."
        }
        ConditionType::SidecarsReporting => {
            "Every sidecar that runs reports to the operator. Shown when some have not for five minutes or more; Ready then has \
             the same reason."
        }
        ConditionType::FederationFits => {
            "Entra takes as many federated credentials for the route's application as its pods in this cluster need: one \
             for each ServiceAccount of each namespace. Shown when there is little room. It does not touch Ready."
        }
        ConditionType::SidecarsCurrent => {
            "Every pod has the sidecar that a new pod would get. It does not touch Ready: an older sidecar goes on \
             delivering. What becomes of the others is for spec.rollout."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page_once() {
        let page = page();
        for reason in Reason::ALL {
            assert_eq!(page.matches(&format!("### {reason}\n")).count(), 1, "{reason}");
        }
    }
}

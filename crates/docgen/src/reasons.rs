//! `docs/reference/reasons.md`, from the table of reasons.

use mailroute_route::condition::{ConditionType, Reason};

use crate::page::PLACEHOLDERS;

const HEAD: &str = "\
<!-- Written from crates/route/src/condition.rs; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Conditions and reasons

`kubectl describe mailroute <name>` shows the conditions below. Each has a reason, and a message with the error (the literal reply of
Microsoft 365, if there was one) and what to do about it. The same reasons are in the sidecar's log, its metrics and its 451
replies.

The conditions are in the order of a delivery's steps: if several are False, the first one is the cause. On this page `<route>`,
`<mailbox>`, `<client id>`, `<tenant>`, `<endpoint>`, `<authority>` and `<secret>` stand for the route's values, which the
messages contain.
";

const CONDITIONS: [ConditionType; 14] = [
    ConditionType::Accepted,
    ConditionType::CertificateValid,
    ConditionType::CredentialReady,
    ConditionType::UpstreamReachable,
    ConditionType::Authenticated,
    ConditionType::SendersAccepted,
    ConditionType::GatewayReady,
    ConditionType::Ready,
    ConditionType::SidecarsReporting,
    ConditionType::SidecarsCurrent,
    ConditionType::DnsPublished,
    ConditionType::FederationFits,
    ConditionType::Stalled,
    ConditionType::Reconciling,
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
        ConditionType::Accepted => "The route is valid and its configuration is rendered for the sidecars.",
        ConditionType::CredentialReady => "The route's credential yields an access token.",
        ConditionType::CertificateValid => "The route's certificate exists, matches its key and is valid.",
        ConditionType::UpstreamReachable => "The upstream answers over verified TLS.",
        ConditionType::Authenticated => {
            "The upstream knows who is sending: the mailbox by its login, or the tenant by its connector."
        }
        ConditionType::SendersAccepted => {
            "The upstream accepts mail from the mailbox and the senders in use."
        }
        ConditionType::DnsPublished => {
            "The accepted domains publish in DNS that they send through Microsoft 365. This is only advice: Ready and mail do not depend on it. It is Unknown while name servers do not answer, and absent if the operator runs with \
             `--dns-preflight=false` or the route has no domain of its own."
        }
        ConditionType::Ready => {
            "The operator has done its part, and nothing is known to be wrong. If one of the conditions above is False, Ready is \
             False with that condition's reason. It is True also before a pod has shown that mail can flow, so that \
             `helm upgrade --wait` and other tools that wait for it end; the reason then is NoPods or WaitingForReports. What \
             pods have shown is in the conditions above: wait for Authenticated (ClientSubmission, Graph) or UpstreamReachable \
             (SmtpRelay, DirectSend) where that matters. Its reason also reports pods that do not report or are refused while \
             mail from the others flows; it is Unknown if no running pod has reported for five minutes."
        }
        ConditionType::Stalled => {
            "The route cannot be accepted as it is, and waiting does not help; the reason is that of Accepted. Shown only then. \
             Tools that wait (Helm 4, Flux, whatever uses kstatus) fail at once."
        }
        ConditionType::Reconciling => {
            "The operator could not do its part for this generation of the route, and tries again; the reason is that of \
             Accepted. Shown only then. Tools that wait continue to wait."
        }
        ConditionType::SidecarsReporting => {
            "Every running sidecar reports to the operator. Shown if some have not reported for five minutes or more; \
             Ready then has the same reason."
        }
        ConditionType::FederationFits => {
            "Entra allows as many federated credentials for the route's application as its pods in this cluster need: one \
             for each ServiceAccount of each namespace. Shown if there is little room. It does not affect Ready."
        }
        ConditionType::GatewayReady => {
            "The route's gateway is there and takes messages over. Shown if the route has `spec.gateway`; the message says \
             how many messages wait in the gateway. It affects Ready only with `spec.delivery.durability: Gateway`."
        }
        ConditionType::SidecarsCurrent => {
            "Every pod has the sidecar that a new pod would get. It does not affect Ready, because an older sidecar \
             continues to deliver. `spec.rollout` determines what happens to outdated ones."
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

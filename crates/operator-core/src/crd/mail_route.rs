//! The spec of a `MailRoute`: its parts, and the rules that span several of them.
//!
//! Invariants: a field is listed only when something acts on it, so `kubectl apply` names the others as unknown. Everything
//! that a CEL rule looks at is bounded, which keeps the rules within the API server's cost budget.

use kube::{CustomResource, KubeSchema};
use mailroute_route::file::Listen;
use serde::{Deserialize, Serialize};

use super::delivery::{Delivery, Gateway, Limits};
use super::local::Senders;
use super::method::{ClientSubmission, Credential, DirectSend, Endpoint, Graph, Method, SmtpRelay};
use super::rules::{Archive, Headers, Recipients};
use super::sidecar::{Rollout, Sidecar};
use super::status::MailRouteStatus;
use super::tenant::Tenant;
use super::units::{is_size_of_at_least, is_size_of_at_least_bytes};

/// How pods of this namespace send mail through Microsoft 365.
///
/// Pods with the label `mailroute.dev/route: <name>` get a sidecar that accepts SMTP on localhost and forwards it as
/// described here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mailroute.dev",
    version = "v1alpha1",
    kind = "MailRoute",
    namespaced,
    status = "MailRouteStatus",
    shortname = "mr",
    category = "mail",
    derive = "PartialEq",
    doc = "A way for pods of this namespace to send mail through Microsoft 365. Pods with the label mailroute.dev/route: <name> get a sidecar that accepts SMTP on localhost and forwards it as described here.",
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method"),
    printcolumn(name = "Sender", type_ = "string", json_path = ".status.sender"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.sidecars.injected"),
    printcolumn(name = "Queued", type_ = "integer", json_path = ".status.queue.messages"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Converged", type_ = "integer", json_path = ".status.sidecars.converged", priority = 1),
    printcolumn(name = "Silent", type_ = "integer", json_path = ".status.sidecars.silent", priority = 1),
    printcolumn(name = "Outdated", type_ = "integer", json_path = ".status.sidecars.outdated", priority = 1),
    printcolumn(name = "Oldest", type_ = "integer", json_path = ".status.queue.oldestSeconds", priority = 1),
    printcolumn(name = "Dead", type_ = "integer", json_path = ".status.queue.deadLetters", priority = 1),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.queue.lost", priority = 1),
    printcolumn(name = "Rate", type_ = "integer", json_path = ".status.usage.messagesLastMinute", priority = 1),
    printcolumn(name = "Day", type_ = "integer", json_path = ".status.usage.recipientsLast24h", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("the name is the value of a pod label: use at most 63 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.method == 'ClientSubmission') == has(self.clientSubmission) && (self.method == 'Graph') == has(self.graph) && (self.method == 'SmtpRelay') == has(self.smtpRelay) && (self.method == 'DirectSend') == has(self.directSend)")
        .message("set exactly the block that method names: clientSubmission for ClientSubmission, graph for Graph, smtpRelay for SmtpRelay, directSend for DirectSend (empty blocks are written {})"),
    validation = Rule::new("self.method in ['ClientSubmission', 'Graph'] || self.tenant.acceptedDomains.size() > 0")
        .message("SmtpRelay and DirectSend need tenant.acceptedDomains: the domains of senders, or of recipients, and of the MX record")
        .field_path(".tenant.acceptedDomains"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.service != 'HighVolumeEmail' || self.tenant.acceptedDomains.size() > 0")
        .message("the service HighVolumeEmail needs tenant.acceptedDomains: it delivers to recipients in them only")
        .field_path(".tenant.acceptedDomains"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.service != 'ExchangeOnline' || self.tenant.cloud != 'USGovernmentDoD' || self.clientSubmission.credential.subject == 'Operator' || (has(self.endpoint) && has(self.endpoint.host))")
        .message("Microsoft publishes no SMTP host for USGovernmentDoD: set endpoint.host, or use the method Graph"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.service == 'ExchangeOnline' || self.tenant.cloud == 'Global' || (has(self.endpoint) && has(self.endpoint.host) && has(self.tenant.authority) && has(self.tenant.authority.scope))")
        .message("HighVolumeEmail and CommunicationServices have a known host and scope in the cloud Global only: set endpoint.host and tenant.authority.scope"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.service != 'HighVolumeEmail' || self.tenant.cloud != 'China'")
        .message("there is no High Volume Email in the cloud China"),
    validation = Rule::new("!has(self.graph) || self.graph.fallback == 'None' || self.tenant.cloud != 'USGovernmentDoD' || (has(self.graph.fallbackEndpoint) && has(self.graph.fallbackEndpoint.host))")
        .message("Microsoft publishes no SMTP host for USGovernmentDoD: set graph.fallbackEndpoint.host, or fallback None"),
    validation = Rule::new("!has(self.graph) || self.graph.fallback != 'None' || !self.delivery.deadLetter.notifySender")
        .message("delivery.deadLetter.notifySender needs graph.fallback ClientSubmission: notifications have no sender, and Graph cannot send such a message"),
    validation = Rule::new("!has(self.graph) || self.tenant.acceptedDomains.size() == 0 || self.tenant.acceptedDomains.exists(d, self.graph.mailbox.lowerAscii().endsWith('@' + d.lowerAscii()) || self.graph.mailbox.lowerAscii().endsWith('.' + d.lowerAscii()))")
        .message("the domain of graph.mailbox is not one of tenant.acceptedDomains"),
    validation = Rule::new(format!("!has(self.graph) || self.graph.fallback != 'None' || !has(self.limits.maxMessageBytes) || {}", is_size_of_at_least("self.graph.maxMessageBytes", 1.0, "self.limits.maxMessageBytes")))
        .message("limits.maxMessageBytes is more than graph.maxMessageBytes: leave it out, or set graph.fallback to ClientSubmission")
        .field_path(".limits.maxMessageBytes"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.service == 'CommunicationServices' || self.tenant.acceptedDomains.size() == 0 || self.tenant.acceptedDomains.exists(d, self.clientSubmission.mailbox.lowerAscii().endsWith('@' + d.lowerAscii()) || self.clientSubmission.mailbox.lowerAscii().endsWith('.' + d.lowerAscii()))")
        .message("the domain of clientSubmission.mailbox is not one of tenant.acceptedDomains"),
    validation = Rule::new("!has(self.endpoint) || !has(self.endpoint.port) || (self.method == 'Graph' ? !(self.endpoint.port in [25, 465, 587]) : self.endpoint.port == 25 || (self.endpoint.port == 587 && self.method == 'ClientSubmission'))")
        .message("endpoint.port: client submission uses port 587, or 25 if 587 is blocked; SmtpRelay and DirectSend use port 25; Graph uses HTTPS, port 443"),
    validation = Rule::new("!has(self.endpoint) || !has(self.endpoint.tls) || self.endpoint.tls == 'Required' || has(self.directSend) || (has(self.smtpRelay) && !has(self.smtpRelay.certificateSecretRef))")
        .message("endpoint.tls Opportunistic is for DirectSend, and for SmtpRelay by IP address: a login or a certificate requires TLS"),
    validation = Rule::new("!has(self.clientSubmission) || self.clientSubmission.credential.subject == 'Pod' || (!has(self.endpoint) && !has(self.tenant.authority))")
        .message("credential.subject Operator: leave out endpoint and tenant.authority; the platform decides where the operator's tokens come from and where they are used"),
    validation = Rule::new("self.delivery.durability != 'Gateway' || has(self.gateway)")
        .message("delivery.durability Gateway needs gateway.serviceName: the headless Service of the route's gateway, which the chart mailroute-gateway installs")
        .field_path(".delivery.durability"),
    validation = Rule::new("!has(self.senders) || self.senders.onViolation != 'Rewrite' || self.method in ['ClientSubmission', 'Graph']")
        .message("senders.onViolation Rewrite needs a mailbox to send from: use Reject, or the method ClientSubmission or Graph"),
    validation = Rule::new("!has(self.senders) || self.senders.allow.size() > 0 || self.method in ['ClientSubmission', 'Graph']")
        .message("senders.allow: list at least one, otherwise every message would be refused"),
    validation = Rule::new("!has(self.recipients) || !has(self.recipients.redirectTo) || !(has(self.directSend) || (has(self.clientSubmission) && self.clientSubmission.service == 'HighVolumeEmail')) || self.tenant.acceptedDomains.exists(d, self.recipients.redirectTo.lowerAscii().endsWith('@' + d.lowerAscii()))")
        .message("recipients.redirectTo: DirectSend and HighVolumeEmail reach only recipients in tenant.acceptedDomains; name an address in one of them")
        .field_path(".recipients.redirectTo"),
    validation = Rule::new("!has(self.archive) || !(has(self.directSend) || (has(self.clientSubmission) && self.clientSubmission.service == 'HighVolumeEmail')) || self.tenant.acceptedDomains.exists(d, self.archive.bcc.lowerAscii().endsWith('@' + d.lowerAscii()))")
        .message("archive.bcc: DirectSend and HighVolumeEmail reach only recipients in tenant.acceptedDomains; name an address in one of them")
        .field_path(".archive.bcc"),
    validation = Rule::new("!has(self.archive) || !has(self.limits.maxRecipients) || self.limits.maxRecipients > 1")
        .message("limits.maxRecipients must be at least 2 with archive.bcc, which is one of the recipients of each message")
        .field_path(".limits.maxRecipients"),
    validation = Rule::new("!(self.method in ['ClientSubmission', 'Graph']) || !has(self.limits.recipientsPerDay) || self.limits.recipientsPerDay >= (has(self.limits.maxRecipients) ? self.limits.maxRecipients : has(self.clientSubmission) && self.clientSubmission.service != 'ExchangeOnline' ? 50 : 500)")
        .message("limits.maxRecipients is more than limits.recipientsPerDay: a message to that many could never be sent; lower it, or raise recipientsPerDay")
        .field_path(".limits.maxRecipients"),
    validation = Rule::new(format!("has(self.limits.maxMessageBytes) ? ({}) : ({})", is_size_of_at_least("self.sidecar.spool.sizeLimit", 2.0, "self.limits.maxMessageBytes"), is_size_of_at_least_bytes("self.sidecar.spool.sizeLimit", 2 * 35 * 1024 * 1024)))
        .message("sidecar.spool.sizeLimit must hold at least two messages of limits.maxMessageBytes: at least 70Mi with the default of 35Mi for a message, and 300Mi with the largest, 150Mi")
        .field_path(".sidecar.spool.sizeLimit")
)]
pub struct MailRouteSpec {
    /// How mail is sent: Microsoft Graph, or one of the three methods of Microsoft's guide "How to set up a multifunction
    /// device or application to send email using Microsoft 365". ClientSubmission: log in as a mailbox and submit from it.
    /// Graph: call sendMail of Microsoft Graph as a mailbox, over HTTPS. SmtpRelay: deliver to a
    /// connector of the tenant, which recognises the sidecar by its certificate or the cluster by its IP address.
    /// DirectSend: deliver to the tenant's own recipients, without a login.
    pub method: Method,
    /// The Microsoft 365 tenant.
    pub tenant: Tenant,
    /// For the method ClientSubmission: the mailbox to send as, and how to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_submission: Option<ClientSubmission>,
    /// For the method Graph: the mailbox to send as, and how to get a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// For the method SmtpRelay: how the connector recognises the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_relay: Option<SmtpRelay>,
    /// For the method DirectSend, which has no settings: write `directSend: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_send: Option<DirectSend>,
    /// The server that mail is delivered to. Default: what the cloud of the tenant publishes for ClientSubmission and Graph;
    /// the MX record of the first accepted domain for SmtpRelay and DirectSend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Allowed senders. Default: only Microsoft 365 decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<Senders>,
    /// Allowed recipients, and what happens to others. Default: anybody whom the method reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// Who gets a copy of each message. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Header fields that are removed from messages, or set. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// What it means when the sidecar accepts a message.
    #[serde(default)]
    pub delivery: Delivery,
    /// The gateway that takes over what pods cannot deliver. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// Limits on a single message, and on everything that is sent.
    #[serde(default)]
    pub limits: Limits,
    /// Where applications connect: on the loopback addresses of the pod.
    #[serde(default)]
    pub listen: Listen,
    /// The injected container.
    #[serde(default)]
    pub sidecar: Sidecar,
    /// What to do about pods with an outdated sidecar: another image than a new pod would get, or other settings that only a
    /// new pod gets. Report: the status counts and names them. Restart: they are evicted one after another, within
    /// PodDisruptionBudgets, if the route is Ready and its pods have shown that mail can flow, they have no queued messages, and the previous pod was replaced; pods
    /// without a controller and those of Jobs are only named.
    #[serde(default)]
    pub rollout: Rollout,
}

impl MailRouteSpec {
    /// The mailbox to send as; none by the methods that need none.
    pub fn mailbox(&self) -> Option<&str> {
        let submission = self.client_submission.as_ref().map(|submission| &submission.mailbox);
        submission.or(self.graph.as_ref().map(|graph| &graph.mailbox)).map(String::as_str)
    }

    /// All mailboxes to send as, [`MailRouteSpec::mailbox`] first.
    pub fn mailboxes(&self) -> Vec<&str> {
        match &self.client_submission {
            Some(submission) => submission.addresses().collect(),
            None => self.mailbox().into_iter().collect(),
        }
    }

    /// The credential of the mailbox's application; none by the methods that need none.
    pub fn credential(&self) -> Option<&Credential> {
        let submission = self.client_submission.as_ref().map(|submission| &submission.credential);
        submission.or(self.graph.as_ref().map(|graph| &graph.credential))
    }
}

impl MailRoute {
    /// The status of the condition Ready: `True`, `False` or, also while there is none, `Unknown`.
    pub fn readiness(&self) -> &str {
        self.status.as_ref().map_or("Unknown", MailRouteStatus::readiness)
    }
}

//! The spec of a `MailRoute`: every field with its meaning, default, bound and rule.
//!
//! Invariants: a field is listed only when something acts on it, so `kubectl apply` names the others as unknown. The
//! enumerations list their whole set, and one rule each refuses the values that this version does not serve. Everything
//! that a CEL rule looks at is bounded, which keeps the rules within the API server's cost budget.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cloud::Cloud;
use super::status::MailRouteStatus;

/// A way for pods of this namespace to send mail through Microsoft 365.
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
    printcolumn(name = "Sender", type_ = "string", json_path = ".spec.clientSubmission.mailbox"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.sidecars.injected"),
    printcolumn(name = "Queued", type_ = "integer", json_path = ".status.queue.messages"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("the name is the value of a pod label: use at most 63 characters")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method == 'ClientSubmission'")
        .message("SmtpRelay and DirectSend are not built yet; use ClientSubmission")
        .field_path(".method"),
    validation = Rule::new("(self.method == 'ClientSubmission') == has(self.clientSubmission)")
        .message("set exactly the block that method names: clientSubmission for ClientSubmission"),
    validation = Rule::new("self.tenant.cloud != 'USGovernmentDoD' || (has(self.endpoint) && has(self.endpoint.host))")
        .message("Microsoft publishes no SMTP host for USGovernmentDoD: set endpoint.host"),
    validation = Rule::new("!has(self.clientSubmission) || self.tenant.acceptedDomains.size() == 0 || self.tenant.acceptedDomains.exists(d, self.clientSubmission.mailbox.lowerAscii().endsWith('@' + d.lowerAscii()) || self.clientSubmission.mailbox.lowerAscii().endsWith('.' + d.lowerAscii()))")
        .message("the domain of clientSubmission.mailbox is not one of tenant.acceptedDomains")
)]
pub struct MailRouteSpec {
    /// How mail leaves, one of the three methods of Microsoft's guide "How to set up a multifunction device or
    /// application to send email using Microsoft 365". This version serves ClientSubmission.
    pub method: Method,
    /// The Microsoft 365 tenant.
    pub tenant: Tenant,
    /// For the method ClientSubmission: the mailbox to send as, and how to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_submission: Option<ClientSubmission>,
    /// Where mail is handed to. Default: what the cloud of the tenant publishes for the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// What the sidecar promises when it accepts a message.
    #[serde(default)]
    pub delivery: Delivery,
    /// Bounds on one message.
    #[serde(default)]
    pub limits: Limits,
    /// Where applications connect.
    #[serde(default)]
    pub listen: Listen,
    /// The injected container.
    #[serde(default)]
    pub sidecar: Sidecar,
}

impl MailRoute {
    /// The status of the condition Ready: `True`, `False` or, also while there is none, `Unknown`.
    pub fn readiness(&self) -> &str {
        let ready = self.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == "Ready");
        ready.map_or("Unknown", |condition| &condition.status)
    }
}

/// How mail leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Log in as a mailbox with OAuth and submit for it, port 587.
    ClientSubmission,
    /// Hand over to the tenant's connector, port 25. Not built yet.
    SmtpRelay,
    /// Hand over to the tenant's own recipients without log-in, port 25. Not built yet.
    DirectSend,
}

/// The Microsoft 365 tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Entra tenant: its GUID or one of its verified domains.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$') || self.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$')")
        .message("must be the tenant's GUID or a verified domain; az account show --query tenantId prints it"))]
    pub id: String,
    /// The Microsoft cloud that the tenant lives in; chooses authority, scope and SMTP host.
    #[serde(default)]
    pub cloud: Cloud,
    /// Exchange accepted domains. When given, the mailbox must be in one of them or in a subdomain of one.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub accepted_domains: Vec<String>,
    /// Where tokens come from. Default: the cloud's own; each field replaces one part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<Authority>,
}

/// Where access tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// `host` or `host:port` of the token endpoint, always spoken to over HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$')")
        .message("must be a host or host:port, without https:// and without a path"))]
    pub host: Option<String>,
    /// Scope to ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[!-~]+/[.]default$')")
        .message("must end in /.default, as client credentials ask for the application's own permissions"))]
    pub scope: Option<String>,
    /// Audience of the service-account token that Entra exchanges, as the federated credential names it. Default:
    /// `api://AzureADTokenExchange`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 600))]
    pub audience: Option<String>,
    /// CA certificates to trust in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
}

/// A key of a ConfigMap in the namespace of the route, holding CA certificates in PEM. The kubelet mounts it into the
/// sidecar; the operator does not read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundleRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the ConfigMap.
    #[serde(default = "CaBundleRef::default_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

impl CaBundleRef {
    fn default_key() -> String {
        mailroute_route::paths::CA_FILE.to_owned()
    }
}

/// Client SMTP submission: the mailbox to send as, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSubmission {
    /// Address of the mailbox to log in as. Messages must be From it, or from an address it may send as.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9.!#$%&*+/=?^_{|}~-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$')")
        .message("must be the address of one mailbox, such as noreply@contoso.com"))]
    pub mailbox: String,
    /// How the sidecar proves to Entra that it may act for the application.
    pub credential: Credential,
}

/// How the sidecar proves who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == 'WorkloadIdentity'")
        .message("ClientSecret, ClientCertificate and Password are not built yet; use WorkloadIdentity")
        .field_path(".type")
)]
pub struct Credential {
    /// Kind of credential. This version serves WorkloadIdentity: the ServiceAccount token of the pod, under a federated
    /// credential of the application.
    #[serde(rename = "type")]
    pub type_: CredentialType,
    /// Application (client) id in Entra.
    #[schemars(length(min = 36, max = 36))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')")
        .message("must be the application (client) id, a GUID; az ad app list --display-name <name> prints it as appId"))]
    pub client_id: String,
}

/// Kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialType {
    /// The pod's ServiceAccount token, exchanged under a federated credential.
    WorkloadIdentity,
    /// A client secret. Not built yet.
    ClientSecret,
    /// A client certificate. Not built yet.
    ClientCertificate,
    /// A mailbox password. Not built yet.
    Password,
}

/// The SMTP server that mail is handed to. TLS by STARTTLS is always required and verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// DNS name, which the certificate must carry. An IP address is refused, as Microsoft asks for the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(r"self.matches('^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])*[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?$')")
        .message("must be a DNS name, such as smtp.office365.com, and not an IP address"))]
    pub host: Option<String>,
    /// TCP port: 587, or 25 where 587 is closed. Default: 587.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 587 || self == 25")
        .message("client submission uses port 587, or 25 where 587 is closed"))]
    pub port: Option<u16>,
    /// CA certificates to trust in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundleRef>,
}

/// What the sidecar promises when it accepts a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'Deliver'")
        .message("DeliverOrQueue and Queue are not built yet; use Deliver")
        .field_path(".mode")
)]
pub struct Delivery {
    /// Deliver: 250 is said only when Microsoft 365 has accepted the message; on transient trouble the application gets
    /// 451 and keeps the message. This version serves Deliver.
    #[serde(default)]
    pub mode: DeliveryMode,
}

/// What 250 means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeliveryMode {
    /// Try at once, keep the message when that fails. Not built yet.
    DeliverOrQueue,
    /// Keep the message first, deliver later. Not built yet.
    Queue,
    /// Microsoft 365 has accepted the message.
    #[default]
    Deliver,
}

/// Bounds on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Largest message in bytes; announced as SIZE. Exchange Online takes 35 MiB unless the mailbox is set otherwise, and
    /// 150 MiB at most.
    #[schemars(range(min = 1024, max = 157_286_400))]
    pub max_message_bytes: u64,
    /// Most recipients of one message. Exchange Online takes 500 unless the mailbox is set otherwise, and 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_recipients: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_bytes: 36_700_160, max_recipients: 500 }
    }
}

/// Where applications connect: on the loopback addresses of the pod, IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// TCP port.
    #[serde(default = "Listen::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new("self != 9025")
        .message("the sidecar serves its metrics on 9025; choose another port"))]
    pub port: u16,
}

impl Listen {
    /// The port that applications expect of a mail relay.
    const fn default_port() -> u16 {
        25
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { port: Self::default_port() }
    }
}

/// The injected container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sidecar {
    /// What the container asks for and may use.
    pub resources: Resources,
}

/// What a container asks for and may use, with the meaning of `resources` of a container in a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler sets aside.
    pub requests: ResourceList,
    /// What the container may not exceed.
    pub limits: ResourceList,
}

impl Default for Resources {
    fn default() -> Self {
        let quantity = |text: &str| Some(Quantity(text.to_owned()));
        Self {
            requests: ResourceList {
                cpu: quantity("10m"),
                memory: quantity("32Mi"),
                ephemeral_storage: None,
            },
            limits: ResourceList {
                cpu: quantity("500m"),
                memory: quantity("128Mi"),
                ephemeral_storage: None,
            },
        }
    }
}

/// A plain or suffixed number, as Kubernetes prints quantities.
const QUANTITY: &str = "^[0-9]+([.][0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// Amounts of compute resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceList {
    /// Processor time, in cores: 500m is half of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY, "maxLength" = 32))]
    pub cpu: Option<Quantity>,
    /// Memory, in bytes: 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY, "maxLength" = 32))]
    pub memory: Option<Quantity>,
    /// Local disk, in bytes.
    #[serde(rename = "ephemeral-storage", default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = QUANTITY, "maxLength" = 32))]
    pub ephemeral_storage: Option<Quantity>,
}

#[cfg(test)]
mod tests {
    use super::super::definition::definition;
    use super::*;
    use kube::core::cel::Validator;
    use serde_json::{Value, json};

    fn sample() -> Value {
        json!({
            "apiVersion": "mailroute.dev/v1alpha1",
            "kind": "MailRoute",
            "metadata": {"name": "notifications", "namespace": "shop"},
            "spec": {
                "method": "ClientSubmission",
                "tenant": {
                    "id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
                    "cloud": "Global",
                    "acceptedDomains": ["contoso.com"],
                },
                "clientSubmission": {
                    "mailbox": "noreply@contoso.com",
                    "credential": {
                        "type": "WorkloadIdentity",
                        "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9",
                    },
                },
                "delivery": {"mode": "Deliver"},
                "listen": {"port": 25},
            },
        })
    }

    /// The sample with one value replaced (or, with null, taken away), as messages of the rules that it breaks.
    fn broken_rules(pointer: &str, value: Value) -> Vec<String> {
        let mut object = sample();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(key)),
            value => drop(parent.insert(key.to_owned(), value)),
        }
        messages(&object)
    }

    fn messages(object: &Value) -> Vec<String> {
        let definition = definition().unwrap();
        let schema =
            definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        match Validator::new().validate(&serde_json::to_value(schema).unwrap(), object, None) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_sample_breaks_no_rule() {
        assert_eq!(messages(&sample()), Vec::<String>::new());
    }

    #[test]
    fn what_breaks_a_rule_is_told_in_a_sentence() {
        let table = [
            ("/spec/method", json!("SmtpRelay"), "use ClientSubmission"),
            ("/spec/method", json!("DirectSend"), "use ClientSubmission"),
            ("/spec/clientSubmission", Value::Null, "exactly the block that method names"),
            ("/spec/clientSubmission/mailbox", json!("noreply"), "address of one mailbox"),
            (
                "/spec/clientSubmission/mailbox",
                json!("a@contoso.com,b@contoso.com"),
                "address of one mailbox",
            ),
            ("/spec/clientSubmission/mailbox", json!("No Reply <noreply@contoso.com>"), "address of one"),
            ("/spec/clientSubmission/mailbox", json!("noreply@fabrikam.com"), "tenant.acceptedDomains"),
            ("/spec/clientSubmission/mailbox", json!("noreply@notcontoso.com"), "tenant.acceptedDomains"),
            (
                "/spec/clientSubmission/credential/clientId",
                json!("my application, which has 36 letters"),
                "GUID",
            ),
            ("/spec/clientSubmission/credential/type", json!("Password"), "use WorkloadIdentity"),
            ("/spec/tenant/id", json!("contoso"), "GUID or a verified domain"),
            ("/spec/tenant/cloud", json!("USGovernmentDoD"), "set endpoint.host"),
            ("/spec/tenant/authority", json!({"host": "https://login.example/"}), "without https://"),
            ("/spec/tenant/authority", json!({"scope": "SMTP.Send"}), "/.default"),
            ("/spec/endpoint", json!({"host": "40.101.1.2"}), "not an IP address"),
            ("/spec/endpoint", json!({"host": "2603:1026::1"}), "not an IP address"),
            ("/spec/endpoint", json!({"host": "[::1]"}), "not an IP address"),
            ("/spec/endpoint", json!({"port": 465}), "587"),
            ("/spec/delivery/mode", json!("Queue"), "use Deliver"),
            ("/spec/listen/port", json!(9025), "another port"),
            ("/metadata/name", json!("n".repeat(64)), "at most 63 characters"),
        ];
        for (pointer, value, sentence) in table {
            let messages = broken_rules(pointer, value.clone());
            assert!(messages.iter().any(|m| m.contains(sentence)), "{pointer} = {value}: {messages:?}");
        }
    }

    #[test]
    fn what_microsoft_allows_breaks_no_rule() {
        let table = [
            ("/spec/tenant/id", json!("contoso.onmicrosoft.com")),
            ("/spec/tenant/acceptedDomains", json!([])),
            ("/spec/tenant/acceptedDomains", json!(["fabrikam.com", "Contoso.com"])),
            ("/spec/clientSubmission/mailbox", json!("no-reply+orders@mail.contoso.com")),
            ("/spec/tenant/authority", json!({"host": "login.m365.svc.cluster.local:8443"})),
            ("/spec/endpoint", json!({"host": "smtp.partner.outlook.cn", "port": 25})),
            ("/metadata/name", json!("n".repeat(63))),
        ];
        for (pointer, value) in table {
            assert_eq!(broken_rules(pointer, value.clone()), Vec::<String>::new(), "{pointer} = {value}");
        }
    }

    #[test]
    fn defaults_of_the_schema_are_those_of_the_types() {
        let mut object = sample();
        let spec = object["spec"].as_object_mut().unwrap();
        spec.remove("delivery");
        spec.remove("listen");
        let route: MailRoute = serde_json::from_value(object).unwrap();
        assert_eq!(route.spec.delivery.mode, DeliveryMode::Deliver);
        assert_eq!(route.spec.listen.port, 25);
        assert_eq!(route.spec.limits.max_message_bytes, 35 * 1024 * 1024);
        assert_eq!(route.spec.sidecar.resources.requests.memory, Some(Quantity("32Mi".to_owned())));
    }

    #[test]
    fn a_quantity_may_be_written_as_a_number() {
        let list: ResourceList =
            serde_json::from_value(json!({"cpu": 1, "ephemeral-storage": "1Gi"})).unwrap();
        assert_eq!(list.cpu, Some(Quantity("1".to_owned())));
        assert_eq!(list.ephemeral_storage, Some(Quantity("1Gi".to_owned())));
    }
}

//! What is shown of a route, read from the object as it is: whatever version of the definition is installed, and whatever
//! somebody wrote into it. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use mailroute_operator_core::crd::MailRouteStatus;
use mailroute_operator_core::crd::method::Method;
use mailroute_operator_core::crd::status::{GatewayStatus, MailboxStatus, QueueStatus, Sidecars};
use mailroute_operator_core::resolve::LimitPreset;
use mailroute_route::condition::Reason;
use mailroute_route::file::SubmissionService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::pods::RoutePod;

/// What is shown of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Generation of its spec.
    pub generation: i64,
    /// The generation that the operator has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How mail leaves.
    pub method: String,
    /// Who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Where mail is delivered to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether mail can flow.
    pub ready: ConditionView,
    /// All conditions.
    pub conditions: Vec<ConditionView>,
    /// Its pods, in numbers.
    pub sidecars: Sidecars,
    /// Its queue, in numbers.
    pub queue: QueueStatus,
    /// What is used of the limits of its mailbox; of all of its mailboxes together, where it has several.
    pub budget: Budget,
    /// Its mailboxes, where it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<MailboxStatus>,
    /// Its gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,
    /// The pod that was refused last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Its pods, where they are shown one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Vec<RoutePod>>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why.
    pub reason: String,
    /// What was met, and what to do about it.
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Default for ConditionView {
    /// A condition that nobody has written.
    fn default() -> Self {
        Self {
            type_: "Ready".into(),
            status: "Unknown".into(),
            reason: String::new(),
            message: "The operator has not written a status yet: see kubectl mailroute doctor.".into(),
            since: None,
        }
    }
}

impl ConditionView {
    /// Its reason, where this program knows it.
    pub fn known_reason(&self) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == self.reason)
    }

    /// Whether there is something to do about it.
    pub fn is_bad(&self) -> bool {
        self.status == "False"
    }

    /// Whether it holds, with something to do all the same.
    pub fn warns(&self) -> bool {
        self.status == "True" && self.known_reason().is_some_and(Reason::warns)
    }
}

/// What is used of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Messages in the last minute.
    pub messages_last_minute: u64,
    /// The limit of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// Recipients in 24 hours.
    #[serde(rename = "recipientsLast24h")]
    pub recipients_last_24h: u64,
    /// The limit of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients_per_day: Option<u32>,
}

impl Budget {
    /// The limits of so many mailboxes together.
    fn times(self, mailboxes: usize) -> Self {
        let mailboxes = u32::try_from(mailboxes).unwrap_or(u32::MAX).max(1);
        let all = |limit: Option<u32>| limit.map(|limit| limit.saturating_mul(mailboxes));
        let (messages, recipients) = (all(self.messages_per_minute), all(self.recipients_per_day));
        Self { messages_per_minute: messages, recipients_per_day: recipients, ..self }
    }
}

/// A pod that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Its name, or what its controller generates names from.
    pub pod: String,
    /// Why, and what to do.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

impl RouteView {
    /// What `route` says.
    pub fn of(route: &DynamicObject) -> Self {
        let spec = route.data.get("spec").unwrap_or(&Value::Null);
        let status: MailRouteStatus = read(route.data.get("status")).unwrap_or_default();
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| ConditionView {
                type_: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
                since: Some(condition.last_transition_time.0),
            })
            .collect();
        let ready =
            conditions.iter().find(|condition| condition.type_ == "Ready").cloned().unwrap_or_default();
        Self {
            namespace: route.namespace().unwrap_or_default(),
            name: route.name_any(),
            generation: route.metadata.generation.unwrap_or_default(),
            // The definition of the resource starts with -1.
            observed_generation: status.observed_generation.filter(|seen| *seen > 0),
            method: spec["method"].as_str().unwrap_or("?").to_owned(),
            sender: status.sender,
            endpoint: status.endpoint,
            ready,
            conditions,
            sidecars: status.sidecars,
            queue: status.queue,
            budget: Budget {
                messages_last_minute: status.usage.messages_last_minute,
                recipients_last_24h: status.usage.recipients_last_24h,
                ..limits(spec).times(status.mailboxes.len())
            },
            mailboxes: status.mailboxes,
            gateway: status.gateway,
            refused: status.refused.map(|it| Refused { pod: it.pod, message: it.message, at: it.at.0 }),
            created: route.creation_timestamp().map(|time| time.0),
            pods: None,
        }
    }

    /// Whether the status is older than the spec.
    pub fn is_behind(&self) -> bool {
        self.observed_generation.is_some_and(|observed| observed < self.generation)
    }

    /// The conditions that ask for something, the cause of the others first.
    pub fn problems(&self) -> impl Iterator<Item = &ConditionView> {
        let is_same = |condition: &ConditionView| {
            condition.type_ == "Ready"
                && self
                    .conditions
                    .iter()
                    .any(|it| it.type_ != "Ready" && it.is_bad() && it.reason == condition.reason)
        };
        self.conditions.iter().filter(move |it| (it.is_bad() || it.warns()) && !is_same(it))
    }
}

/// The limits that the route sets, or else those of its method.
fn limits(spec: &Value) -> Budget {
    let own = |name: &str| spec["limits"][name].as_u64().and_then(|limit| u32::try_from(limit).ok());
    let service: SubmissionService = read(spec.pointer("/clientSubmission/service")).unwrap_or_default();
    let preset = read::<Method>(spec.get("method")).map(|method| LimitPreset::of(method, service));
    Budget {
        messages_per_minute: own("messagesPerMinute")
            .or(preset.and_then(|preset| preset.messages_per_minute)),
        recipients_per_day: own("recipientsPerDay").or(preset.and_then(|preset| preset.recipients_per_day)),
        ..Budget::default()
    }
}

fn read<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
    T::deserialize(value?).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A route in trouble.
    pub fn route() -> DynamicObject {
        let condition = |type_: &str, status: &str, reason: &str, message: &str| {
            json!({"type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2027-01-15T08:00:00Z", "observedGeneration": 3})
        };
        let said = "535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox\x1b[2J. Set-CASMailbox -Identity \
                    noreply@contoso.com -SmtpClientAuthenticationDisabled $false";
        serde_json::from_value(json!({
            "apiVersion": "mailroute.dev/v1alpha1", "kind": "MailRoute",
            "metadata": {"name": "notifications", "namespace": "shop", "generation": 3,
                "creationTimestamp": "2027-01-12T08:00:00Z"},
            "spec": {"method": "ClientSubmission", "limits": {"messagesPerMinute": 20}},
            "status": {
                "observedGeneration": 3,
                "sender": "noreply@contoso.com",
                "endpoint": "smtp.office365.com:587",
                "conditions": [
                    condition("Accepted", "True", "Accepted", ""),
                    condition("CredentialReady", "True", "TokenAcquired", "a token"),
                    condition("Authenticated", "False", "SmtpAuthDisabledMailbox", said),
                    condition("Ready", "False", "SmtpAuthDisabledMailbox", said),
                ],
                "sidecars": {"injected": 4, "ready": 3, "converged": 4, "outdated": 1},
                "queue": {"messages": 12, "oldestSeconds": 300, "deadLetters": 2},
                "usage": {"messagesLastMinute": 14, "recipientsLast24h": 2210},
                "gateway": {"pods": 2, "ready": 2, "queued": 5, "oldestSeconds": 10},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_route_is_read_with_its_limits_and_its_cause() {
        let view = RouteView::of(&route());
        assert_eq!((view.ready.status.as_str(), view.sidecars.ready), ("False", 3));
        let budget = Budget {
            messages_last_minute: 14,
            messages_per_minute: Some(20),
            recipients_last_24h: 2210,
            recipients_per_day: Some(10_000),
        };
        assert_eq!(view.budget, budget);
        assert_eq!(view.problems().map(|it| it.type_.as_str()).collect::<Vec<_>>(), ["Authenticated"]);
    }

    #[test]
    fn what_nobody_or_a_stranger_wrote_is_read_too() {
        let mut bare = route();
        bare.data = json!({"spec": 7, "status": {"conditions": "x"}});
        let view = RouteView::of(&bare);
        assert_eq!((view.method.as_str(), view.ready.status.as_str()), ("?", "Unknown"));
        bare.data = Value::Null;
        assert_eq!(RouteView::of(&bare).name, "notifications");
    }
}

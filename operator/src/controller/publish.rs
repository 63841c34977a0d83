//! Writes a route's status and sends an Event for each turn of a condition: only what differs, and each turn once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use mailroute_operator_core::crd::{MailRoute, MailRouteStatus};
use mailroute_route::condition::{ConditionType, Reason};
use serde_json::json;

use super::apply::FIELD_MANAGER;
use crate::events::Events;

/// A change of a condition that a person wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whether it is for the worse.
    pub is_warning: bool,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// Writes the status if it differs from what the route has, and then the Events of its turns.
///
/// # Errors
/// When the API server does not take the status; the next reconciliation writes it again.
pub async fn publish(
    client: Client,
    events: &Events,
    route: &MailRoute,
    status: &MailRouteStatus,
) -> kube::Result<()> {
    // The webhook owns this field.
    let shown = route.status.clone().map(|shown| MailRouteStatus { refused: None, ..shown });
    if shown.as_ref() == Some(status) {
        return Ok(());
    }
    let api = Api::<MailRoute>::namespaced(client, &route.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": MailRoute::api_version(&()),
        "kind": MailRoute::kind(&()),
        // Refused when the route was deleted and made again meanwhile: this status is not about the new one.
        "metadata": {"name": route.name_any(), "uid": route.uid()},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&route.name_any(), &params, &Patch::Apply(patch)).await?;
    for condition in changed(route.status.as_ref(), status) {
        tracing::info!(
            namespace = route.namespace(),
            route = route.name_any(),
            condition = condition.type_,
            status = condition.status,
            reason = condition.reason,
            message = condition.message,
            "a condition changed"
        );
    }
    for turn in turns(route.status.as_ref(), status) {
        let tell = if turn.is_warning { Events::warn } else { Events::note };
        tell(events, route.object_ref(&()), turn.reason.as_str(), "Reconcile", turn.message);
    }
    Ok(())
}

/// The conditions that have another status or reason than before.
fn changed<'a>(old: Option<&MailRouteStatus>, new: &'a MailRouteStatus) -> Vec<&'a Condition> {
    let is_same = |one: &Condition, other: &Condition| {
        (&one.type_, &one.status, &one.reason) == (&other.type_, &other.status, &other.reason)
    };
    let was = |now: &&Condition| old.is_some_and(|old| old.conditions.iter().any(|then| is_same(then, now)));
    new.conditions.iter().filter(|now| !was(now)).collect()
}

/// What changed for the worse (a condition fails, or fails for another reason, or holds with a warning), and whether mail
/// can flow now.
pub fn turns(old: Option<&MailRouteStatus>, new: &MailRouteStatus) -> Vec<Turn> {
    let before = |type_: &str| {
        let found = old?.conditions.iter().find(|condition| condition.type_ == type_)?;
        Some((found.status.as_str(), found.reason.as_str()))
    };
    let mut turns = Vec::new();
    for condition in &new.conditions {
        let is_ready = condition.type_ == ConditionType::Ready.as_str();
        let now = (condition.status.as_str(), condition.reason.as_str());
        let Some(reason) = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason) else {
            continue;
        };
        // Ready repeats the first failing condition, and a failed write has its own Event with the API server's answer:
        // one Event for one fault.
        let is_news = before(&condition.type_) != Some(now)
            && *reason != Reason::RenderFailed
            && match condition.status.as_str() {
                "False" => !is_ready,
                "True" => *reason == Reason::Ready || reason.warns(),
                _ => false,
            };
        if is_news {
            let is_warning = condition.status == "False" || reason.warns();
            turns.push(Turn { is_warning, reason: *reason, message: condition.message.clone() });
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn status(conditions: &[(&str, &str, &str)]) -> MailRouteStatus {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).into(),
            status: (*status).into(),
            reason: (*reason).into(),
            message: format!("about {reason}"),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        MailRouteStatus { conditions: conditions.iter().map(condition).collect(), ..Default::default() }
    }

    fn reasons(old: Option<&MailRouteStatus>, new: &MailRouteStatus) -> Vec<(bool, &'static str)> {
        turns(old, new).into_iter().map(|turn| (turn.is_warning, turn.reason.as_str())).collect()
    }

    #[test]
    fn one_fault_is_one_warning() {
        let well = status(&[("Authenticated", "True", "LoggedIn"), ("Ready", "True", "Ready")]);
        let fault = status(&[
            ("Authenticated", "False", "ExchangeRejectedToken"),
            ("Ready", "False", "ExchangeRejectedToken"),
        ]);
        assert_eq!(reasons(Some(&well), &fault), [(true, "ExchangeRejectedToken")]);
        assert_eq!(reasons(Some(&fault), &fault), []);
    }

    #[test]
    fn another_reason_is_told_of() {
        let one = status(&[("Authenticated", "False", "ExchangeRejectedToken")]);
        let two = status(&[("Authenticated", "False", "SmtpAuthDisabledMailbox")]);
        assert_eq!(reasons(Some(&one), &two), [(true, "SmtpAuthDisabledMailbox")]);
    }

    #[test]
    fn a_condition_that_holds_with_a_remedy_is_a_warning() {
        let well = status(&[("CertificateValid", "True", "CertificateValid")]);
        let ending = status(&[("CertificateValid", "True", "CertificateExpiring")]);
        assert_eq!(reasons(Some(&well), &ending), [(true, "CertificateExpiring")]);
        assert_eq!(reasons(Some(&ending), &ending), []);
        assert_eq!(reasons(Some(&ending), &well), []);
    }

    #[test]
    fn conditions_that_change_are_named_and_others_are_not() {
        let before = status(&[("Accepted", "True", "Accepted"), ("Ready", "True", "NoPods")]);
        let now = status(&[("Accepted", "True", "Accepted"), ("Ready", "True", "Ready")]);
        let names = |old: Option<&MailRouteStatus>| -> Vec<String> {
            changed(old, &now).into_iter().map(|condition| condition.type_.clone()).collect()
        };
        assert_eq!(names(Some(&before)), ["Ready"]);
        assert_eq!(names(Some(&now)), Vec::<String>::new());
        assert_eq!(names(None), ["Accepted", "Ready"]);
    }

    #[test]
    fn it_is_told_once_that_mail_can_flow() {
        let waiting = status(&[("Ready", "True", "WaitingForReports")]);
        let well = status(&[("Authenticated", "True", "LoggedIn"), ("Ready", "True", "Ready")]);
        assert_eq!(reasons(None, &waiting), []);
        assert_eq!(reasons(Some(&waiting), &well), [(false, "Ready")]);
        assert_eq!(reasons(Some(&well), &well), []);
    }
}

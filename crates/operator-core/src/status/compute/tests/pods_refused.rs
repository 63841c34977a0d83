//! Pods that the webhook refuses.

use super::*;
use crate::crd::status::RefusedPod;
use crate::inject::Refusal;

fn refusing(situation: Situation, generation: i64) -> Situation {
    let refused = RefusedPod {
        pod: "web-2".into(),
        reason: "HostNetwork".into(),
        message: "Remove hostNetwork.".into(),
        at: Time(at(1000)),
        observed_generation: Some(generation),
    };
    situation.after(MailRouteStatus { refused: Some(refused), ..Default::default() })
}

fn ready(situation: &Situation, second: i64) -> (String, String, String) {
    let status = situation.status(at(second));
    assert_eq!(status.refused, None, "the webhook's to write");
    let found = find(&status.conditions, ConditionType::Ready).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn ready_is_false_and_says_why_while_all_pods_are_refused() {
    let situation = refusing(Situation::new(), 3);
    let (status, reason, message) = ready(&situation, 1100);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "PodsRefused"));
    assert_eq!(message, "The pod web-2 was refused: Remove hostNetwork.");
    assert_eq!(ready(&situation, 1000 + 20 * 60).1, "NoPods", "nobody tries any more");
    assert_eq!(ready(&refusing(Situation::new(), 2), 1100).1, "NoPods", "the route was changed");
}

#[test]
fn pods_that_run_beside_one_that_is_refused_are_still_ready() {
    let (status, reason, message) = ready(&refusing(Situation::new().pod("a").report("a", well()), 3), 1100);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "PodsRefused"));
    assert!(
        message.starts_with("The pod web-2 was refused:") && message.ends_with("Mail can flow."),
        "{message}"
    );
    let let_in = refusing(Situation::new().new_pod("a", 1001).report("a", well()), 3);
    assert_eq!(ready(&let_in, 1100).1, "Ready", "a pod was let in since");
}

#[test]
fn a_route_whose_every_pod_would_be_refused_is_not_accepted() {
    let (request, limit) = ("32Mi".into(), "16Mi".into());
    let acceptance = Acceptance::Refusing(Refusal::RequestOverLimit { resource: "memory", request, limit });
    let status = Situation { acceptance, ..Situation::new() }.status(at(0));
    let accepted = find(&status.conditions, ConditionType::Accepted).unwrap();
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "Invalid"));
    assert!(accepted.message.contains("32Mi") && accepted.message.contains("16Mi"), "{}", accepted.message);
}

//! Mail that people have to hear of: given up, or left behind in a pod that has ended. Pure.
//!
//! Told from the reports alone, each once: the growth of a pod's dead letters since it was told of last, and what a pod's
//! last report says that it held. A pod counts as ended when it was seen to live before. A new leader does not know what
//! the one before told, so while it is new, the dead letters that it finds are where it counts from. What a gateway's pod leaves on
//! its volume claim is not lost: the next pod delivers it, unless the route was deleted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use mailroute_route::identity::Role;

use crate::reports::ReceivedReport;

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// Messages that a pod left behind when it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMessages {
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// How many.
    pub messages: u64,
    /// Message-IDs of some of them.
    pub message_ids: Vec<String>,
}

/// What nobody was told of yet of the messages that pods left behind. `is_live` says of a pod's uid whether it has not
/// ended.
pub fn left(reports: &BTreeMap<String, ReceivedReport>, is_live: impl Fn(&str) -> bool) -> Vec<LeftMessages> {
    held(reports, |uid, received| !received.accounted.is_gateway && has_ended(received, is_live(uid)))
}

/// What waits on the claims of gateways whose route was deleted, and nobody was told of yet: of those that have ended, and with
/// `is_news` of those that live.
pub fn on_claims(
    reports: &BTreeMap<String, ReceivedReport>,
    live: impl Fn(&str) -> Option<Role>,
    is_news: bool,
) -> Vec<LeftMessages> {
    held(reports, |uid, received| match live(uid) {
        Some(role) => is_news && role == Role::Gateway,
        None => received.accounted.is_gateway && has_ended(received, false),
    })
}

fn has_ended(received: &ReceivedReport, is_live: bool) -> bool {
    received.accounted.was_live && !received.accounted.is_over && !is_live
}

fn held(
    reports: &BTreeMap<String, ReceivedReport>,
    is_concerned: impl Fn(&str, &ReceivedReport) -> bool,
) -> Vec<LeftMessages> {
    reports
        .iter()
        .filter(|(uid, received)| is_concerned(uid, received))
        .filter(|(_, received)| received.report.queue.messages > 0)
        .map(|(uid, received)| LeftMessages {
            pod: received.pod.clone(),
            uid: uid.clone(),
            messages: received.report.queue.messages,
            message_ids: received.report.left.clone(),
        })
        .collect()
}

/// All of them together.
pub fn sum(left: &[LeftMessages]) -> u64 {
    left.iter().fold(0, |sum, left| sum.saturating_add(left.messages))
}

impl LeftMessages {
    /// The pod, for an Event. It is gone, and its Events stay for a while.
    pub fn reference(&self, namespace: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(self.pod.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// For a person. `route` is the name of the route when it was deleted.
    pub fn message(&self, deleted_route: Option<&str>) -> String {
        let route =
            deleted_route.map_or_else(String::new, |name| format!(", whose MailRoute {name} was deleted,"));
        let named = match self.message_ids.as_slice() {
            [] => "the sidecar's log names each".to_owned(),
            ids if ids.len() as u64 >= self.messages => format!("their Message-IDs are {}", ids.join(" ")),
            ids => format!("among their Message-IDs are {}", ids.join(" ")),
        };
        format!(
            "{} left in the queue of the pod {}{route} when it ended. With an emptyDir they are lost. A longer \
             terminationGracePeriodSeconds gives a sidecar more time to send. To look them up: {named}.",
            messages(self.messages),
            self.pod,
        )
    }
}

impl LeftMessages {
    /// For a person who has deleted the route of a gateway.
    pub fn on_claim(&self, deleted_route: &str) -> String {
        let count =
            if self.messages == 1 { "1 message waits" } else { &format!("{} messages wait", self.messages) };
        format!(
            "{count} on the volume claim of the gateway pod {}, whose MailRoute {deleted_route} was deleted. A pod that runs \
             continues to deliver, and a new one is refused until the MailRoute is applied again. Before you delete the \
             claim or the namespace, see mailroute-sidecar queue list in the pod.",
            self.pod,
        )
    }
}

/// Dead letters that nobody was told of yet, in words. `is_settling`: this leader is new.
pub fn given_up(reports: &BTreeMap<String, ReceivedReport>, is_settling: bool) -> Option<String> {
    let (count, names) = pods(reports, |_, received| {
        let dead = received.report.queue.dead_letters;
        let before = received.accounted.dead_letters.unwrap_or(if is_settling { dead } else { 0 });
        dead.saturating_sub(before)
    })?;
    Some(format!(
        "{} given up and are now dead letters, in {names}. The sidecar's log names each with its recipients and \
         Microsoft's last reply; they are kept while the pod lives.",
        messages(count),
    ))
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message was".to_owned() } else { format!("{count} messages were") }
}

/// The sum over all pods, and the pods by name; none when there is nothing.
fn pods(
    reports: &BTreeMap<String, ReceivedReport>,
    count: impl Fn(&str, &ReceivedReport) -> u64,
) -> Option<(u64, String)> {
    let counted = reports.iter().map(|(uid, received)| (received.pod.as_str(), count(uid, received)));
    let concerned: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
    if concerned.is_empty() {
        return None;
    }
    let sum = concerned.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let named = concerned.iter().take(NAMED).map(|(pod, count)| format!("{pod} ({count})"));
    let mut names = named.collect::<Vec<_>>().join(", ");
    if concerned.len() > NAMED {
        names.push_str(&format!(" and {} more", concerned.len() - NAMED));
    }
    Some((sum, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::AccountedMail;
    use crate::samples;
    use jiff::Timestamp;
    use mailroute_route::control::Queue;

    fn received(pod: &str, messages: u64, dead_letters: u64, accounted: AccountedMail) -> ReceivedReport {
        let mut report = samples::report(vec![]);
        report.queue = Queue { messages, oldest_seconds: 0, dead_letters };
        let at = Timestamp::UNIX_EPOCH;
        ReceivedReport { pod: pod.into(), report, at, since: at, is_told: false, accounted }
    }

    fn told(dead_letters: u64) -> AccountedMail {
        AccountedMail { was_live: true, dead_letters: Some(dead_letters), ..AccountedMail::default() }
    }

    fn by_uid(all: impl IntoIterator<Item = ReceivedReport>) -> BTreeMap<String, ReceivedReport> {
        all.into_iter().map(|received| (received.pod.clone(), received)).collect()
    }

    fn left_of(received: ReceivedReport, live: &[&str]) -> Vec<LeftMessages> {
        left(&by_uid([received]), |uid| live.contains(&uid))
    }

    #[test]
    fn dead_letters_are_told_of_when_they_grow() {
        let grown = by_uid([received("a", 0, 3, told(1)), received("b", 0, 1, AccountedMail::default())]);
        let message = given_up(&grown, false).unwrap();
        assert!(message.starts_with("3 messages were given up and are now dead letters, in a (2), b (1)."));
        assert_eq!(given_up(&by_uid([received("a", 9, 3, told(3))]), false), None);
        assert_eq!(given_up(&by_uid([received("a", 9, 0, told(3))]), false), None, "somebody dropped them");
    }

    #[test]
    fn a_new_leader_counts_from_what_it_finds() {
        assert_eq!(given_up(&by_uid([received("a", 0, 3, AccountedMail::default())]), true), None);
        assert!(given_up(&by_uid([received("a", 0, 4, told(3))]), true).is_some());
    }

    #[test]
    fn many_pods_are_counted_and_some_named() {
        let many = (0..50).map(|n| received(&format!("pod-{n}"), 0, 1, told(0)));
        let message = given_up(&by_uid(many), false).unwrap();
        assert!(message.starts_with("50 messages were") && message.contains("and 45 more"));
    }

    #[test]
    fn each_pod_that_ends_with_messages_is_told_of_by_itself_and_once() {
        let mut two = received("b", 2, 0, told(0));
        two.report.left = vec!["<1@shop>".into(), "<2@shop>".into()];
        let ended = by_uid([received("a", 1, 0, told(0)), two.clone()]);
        let found = left(&ended, |_| false);
        let messages: Vec<_> = found.iter().map(|left| left.message(None)).collect();
        assert!(messages[0].starts_with("1 message was left in the queue of the pod a when it ended."));
        assert!(messages[1].starts_with("2 messages were left in the queue of the pod b when it ended."));
        assert!(messages[1].ends_with("their Message-IDs are <1@shop> <2@shop>."), "{}", messages[1]);
        let over = ReceivedReport { accounted: AccountedMail { is_over: true, ..told(0) }, ..two.clone() };
        assert_eq!(left_of(over, &[]), []);
        assert_eq!(left_of(two, &["b"]), [], "it lives");
        assert_eq!(left_of(received("a", 0, 0, told(0)), &[]), [], "its queue was empty");
        assert_eq!(
            left_of(received("a", 2, 0, AccountedMail::default()), &[]),
            [],
            "it was never seen to live"
        );
    }

    #[test]
    fn what_a_gateway_has_on_its_claim_is_not_lost_and_is_told_of_when_the_route_is_deleted() {
        let gateway = AccountedMail { is_gateway: true, ..told(0) };
        let all = by_uid([
            ReceivedReport { accounted: gateway, ..received("mail-gateway-0", 3, 0, told(0)) },
            received("web-1", 2, 0, told(0)),
        ]);
        let pods = |found: Vec<LeftMessages>| found.into_iter().map(|it| it.pod).collect::<Vec<_>>();
        assert_eq!(pods(left(&all, |_| false)), ["web-1"]);
        assert_eq!(pods(on_claims(&all, |_| None, false)), ["mail-gateway-0"]);
        let live = |uid: &str| Some(if uid == "web-1" { Role::Sidecar } else { Role::Gateway });
        assert_eq!(pods(on_claims(&all, live, false)), Vec::<String>::new(), "it goes on");
        let found = on_claims(&all, live, true);
        let message = found[0].on_claim("notifications");
        assert!(
            message
                .starts_with("3 messages wait on the volume claim of the gateway pod mail-gateway-0, whose")
        );
        assert!(message.contains("MailRoute notifications was deleted") && message.contains("namespace"));
    }

    #[test]
    fn a_note_with_as_many_message_ids_as_a_report_may_hold_says_what_to_do_before_it_is_cut() {
        let mut many = received("a", 60, 0, told(0));
        many.report.left = vec!["x".repeat(250); 10];
        let message = left_of(many, &[])[0].message(Some("notifications"));
        assert!(
            message[..400].contains("whose MailRoute notifications was deleted")
                && message[..400].contains("lost")
        );
    }
}

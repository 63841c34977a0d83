//! Mail that people have to hear of: given up, or left behind in a pod that has ended. Pure.
//!
//! Told from the reports alone, each once: the growth of a pod's dead letters since it was told of last, and what a pod's
//! last report says that it held. A pod counts as ended when it was seen to live before. A new leader does not know what
//! the one before told, so while it is new, the dead letters that it finds are where it counts from.

use std::collections::BTreeMap;

use crate::control::reports::Received;

/// Pods named in one message, at most.
const NAMED: usize = 5;

/// Something that is worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The Event's reason, of a closed set.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// What nobody was told of yet. `is_live` says of a pod's uid whether it has not ended; `is_settling` whether this leader
/// is new.
pub fn losses(
    reports: &BTreeMap<String, Received>,
    is_live: impl Fn(&str) -> bool,
    is_settling: bool,
) -> Vec<Loss> {
    let given_up = pods(reports, |_, received| {
        let dead = received.report.queue.dead_letters;
        let before = received.accounted.dead_letters.unwrap_or(if is_settling { dead } else { 0 });
        dead.saturating_sub(before)
    });
    let left = pods(reports, |uid, received| {
        let is_news = received.accounted.was_live && !received.accounted.is_over && !is_live(uid);
        if is_news { received.report.queue.messages } else { 0 }
    });
    let dead_letters = given_up.map(|(count, names)| Loss {
        reason: "DeadLetters",
        message: format!(
            "{} given up and kept as dead letters, in {names}. The sidecar's log names each with its recipients and \
             Microsoft's last reply; they are kept while the pod lives.",
            messages(count),
        ),
    });
    let left_behind = left.map(|(count, names)| Loss {
        reason: "MessagesLeft",
        message: format!(
            "{} left in the queue of a pod that has ended: {names}. With an emptyDir they are lost; the sidecar's log \
             names each. A longer terminationGracePeriodSeconds gives a sidecar more time to send.",
            messages(count),
        ),
    });
    dead_letters.into_iter().chain(left_behind).collect()
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message was".to_owned() } else { format!("{count} messages were") }
}

/// The sum over all pods, and the pods by name; none when there is nothing.
fn pods(
    reports: &BTreeMap<String, Received>,
    count: impl Fn(&str, &Received) -> u64,
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
    use super::super::samples;
    use super::*;
    use crate::control::reports::Accounted;
    use jiff::Timestamp;
    use mailroute_route::control::Queue;

    fn received(pod: &str, messages: u64, dead_letters: u64, accounted: Accounted) -> Received {
        let mut report = samples::report(vec![]);
        report.queue = Queue { messages, oldest_seconds: 0, dead_letters };
        let at = Timestamp::UNIX_EPOCH;
        Received { pod: pod.into(), report, at, since: at, is_told: false, accounted }
    }

    fn told(dead_letters: u64) -> Accounted {
        Accounted { was_live: true, dead_letters: Some(dead_letters), is_over: false }
    }

    fn told_of(
        all: impl IntoIterator<Item = Received>,
        live: &[&str],
        settling: bool,
    ) -> Vec<(&'static str, String)> {
        let reports = all.into_iter().map(|received| (received.pod.clone(), received)).collect();
        let losses = losses(&reports, |uid| live.contains(&uid), settling);
        losses.into_iter().map(|loss| (loss.reason, loss.message)).collect()
    }

    #[test]
    fn dead_letters_are_told_of_when_they_grow() {
        let grown = [received("a", 0, 3, told(1)), received("b", 0, 1, Accounted::default())];
        let told_now = told_of(grown, &["a", "b"], false);
        assert_eq!(told_now.len(), 1);
        assert_eq!(told_now[0].0, "DeadLetters");
        assert!(
            told_now[0].1.starts_with("3 messages were given up and kept as dead letters, in a (2), b (1).")
        );
        assert_eq!(told_of([received("a", 9, 3, told(3))], &["a"], false), []);
        assert_eq!(told_of([received("a", 9, 0, told(3))], &["a"], false), [], "somebody dropped them");
    }

    #[test]
    fn a_new_leader_counts_from_what_it_finds() {
        assert_eq!(told_of([received("a", 0, 3, Accounted::default())], &["a"], true), []);
        assert_eq!(told_of([received("a", 0, 4, told(3))], &["a"], true).len(), 1);
    }

    #[test]
    fn a_pod_that_ends_with_messages_is_told_of_once() {
        let ended = received("a", 2, 0, told(0));
        let told_now = told_of([ended.clone()], &[], false);
        assert_eq!(told_now[0].0, "MessagesLeft");
        assert!(
            told_now[0].1.starts_with("2 messages were left in the queue of a pod that has ended: a (2).")
        );
        let over = Received { accounted: Accounted { is_over: true, ..told(0) }, ..ended.clone() };
        assert_eq!(told_of([over], &[], false), []);
        assert_eq!(told_of([ended], &["a"], false), [], "it lives");
        assert_eq!(told_of([received("a", 0, 0, told(0))], &[], false), [], "its queue was empty");
    }

    #[test]
    fn a_pod_that_was_never_seen_has_not_ended() {
        assert_eq!(told_of([received("a", 2, 0, Accounted::default())], &[], false), []);
    }

    #[test]
    fn many_pods_are_counted_and_some_named() {
        let many = (0..50).map(|n| received(&format!("pod-{n}"), 1, 0, told(0)));
        let told_now = told_of(many, &[], false);
        assert!(told_now[0].1.starts_with("50 messages were") && told_now[0].1.contains("and 45 more"));
    }
}

//! The queues of many pods as one: which messages there are, where each is, and what the pods changed. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::answer::{Changed, List, Obstacle, Row};
use crate::args::is_queue_id;
use crate::cluster::pods::RoutePod;
use crate::table::{Cell, Table, number, text};
use crate::terminal::{Style, Tone, clean};
use crate::time::{second, size, span};

/// A queue made of those of many pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    /// The messages, the oldest first.
    pub messages: Vec<Placed>,
    /// Damaged files.
    pub corrupt: Vec<DamagedFile>,
    /// Pods whose MailRoute was deleted.
    pub route_deleted: Vec<String>,
    /// Pods that could not be asked, and why.
    pub not_seen: Vec<String>,
}

/// A message, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The pod.
    pub pod: String,
    /// Whether the pod is a gateway.
    pub gateway: bool,
    /// What the pod says of it.
    #[serde(flatten)]
    pub row: Row,
}

/// A file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedFile {
    /// The pod.
    pub pod: String,
    /// Its name.
    pub file: String,
}

/// The queues of the pods that answered, and the complaints about the others.
pub fn merge(lists: Vec<(RoutePod, List)>, not_seen: Vec<String>) -> Merged {
    let mut merged = Merged { not_seen, ..Merged::default() };
    for (pod, list) in lists {
        if list.route_deleted {
            merged.route_deleted.push(pod.name.clone());
        }
        let corrupt = list.corrupt.into_iter().map(|file| DamagedFile { pod: pod.name.clone(), file });
        merged.corrupt.extend(corrupt);
        // An id becomes the name of a file and part of a command: what is none is not taken for one.
        let rows = list.messages.into_iter().filter(|row| is_queue_id(&row.id));
        let placed = rows.map(|row| Placed { pod: pod.name.clone(), gateway: pod.gateway, row });
        merged.messages.extend(placed);
    }
    // Ids begin with the time.
    merged.messages.sort_by(|a, b| (&a.row.id, &a.pod).cmp(&(&b.row.id, &b.pod)));
    merged
}

impl Merged {
    /// The messages that are meant, by the pod in which each is; and the ids that no pod has.
    pub fn places<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
        let (mut places, mut unknown) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        let mut done = std::collections::BTreeSet::new();
        for id in ids.into_iter().filter(|id| done.insert(*id)) {
            let found: Vec<_> = self.messages.iter().filter(|placed| placed.row.id == *id).collect();
            if found.is_empty() {
                unknown.push(id.clone());
            }
            for placed in found {
                places.entry(placed.pod.clone()).or_default().push(id.clone());
            }
        }
        (places, unknown)
    }

    /// The ids of all dead letters.
    pub fn dead(&self) -> Vec<String> {
        self.messages.iter().filter(|it| it.row.state == "dead").map(|it| it.row.id.clone()).collect()
    }

    /// As text, with ages as of `now`.
    pub fn print(&self, style: Style, now: Timestamp) -> String {
        let mut table = Table::new([
            text("POD"),
            text("ID"),
            text("STATE"),
            number("AGE"),
            number("NEXT"),
            number("TRIES").spare(2),
            number("SIZE").spare(3),
            text("FROM").spare(1),
            number("TO").spare(4),
            text("REASON"),
        ]);
        for placed in &self.messages {
            table.row(cells(placed, now));
        }
        for damaged in &self.corrupt {
            let rest = ["-"; 7].map(Cell::from);
            let first = [(&damaged.pod).into(), (&damaged.file).into(), Cell::new("corrupt", Tone::Bad)];
            table.row(first.into_iter().chain(rest));
        }
        let mut text =
            if table.is_empty() { "The queue is empty.\n".to_owned() } else { table.render(style) };
        if !self.route_deleted.is_empty() {
            let pods = self.route_deleted.join(", ");
            text.push_str(&format!(
                "\nThe MailRoute of these pods was deleted; they send what is queued: {}\n",
                clean(&pods)
            ));
        }
        text
    }
}

fn cells(Placed { pod, row, .. }: &Placed, now: Timestamp) -> Vec<Cell> {
    let tone = match row.state.as_str() {
        "dead" => Tone::Bad,
        "held" => Tone::Warning,
        _ => Tone::Plain,
    };
    let next = match (row.state.as_str(), row.next) {
        ("trying", _) => "now".into(),
        (_, Some(next)) if next <= now => "now".into(),
        (_, Some(next)) => span(now, next),
        (_, None) => "-".into(),
    };
    let from = if row.from.is_empty() { "<>" } else { &row.from };
    vec![
        pod.into(),
        (&row.id).into(),
        Cell::new(&row.state, tone),
        row.accepted.map_or("-".into(), |accepted| span(accepted, now)).into(),
        next.into(),
        row.attempts.to_string().into(),
        size(row.bytes).into(),
        from.into(),
        row.recipients().into(),
        row.why().into(),
    ]
}

/// What the pods changed, as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    /// Messages that were changed.
    pub done: u64,
    /// What was not, and why.
    pub failed: Vec<String>,
    /// What keeps messages from being tried at once, by pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub waits_for: BTreeMap<String, Obstacle>,
}

impl Sum {
    /// Adds what one pod changed.
    pub fn add(&mut self, pod: &str, changed: Changed) {
        self.done = self.done.saturating_add(changed.done);
        self.failed.extend(changed.failed.into_iter().map(|why| format!("pod {pod}: {why}")));
        if let Some(obstacle) = changed.waits_for {
            self.waits_for.insert(pod.to_owned(), obstacle);
        }
    }

    /// As text; `what` says what was done.
    pub fn print(&self, what: &str) -> String {
        let messages = if self.done == 1 { "message" } else { "messages" };
        let mut text = format!("{} {messages} {what}\n", self.done);
        // Pods of a route mostly wait for the same.
        let mut same: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (pod, it) in &self.waits_for {
            let reason = it.reason.as_ref().map(|reason| format!("{reason}: ")).unwrap_or_default();
            let until = it.until.map(|until| format!(", next try at {}", second(until))).unwrap_or_default();
            same.entry(format!("{reason}{}{until}", it.text)).or_default().push(pod);
        }
        for (why, pods) in same {
            text.push_str(&format!("Held in {}: {}\n", clean(&pods.join(", ")), clean(&why)));
        }
        for why in &self.failed {
            text.push_str(&format!("{}\n", clean(why)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::super::answer::Counts;
    use super::*;

    fn pod(name: &str) -> RoutePod {
        RoutePod::of(&samples::pod(name, "image")).unwrap()
    }

    fn row(id: &str, state: &str, why: &str) -> Row {
        Row {
            id: id.into(),
            state: state.into(),
            accepted: Some("2027-01-15T08:00:00Z".parse().unwrap()),
            attempts: 1,
            bytes: 339,
            from: "noreply@contoso.com".into(),
            to: Counts { waiting: 2, ..Counts::default() },
            waits_for: Some(Obstacle { text: why.into(), ..Obstacle::default() }),
            ..Row::default()
        }
    }

    fn merged() -> Merged {
        let list = |rows: Vec<Row>| List { messages: rows, ..List::default() };
        let first = list(vec![
            row("1k0v20rrs91sz4h0ym2", "held", "the mailbox\x1b[2J"),
            row("../../../etc/passwd", "dead", ""),
        ]);
        let second = List {
            corrupt: vec!["broken".into()],
            ..list(vec![row("1k0v20rrs91sz4h0ym1", "dead", "550 5.1.1 unknown")])
        };
        merge(vec![(pod("web-1"), first), (pod("web-2"), second)], vec!["pod web-3: no answer".into()])
    }

    #[test]
    fn the_oldest_message_comes_first_and_what_is_no_id_is_not_there() {
        let expected = "\
POD    ID                   STATE    AGE  NEXT  TRIES   SIZE  FROM                 TO  REASON
web-2  1k0v20rrs91sz4h0ym1  dead      5m     -      1  339 B  noreply@contoso.com   2  550 5.1.1 unknown
web-1  1k0v20rrs91sz4h0ym2  held      5m     -      1  339 B  noreply@contoso.com   2  the mailbox\u{fffd}[2J
web-2  broken               corrupt    -     -      -      -  -                     -  -
";
        let shown = merged().print(Style::default(), "2027-01-15T08:05:00Z".parse().unwrap());
        assert_eq!(shown, expected);
        assert_eq!(
            merge(vec![], vec![]).print(Style::default(), Timestamp::UNIX_EPOCH),
            "The queue is empty.\n"
        );
    }

    #[test]
    fn each_message_is_changed_where_it_is() {
        let ids = ["1k0v20rrs91sz4h0ym2", "1k0v20rrs91sz4h0ym2", "1k0v20rrs91sz4h0yms"].map(String::from);
        let (places, unknown) = merged().places(&ids);
        assert_eq!(places, [("web-1".to_owned(), vec![ids[0].clone()])].into());
        assert_eq!(unknown, [ids[2].clone()]);
        assert_eq!(merged().dead(), ["1k0v20rrs91sz4h0ym1"]);
    }

    #[test]
    fn what_pods_wait_for_is_said_once() {
        let mut sum = Sum::default();
        let obstacle = |text: &str| Obstacle {
            reason: Some("DailyQuotaExceeded".into()),
            text: text.into(),
            until: Some("2027-01-15T08:05:00.5Z".parse().unwrap()),
        };
        for pod in ["web-1", "web-2"] {
            sum.add(
                pod,
                Changed { done: 2, failed: vec![], waits_for: Some(obstacle("the limit is used up")) },
            );
        }
        sum.add(
            "web-3",
            Changed { done: 0, failed: vec!["message x is being tried".into()], waits_for: None },
        );
        let expected = "\
4 messages will be tried now
Held in web-1, web-2: DailyQuotaExceeded: the limit is used up, next try at 2027-01-15T08:05:00Z
pod web-3: message x is being tried
";
        assert_eq!(sum.print("will be tried now"), expected);
    }
}

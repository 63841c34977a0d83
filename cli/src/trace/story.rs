//! What became of a message, out of what pods logged and what they still have. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::lines::{Line, Wanted};
use crate::queue::merge::Placed;
use crate::table::{Cell, Table, text};
use crate::terminal::{Style, Tone, clean};
use crate::time::{second, span};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// In which pod.
    pub pod: String,
    /// What its log says.
    #[serde(flatten)]
    pub line: Line,
}

/// How it ended, or stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// Microsoft 365 has it.
    Delivered,
    /// It waits.
    Waiting,
    /// It was given up, and is kept.
    Dead,
    /// The application was told that it is not taken.
    Refused,
    /// A person deleted it.
    Dropped,
    /// It is known, and its end is not.
    Open,
    /// Nobody knows it.
    Unknown,
}

/// The story of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// How it ended, or stands.
    pub end: End,
    /// The Message-ID, with angle brackets; empty where it is not known.
    pub message_id: String,
    /// Its ids in queues.
    pub queue_ids: BTreeSet<String>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Where it is kept now.
    pub kept: Vec<Placed>,
    /// What finds it in Exchange's message trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// Pods that could not be asked, and why.
    pub not_seen: Vec<String>,
}

/// The story of what is wanted.
pub fn story(wanted: &Wanted, mut events: Vec<Event>, kept: Vec<Placed>, not_seen: Vec<String>) -> Story {
    events.sort_by_key(|event| event.line.at);
    events.dedup();
    let end = end(&events, &kept);
    let message_id =
        if wanted.message_id.is_empty() { String::new() } else { format!("<{}>", wanted.message_id) };
    let exchange = exchange(&message_id, &events, &kept);
    Story { end, message_id, queue_ids: wanted.queue_ids.clone(), events, kept, exchange, not_seen }
}

fn end(events: &[Event], kept: &[Placed]) -> End {
    if let Some(placed) = kept.iter().find(|placed| placed.row.state != "dead").or(kept.first()) {
        return if placed.row.state == "dead" { End::Dead } else { End::Waiting };
    }
    let last = |is: fn(&Line) -> bool| events.iter().rposition(|event| is(&event.line));
    let ends = [
        (last(is_delivery), End::Delivered),
        (last(|line| line.event == "refused" || is_refusal(line)), End::Refused),
        (last(|line| line.event.starts_with("given up")), End::Dead),
        (last(|line| line.event.starts_with("dropped")), End::Dropped),
    ];
    let newest = ends.into_iter().filter_map(|(at, end)| Some((at?, end))).max_by_key(|(at, _)| *at);
    match newest {
        Some((_, end)) => end,
        None if events.is_empty() => End::Unknown,
        None => End::Open,
    }
}

fn is_delivery(line: &Line) -> bool {
    line.event == "delivery" && line.field("outcome") == "delivered"
}

/// A final no while the application waited.
fn is_refusal(line: &Line) -> bool {
    line.event == "delivery" && line.field("attempt") == "0" && line.field("outcome").starts_with("reject_")
}

/// What to paste into Exchange Online PowerShell: an hour around what is known of it.
fn exchange(message_id: &str, events: &[Event], kept: &[Placed]) -> Option<String> {
    if message_id.is_empty() {
        return None;
    }
    let accepted = kept.iter().filter_map(|placed| placed.row.accepted);
    let times: Vec<Timestamp> = events.iter().map(|event| event.line.at).chain(accepted).collect();
    let hour = SignedDuration::from_hours(1);
    let from = times.iter().min().and_then(|at| at.checked_sub(hour).ok());
    let to = times.iter().max().and_then(|at| at.checked_add(hour).ok());
    let window = match (from, to) {
        (Some(from), Some(to)) => format!(" -StartDate '{}' -EndDate '{}'", second(from), second(to)),
        _ => String::new(),
    };
    Some(format!("Get-MessageTraceV2 -MessageId '{}'{window}", quoted(message_id)))
}

/// A text for single quotes of PowerShell, which takes typographic ones for the same.
fn quoted(text: &str) -> String {
    let is_quote = |c: &char| matches!(c, '\'' | '\u{2018}'..='\u{201b}');
    text.chars().flat_map(|c| std::iter::repeat_n(c, 1 + usize::from(is_quote(&c)))).collect()
}

impl Story {
    /// As text.
    pub fn print(&self, style: Style, now: Timestamp) -> String {
        let mut out = String::new();
        let mut say = |name: &str, tone: Tone, value: &str| {
            if !value.is_empty() {
                out.push_str(&format!("{name:12} {}\n", style.paint(tone, &clean(value))));
            }
        };
        let (tone, end) = self.headline(now);
        say("Message-ID", Tone::Plain, &self.message_id);
        say("Queue id", Tone::Plain, &self.queue_ids.iter().cloned().collect::<Vec<_>>().join(", "));
        say("State", tone, &end);
        if !self.events.is_empty() {
            let mut table = Table::new([text("TIME"), text("POD"), text("WHAT HAPPENED")]);
            for event in &self.events {
                let (tone, said) = told(&event.line);
                table.row([event.line.at.to_string().into(), (&event.pod).into(), Cell::new(said, tone)]);
            }
            // Whole: a reply is what one came for.
            out.push_str(&format!("\n{}", table.render(Style { width: None, ..style })));
        }
        if let Some(exchange) = &self.exchange {
            out.push_str(&format!("\nIn Exchange Online PowerShell:\n  {}\n", clean(exchange)));
        }
        out
    }

    fn headline(&self, now: Timestamp) -> (Tone, String) {
        let newest =
            |is: fn(&Line) -> bool| self.events.iter().rev().map(|event| &event.line).find(|line| is(line));
        match self.end {
            End::Delivered => {
                let line = newest(is_delivery);
                let by =
                    line.map(|line| format!(" at {}{}", second(line.at), by_host(line))).unwrap_or_default();
                (Tone::Good, format!("accepted by Microsoft 365{by}"))
            }
            End::Waiting => (Tone::Warning, self.kept_in("waits", now)),
            End::Dead if self.kept.is_empty() => {
                (Tone::Bad, "was given up: a dead letter that no pod has any more".into())
            }
            End::Dead => (Tone::Bad, self.kept_in("is a dead letter", now)),
            End::Refused => (Tone::Bad, "was refused: the application got the reply below".into()),
            End::Dropped => (Tone::Warning, "was dropped by a command".into()),
            End::Open => (
                Tone::Warning,
                "its end is in no log: its pod may be gone, or the fault is one that is not logged each time"
                    .into(),
            ),
            End::Unknown => {
                (Tone::Bad, "no pod that was asked knows it. Logs of pods that are gone are gone, too".into())
            }
        }
    }

    fn kept_in(&self, how: &str, now: Timestamp) -> String {
        let places = self.kept.iter().map(|placed| {
            let next = placed.row.next.filter(|next| *next > now);
            let next = next.map(|next| format!(", next try in {}", span(now, next))).unwrap_or_default();
            let why = placed.row.why();
            let why = if why == "-" { String::new() } else { format!(": {why}") };
            format!("in pod {}{next}{why}", placed.pod)
        });
        format!("{how} {}", places.collect::<Vec<_>>().join("; "))
    }
}

fn by_host(line: &Line) -> String {
    let host = line.field("host");
    if host.is_empty() { String::new() } else { format!(" by {host}") }
}

/// What a line says, for a person.
fn told(line: &Line) -> (Tone, String) {
    let field = |name: &str| line.field(name);
    let named = |name: &str, before: &str| match field(name) {
        "" => String::new(),
        value => format!("{before}{value}"),
    };
    match line.event.as_str() {
        "delivery" if is_delivery(line) => {
            let who = if field("attempt") == "0" {
                "accepted by Microsoft 365 while the application waited"
            } else {
                "accepted by Microsoft 365"
            };
            let refused = match field("refused") {
                "" | "0" => String::new(),
                count => format!(", {count} recipients refused"),
            };
            (
                Tone::Good,
                format!("{who}{}{refused}{}{}", by_host(line), milliseconds(line), named("reply", ": ")),
            )
        }
        "delivery" => {
            let attempt = match field("attempt") {
                "" | "0" => "attempt while the application waited".to_owned(),
                number => format!("attempt {number}"),
            };
            let reason = named("reason", " ");
            let text = format!(
                "{attempt}: {}{reason}{}{}{}",
                field("outcome"),
                by_host(line),
                milliseconds(line),
                named("reply", ": ")
            );
            (if field("outcome").starts_with("reject_") { Tone::Bad } else { Tone::Warning }, text)
        }
        "queued" => {
            let place = if field("place") == "gateway" { "in the gateway" } else { "on the pod's disk" };
            (
                Tone::Plain,
                format!(
                    "250 to the application: stored {place}{}{}",
                    named("recipients", " for recipients: "),
                    named("cause", ", cause: ")
                ),
            )
        }
        "refused" => (Tone::Bad, format!("refused to the application{}", named("reply", ": "))),
        "message from the network" => (
            Tone::Plain,
            format!("received from the network{}{}", named("client", " from "), named("user", " as user ")),
        ),
        "handed over" => (Tone::Plain, format!("handed over to the gateway{}", named("gateway", " "))),
        "taken over" => (Tone::Plain, format!("taken over from a pod{}", named("peer", " "))),
        event => {
            let tone = if event.starts_with("given up") { Tone::Bad } else { Tone::Plain };
            (
                tone,
                format!("{event}{}{}{}", named("reason", ": "), named("reply", ": "), named("error", ": ")),
            )
        }
    }
}

fn milliseconds(line: &Line) -> String {
    match line.field("duration_ms") {
        "" => String::new(),
        took => format!(" in {took} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::LOG;
    use super::*;
    use crate::queue::answer::{Problem, Row};

    fn events(wanted: &mut Wanted, pod: &str, log: &str) -> Vec<Event> {
        wanted.lines(log).into_iter().map(|line| Event { pod: pod.into(), line }).collect()
    }

    const GATEWAY: &str = r#"{"timestamp":"2027-01-15T08:10:00.100000Z","level":"INFO","queue_id":"1k0v20rrs91sz4h0yms","message_id":"<1@contoso.com>","peer":"web-1\u001b[2J","message":"taken over"}
{"timestamp":"2027-01-15T08:20:00Z","level":"INFO","queue_id":"1k0v20rrs91sz4h0yms","message_id":"<1@contoso.com>","sender":"<noreply@contoso.com>","refused":0,"attempt":2,"host":"FR3P","reply":"250 2.0.0 OK <1@contoso.com> [Hostname=FR3P]","outcome":"delivered","duration_ms":640,"message":"delivery"}"#;

    #[test]
    fn a_message_is_followed_over_two_pods_to_microsofts_answer() {
        let mut wanted = Wanted::of("<1@contoso.com>");
        let mut all = events(&mut wanted, "mail-gateway-0", GATEWAY);
        all.extend(events(&mut wanted, "web-1", LOG));
        let story = story(&wanted, all, vec![], vec![]);
        assert_eq!(story.end, End::Delivered);
        let expected = "\
Message-ID   <1@contoso.com>
Queue id     1k0v20rrs91sz4h0yms
State        accepted by Microsoft 365 at 2027-01-15T08:20:00Z by FR3P

TIME                    POD             WHAT HAPPENED
2027-01-15T08:00:04.1Z  web-1           attempt while the application waited: transient by FR3P257CA0055.outlook.office365.com in 812 ms: 452 4.2.2 The recipient's mailbox is full
2027-01-15T08:00:04.2Z  web-1           250 to the application: stored on the pod's disk for recipients: 2, cause: transient
2027-01-15T08:10:00Z    web-1           handed over to the gateway mail-gateway-0
2027-01-15T08:10:00.1Z  mail-gateway-0  taken over from a pod web-1\u{fffd}[2J
2027-01-15T08:20:00Z    mail-gateway-0  accepted by Microsoft 365 by FR3P in 640 ms: 250 2.0.0 OK <1@contoso.com> [Hostname=FR3P]

In Exchange Online PowerShell:
  Get-MessageTraceV2 -MessageId '<1@contoso.com>' -StartDate '2027-01-15T07:00:04Z' -EndDate '2027-01-15T09:20:00Z'
";
        assert_eq!(story.print(Style::default(), Timestamp::UNIX_EPOCH), expected);
    }

    #[test]
    fn what_is_kept_counts_more_than_what_was_logged() {
        let mut wanted = Wanted::of("1k0v20rrs91sz4h0yms");
        let all = events(&mut wanted, "web-1", LOG);
        let row = |state: &str| Row {
            state: state.into(),
            next: Some("2027-01-15T09:00:00Z".parse().unwrap()),
            trouble: Some(Problem { text: "452 4.2.2 full".into(), ..Problem::default() }),
            ..Row::default()
        };
        let placed = |state| vec![Placed { pod: "web-1".into(), row: row(state), ..Placed::default() }];
        let waiting = story(&wanted, all.clone(), placed("waiting"), vec![]);
        let now = "2027-01-15T08:30:00Z".parse().unwrap();
        let shown = waiting.print(Style::default(), now);
        assert!(
            shown.contains("State        waits in pod web-1, next try in 30m: 452 4.2.2 full\n"),
            "{shown}"
        );
        assert_eq!(story(&wanted, all.clone(), placed("dead"), vec![]).end, End::Dead);
        assert_eq!(story(&wanted, all, vec![], vec![]).end, End::Open);
        assert_eq!(story(&wanted, vec![], vec![], vec![]).end, End::Unknown);
    }

    #[test]
    fn a_message_id_cannot_break_out_of_the_command() {
        let wanted = Wanted::of("<x'; Remove-Mailbox 'y@z>");
        let shown = story(&wanted, vec![], vec![], vec![]).exchange.unwrap();
        assert_eq!(shown, "Get-MessageTraceV2 -MessageId '<x''; Remove-Mailbox ''y@z>'");
        assert_eq!(quoted("a\u{2019}b"), "a\u{2019}\u{2019}b");
    }
}

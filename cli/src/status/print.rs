//! Routes as text for people. Pure.

use jiff::Timestamp;

use mailroute_operator_core::crd::status::MailboxStatus;

use super::view::{Budget, ConditionView, RouteView};
use crate::cluster::pods::RoutePod;
use crate::table::{Cell, Table, number, text};
use crate::terminal::{Style, Tone, clean};
use crate::time::{seconds, span};

/// Width of the names in front of the lines about one route.
const NAMES: usize = 11;

/// What a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The namespace of each route.
    pub namespaces: bool,
    /// More columns.
    pub wide: bool,
}

/// A table of routes, and below it what is wrong with each.
pub fn list(routes: &[RouteView], shown: Shown, style: Style, now: Timestamp) -> String {
    let mut text = table(routes, shown, now).render(style);
    for route in routes {
        let problems: Vec<_> = problems(route).collect();
        if problems.is_empty() {
            continue;
        }
        let name =
            if shown.namespaces { format!("{}/{}", route.namespace, route.name) } else { route.name.clone() };
        text.push_str(&format!("\n{}\n", style.paint(Tone::Strong, &clean(&name))));
        for condition in problems {
            text.push_str(&problem(condition, style));
        }
    }
    text
}

/// One route with all that is known of it.
pub fn route(route: &RouteView, style: Style, now: Timestamp) -> String {
    let mut text = String::new();
    let mut say = |name: &str, tone: Tone, value: &str| {
        text.push_str(&format!("{name:NAMES$} {}\n", style.paint(tone, &clean(value))));
    };
    let behind = if route.is_behind() { "; the status is of an older generation" } else { "" };
    let name =
        format!("{} in namespace {}, generation {}{behind}", route.name, route.namespace, route.generation);
    say("Route", Tone::Strong, &name);
    say("Method", Tone::Plain, &method(route));
    let ready = &route.ready;
    let since = ready.since.map(|since| format!(" for {}", span(since, now))).unwrap_or_default();
    say("Ready", tone(ready), &format!("{}{since}{}", ready.status, behind_colon(&ready.reason)));
    say("Pods", Tone::Plain, &pods(route));
    say("Queue", Tone::Plain, &queue(route));
    say("Budget", Tone::Plain, &budget(&route.budget));
    if let Some(gateway) = &route.gateway {
        let oldest = if gateway.queued > 0 {
            format!(", oldest {}", age(gateway.oldest_seconds))
        } else {
            String::new()
        };
        let line =
            format!("{} of {} pods ready; {} messages{oldest}", gateway.ready, gateway.pods, gateway.queued);
        say("Gateway", if gateway.ready == 0 { Tone::Bad } else { Tone::Plain }, &line);
    }
    if let Some(refused) = &route.refused {
        let line = format!("pod {} {} ago: {}", refused.pod, span(refused.at, now), refused.message);
        say("Refused", Tone::Warning, &line);
    }
    let problems: Vec<_> = problems(route).collect();
    if !problems.is_empty() {
        text.push('\n');
    }
    for condition in problems {
        text.push_str(&problem(condition, style));
    }
    if !route.conditions.is_empty() {
        text.push_str(&format!("\n{}", conditions(route, now).render(style)));
    }
    if !route.mailboxes.is_empty() {
        text.push_str(&format!("\n{}", mailboxes(&route.mailboxes).render(style)));
    }
    if let Some(pods) = route.pods.as_deref().filter(|pods| !pods.is_empty()) {
        text.push_str(&format!("\n{}", pod_table(pods, now).render(style)));
    }
    text
}

/// What asks for something; a route without any status asks for a look at the installation.
fn problems(route: &RouteView) -> impl Iterator<Item = &ConditionView> {
    let without = std::iter::once(&route.ready).filter(|_| route.conditions.is_empty());
    without.chain(route.problems())
}

fn problem(condition: &ConditionView, style: Style) -> String {
    let tone = if condition.is_bad() { Tone::Bad } else { Tone::Warning };
    let head = format!("{} {}{}", condition.type_, condition.status, behind_colon(&condition.reason));
    let message = match condition.known_reason() {
        Some(reason) if condition.message.trim().is_empty() => reason.sentence().into(),
        _ => clean(&condition.message),
    };
    format!("  {}\n{}", style.paint(tone, &clean(&head)), style.wrapped(&message, 4))
}

fn behind_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

fn tone(ready: &ConditionView) -> Tone {
    match ready.status.as_str() {
        "True" => Tone::Good,
        "False" => Tone::Bad,
        _ => Tone::Warning,
    }
}

fn table(routes: &[RouteView], shown: Shown, now: Timestamp) -> Table {
    let first = [text("NAMESPACE")].into_iter().filter(|_| shown.namespaces);
    let columns = first.chain([
        text("NAME"),
        text("METHOD").spare(6),
        text("READY"),
        text("REASON"),
        number("PODS"),
        number("QUEUED"),
        number("DEAD").spare(3),
        number("RATE").spare(4),
        number("DAY").spare(2),
        number("GATEWAY").spare(1),
    ]);
    let wide = [
        text("SENDER"),
        text("ENDPOINT"),
        number("OLDEST"),
        number("SILENT"),
        number("OUTDATED"),
        number("LOST"),
    ];
    let last = [text("AGE").spare(5)];
    let columns = columns.chain(wide.into_iter().filter(|_| shown.wide)).chain(last);
    let mut table = Table::new(columns.collect::<Vec<_>>());
    for route in routes {
        table.row(row(route, shown, now));
    }
    table
}

fn row(route: &RouteView, shown: Shown, now: Timestamp) -> Vec<Cell> {
    let (sidecars, queue, budget) = (&route.sidecars, &route.queue, &route.budget);
    let warns = |bad: bool| if bad { Tone::Warning } else { Tone::Plain };
    let gateway = route.gateway.map_or("-".into(), |it| format!("{}/{}", it.ready, it.pods));
    let mut cells: Vec<Cell> = Vec::new();
    if shown.namespaces {
        cells.push((&route.namespace).into());
    }
    cells.extend([
        (&route.name).into(),
        (&route.method).into(),
        Cell::new(&route.ready.status, tone(&route.ready)),
        (&route.ready.reason).into(),
        Cell::new(
            format!("{}/{}", sidecars.ready, sidecars.injected),
            warns(sidecars.ready < sidecars.injected),
        ),
        Cell::new(queue.messages.to_string(), warns(queue.messages > 0)),
        Cell::new(queue.dead_letters.to_string(), warns(queue.dead_letters > 0)),
        of(budget.messages_last_minute, budget.messages_per_minute).into(),
        of(budget.recipients_last_24h, budget.recipients_per_day).into(),
        gateway.into(),
    ]);
    if shown.wide {
        let text = |text: &Option<String>| text.as_deref().unwrap_or("-").into();
        let oldest = if queue.messages > 0 { age(queue.oldest_seconds) } else { "-".into() };
        cells.extend([
            text(&route.sender),
            text(&route.endpoint),
            oldest.into(),
            sidecars.silent.to_string().into(),
            sidecars.outdated.to_string().into(),
            queue.lost.to_string().into(),
        ]);
    }
    cells.push(route.created.map_or("-".into(), |created| span(created, now)).into());
    cells
}

fn of(used: u64, limit: Option<u32>) -> String {
    limit.map_or_else(|| used.to_string(), |limit| format!("{used}/{limit}"))
}

fn age(length: u64) -> String {
    seconds(i64::try_from(length).unwrap_or(i64::MAX))
}

fn method(route: &RouteView) -> String {
    let sender = route.sender.as_ref().map(|sender| format!(" as {sender}")).unwrap_or_default();
    let endpoint = route.endpoint.as_ref().map(|endpoint| format!(" to {endpoint}")).unwrap_or_default();
    format!("{}{sender}{endpoint}", route.method)
}

fn pods(route: &RouteView) -> String {
    let it = &route.sidecars;
    let mut line = format!("{} of {} take mail", it.ready, it.injected);
    for (count, what) in [
        (it.outdated, "outdated"),
        (it.silent, "not reporting"),
        (it.missing, "without the sidecar in spite of the label"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {what}"));
        }
    }
    line
}

fn queue(route: &RouteView) -> String {
    let it = &route.queue;
    let oldest = if it.messages > 0 { format!(", oldest {}", age(it.oldest_seconds)) } else { String::new() };
    let lost = if it.lost > 0 { format!(", {} lost with their pods", it.lost) } else { String::new() };
    format!("{} messages{oldest}, {} dead letters{lost}", it.messages, it.dead_letters)
}

fn budget(it: &Budget) -> String {
    let of = |limit: Option<u32>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    format!(
        "{}{} messages in the last minute, {}{} recipients in 24 hours",
        it.messages_last_minute,
        of(it.messages_per_minute),
        it.recipients_last_24h,
        of(it.recipients_per_day)
    )
}

fn conditions(route: &RouteView, now: Timestamp) -> Table {
    let mut table = Table::new([text("CONDITION"), text("STATUS"), text("FOR").spare(1), text("REASON")]);
    for condition in &route.conditions {
        let tone = match (condition.is_bad(), condition.warns()) {
            (true, _) => Tone::Bad,
            (_, true) => Tone::Warning,
            _ if condition.status == "True" => Tone::Good,
            _ => Tone::Plain,
        };
        let since = condition.since.map(|since| span(since, now)).unwrap_or_default();
        let status = Cell::new(&condition.status, tone);
        table.row([(&condition.type_).into(), status, since.into(), (&condition.reason).into()]);
    }
    table
}

fn mailboxes(mailboxes: &[MailboxStatus]) -> Table {
    let columns =
        [text("MAILBOX"), text("READY"), number("RATE"), number("DAY").spare(2), text("REASON").spare(1)];
    let mut table = Table::new(columns);
    for it in mailboxes {
        let ready = match (it.ready, &it.reason) {
            (true, _) => Cell::new("True", Tone::Good),
            (false, Some(_)) => Cell::new("False", Tone::Bad),
            // No pod has reported about it.
            (false, None) => Cell::new("Unknown", Tone::Warning),
        };
        table.row([
            (&it.address).into(),
            ready,
            it.messages_last_minute.to_string().into(),
            it.recipients_last_24h.to_string().into(),
            it.reason.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}

fn pod_table(pods: &[RoutePod], now: Timestamp) -> Table {
    let mut table = Table::new([
        text("POD"),
        text("ROLE"),
        text("TAKES MAIL"),
        number("RESTARTS").spare(2),
        text("AGE").spare(1),
        text("IMAGE"),
    ]);
    for pod in pods {
        let (says, tone) = match (pod.ending, pod.ready) {
            (true, _) => ("ending", Tone::Warning),
            (false, true) => ("yes", Tone::Good),
            (false, false) => ("no", Tone::Bad),
        };
        table.row([
            (&pod.name).into(),
            pod.role().into(),
            Cell::new(says, tone),
            pod.restarts.to_string().into(),
            pod.created.map_or("-".into(), |created| span(created, now)).into(),
            pod.image.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::super::view::tests::route as sample;
    use super::*;

    fn now() -> Timestamp {
        "2027-01-15T08:05:00Z".parse().unwrap()
    }

    #[test]
    fn a_list_shows_numbers_and_below_them_what_to_do() {
        let routes = [RouteView::of(&sample())];
        let expected = "\
NAME           METHOD            READY  REASON                   PODS  QUEUED  DEAD   RATE         DAY  GATEWAY  AGE
notifications  ClientSubmission  False  SmtpAuthDisabledMailbox   3/4      12     2  14/20  2210/10000      2/2  3d

notifications
  Authenticated False: SmtpAuthDisabledMailbox
    535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox\u{fffd}[2J. Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false
";
        assert_eq!(list(&routes, Shown::default(), Style::default(), now()), expected);
        let narrow = list(&routes, Shown::default(), Style { colour: false, width: Some(80) }, now());
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        let wide = list(&routes, Shown { namespaces: true, wide: true }, Style::default(), now());
        assert!(wide.starts_with("NAMESPACE  NAME ") && wide.contains("smtp.office365.com:587"), "{wide}");
    }

    #[test]
    fn a_route_shows_all_that_is_known() {
        let pod = RoutePod::of(&samples::pod("web-1", "mailroute.dev/sidecar:0.1.0")).unwrap();
        let view =
            RouteView { pods: Some(vec![RoutePod { created: None, ..pod }]), ..RouteView::of(&sample()) };
        let shown = route(&view, Style::default(), now());
        let expected = "\
Route       notifications in namespace shop, generation 3
Method      ClientSubmission as noreply@contoso.com to smtp.office365.com:587
Ready       False for 5m: SmtpAuthDisabledMailbox
Pods        3 of 4 take mail, 1 outdated
Queue       12 messages, oldest 5m, 2 dead letters
Budget      14 of 20 messages in the last minute, 2210 of 10000 recipients in 24 hours
Gateway     2 of 2 pods ready; 5 messages, oldest 10s

  Authenticated False: SmtpAuthDisabledMailbox
";
        assert!(shown.starts_with(expected), "{shown}");
        assert!(
            shown
                .contains("\nCONDITION        STATUS  FOR  REASON\nAccepted         True    5m   Accepted\n"),
            "{shown}"
        );
        assert!(
            shown.contains("\nPOD    ROLE     TAKES MAIL  RESTARTS  AGE  IMAGE\nweb-1  sidecar  yes "),
            "{shown}"
        );
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }

    #[test]
    fn a_route_with_several_mailboxes_shows_each_and_the_limits_of_all() {
        let mut several = sample();
        several.data["status"]["mailboxes"] = serde_json::json!([
            {"address": "noreply@contoso.com", "ready": true, "messagesLastMinute": 14, "recipientsLast24h": 2000},
            {"address": "orders@contoso.com", "ready": false, "reason": "SmtpAuthDisabledMailbox", "message": "x"},
            {"address": "new@contoso.com", "ready": false},
        ]);
        let shown = route(&RouteView::of(&several), Style::default(), now());
        let expected = "\
MAILBOX              READY    RATE   DAY  REASON
noreply@contoso.com  True       14  2000  -
orders@contoso.com   False       0     0  SmtpAuthDisabledMailbox
new@contoso.com      Unknown     0     0  -
";
        assert!(shown.ends_with(expected), "{shown}");
        assert!(shown.contains("14 of 60 messages in the last minute, 2210 of 30000 recipients"), "{shown}");
    }

    #[test]
    fn a_route_that_the_operator_has_not_seen_says_so() {
        let mut bare = sample();
        for status in [serde_json::Value::Null, serde_json::json!({"observedGeneration": -1})] {
            bare.data["status"] = status;
            let view = RouteView::of(&bare);
            assert!(!view.is_behind());
            let shown = list(&[view], Shown::default(), Style::default(), now());
            assert!(shown.contains("Unknown") && shown.contains("kubectl mailroute doctor"), "{shown}");
        }
    }
}

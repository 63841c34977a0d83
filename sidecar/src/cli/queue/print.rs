//! Answers as text for people and as JSON for programs. Pure.
//!
//! Invariant: what came from outside (addresses, names, replies, headers, content) reaches a terminal without control
//! characters, so that no message can move the cursor or change a colour.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use super::listing::{About, Message, Recipient, Row, State};
use super::protocol::Changed;
use crate::queue::Obstacle;
use crate::queue::schedule::until;
use crate::route_deleted;
use crate::spool::{DeliveryProblem, RecipientStatus};

/// Longest reason in a list, characters. All of it is in `show`.
const REASON_WIDTH: usize = 80;

/// Names of the columns, and whether they stand to the right.
const COLUMNS: [(&str, bool); 9] = [
    ("ID", false),
    ("STATE", false),
    ("AGE", true),
    ("NEXT", true),
    ("TRIES", true),
    ("SIZE", true),
    ("FROM", false),
    ("TO", true),
    ("REASON", false),
];

/// A whole list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Whether a program runs and told this; else it is what lies on disk.
    pub running: bool,
    /// The messages: what waits, then what was given up, each in the order in which it came.
    pub messages: Vec<Row>,
    /// Files that could not be read again.
    pub corrupt: Vec<String>,
    /// Whether the MailRoute of the pod was deleted.
    pub route_deleted: bool,
}

/// Any value as JSON, ending in a newline.
pub fn json(value: &impl Serialize) -> String {
    // Only maps with odd keys and failing `Serialize` impls can fail, and there are none here.
    let mut json = serde_json::to_string_pretty(value).expect("plain data serialises");
    json.push('\n');
    json
}

/// A list as a table, with ages as of `now`.
pub fn list(list: &List, now: Timestamp) -> String {
    let mut cells: Vec<[String; 9]> = list.messages.iter().map(|row| line(row, now)).collect();
    cells.extend(list.corrupt.iter().map(|name| corrupt(name)));
    let mut text = if cells.is_empty() { "The queue is empty.\n".to_owned() } else { table(&cells) };
    if !list.running {
        text.push_str("\nNo sidecar uses this spool: this is what is on disk.\n");
    }
    if list.route_deleted {
        text.push_str(&format!("\n{}\n", route_deleted::NOTE));
    }
    text
}

/// What was changed, `done` saying how, as of `now`.
pub fn changed(changed: &Changed, done: &str, now: Timestamp) -> String {
    let messages = if changed.done == 1 { "message" } else { "messages" };
    let mut text = format!("{} {messages} {done}\n", changed.done);
    if let Some(obstacle) = &changed.waits_for {
        let until =
            obstacle.until.map_or_else(String::new, |until| format!(", next try in {}", when(until, now)));
        text.push_str(&format!("Held{until}: {}\n", tame(&words(obstacle))));
    }
    for why in &changed.failed {
        text.push_str(&tame(why));
        text.push('\n');
    }
    text
}

/// A message in full.
pub fn message(message: &Message, now: Timestamp) -> String {
    let (row, mut text) = (&message.row, String::new());
    let mut say = |name: &str, value: String| text.push_str(&format!("{name:13} {}\n", tame(&value)));
    say("Message", row.id.clone());
    say("State", state(row, now));
    if let Some(obstacle) = &row.waits_for {
        say("Waits for", words(obstacle));
    }
    if let Some(about) = &row.about {
        let age = ago(about.accepted, now);
        say("Accepted", format!("{} ({age} ago) from {}", second(about.accepted), message.client));
        say("Tries", about.attempts.to_string());
        say("Size", size(about.bytes));
        say("From", format!("<{}>", about.from));
        say("Message-ID", about.message_id.clone());
        if let Some(trouble) = &about.trouble {
            say("Last error", told(trouble));
        }
    }
    text.push_str("Recipients\n");
    for Recipient { address, fate } in &message.recipients {
        let fate = match fate {
            RecipientStatus::Waiting => "waiting".to_owned(),
            RecipientStatus::Delivered => "delivered".to_owned(),
            RecipientStatus::Failed(trouble) => format!("failed: {}", told(trouble)),
        };
        // Formatting into a text cannot fail.
        let _ = writeln!(text, "  <{}> {}", tame(address), tame(&fate));
    }
    text.push('\n');
    text.push_str(&Terminal::default().show(message.header.as_bytes()));
    text
}

/// Makes a message fit for a terminal, piece by piece: line ends and tabs stay, other control characters do not, and
/// what is not UTF-8 is replaced.
#[derive(Debug, Default)]
pub struct Terminal {
    /// The beginning of a character whose end has not come yet; at most three octets.
    begun: Vec<u8>,
}

impl Terminal {
    /// The next piece as text.
    pub fn show(&mut self, piece: &[u8]) -> String {
        let mut octets = std::mem::take(&mut self.begun);
        octets.extend_from_slice(piece);
        let mut text = String::with_capacity(octets.len());
        for (at, chunk) in octets.utf8_chunks().map(|chunk| (chunk.invalid(), chunk.valid())) {
            text.extend(chunk.chars().filter(|&c| c != '\r').map(visible));
            let is_last = at.as_ptr_range().end == octets.as_ptr_range().end;
            if is_last && std::str::from_utf8(at).is_err_and(|error| error.error_len().is_none()) {
                self.begun = at.to_vec();
            } else if !at.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

fn visible(c: char) -> char {
    if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c }
}

fn line(row: &Row, now: Timestamp) -> [String; 9] {
    let next = match (row.state, row.next) {
        (State::Trying, _) => "now".into(),
        (_, Some(next)) if next <= now => "now".into(),
        (_, Some(next)) => ago(now, next),
        (_, None) => "-".into(),
    };
    let first = [row.id.clone(), row.state.as_str().into()];
    let rest = match &row.about {
        Some(about) => {
            let from = if about.from.is_empty() { "<>".into() } else { about.from.clone() };
            let tries = about.attempts.to_string();
            let reason = reason(row.waits_for.as_ref(), about);
            [ago(about.accepted, now), next, tries, size(about.bytes), from, to(about), reason]
        }
        None => {
            let why = row.unreadable.clone().unwrap_or_default();
            ["-".into(), next, "-".into(), "-".into(), "-".into(), "-".into(), why]
        }
    };
    joined(first, rest)
}

fn corrupt(name: &str) -> [String; 9] {
    let rest = std::array::from_fn(|_| "-".to_owned());
    joined([name.into(), "corrupt".into()], rest)
}

fn joined([id, state]: [String; 2], rest: [String; 7]) -> [String; 9] {
    let [age, next, tries, size, from, to, reason] = rest;
    [id, state, age, next, tries, size, from, to, reason]
}

fn table(lines: &[[String; 9]]) -> String {
    let header = COLUMNS.map(|(name, _)| name.to_owned());
    let lines: Vec<[String; 9]> = [&header]
        .into_iter()
        .chain(lines)
        .map(|cells| cells.clone().map(|cell| tame(&cell).into()))
        .collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    for cells in &lines {
        let mut line = String::new();
        for ((cell, width), (_, right)) in cells.iter().zip(widths).zip(COLUMNS) {
            let padding = " ".repeat(width - cell.chars().count());
            let (before, behind) = if right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(&format!("{before}{cell}{behind}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Recipients that wait, of how many when the others are settled.
fn to(about: &About) -> String {
    let all = about.to.waiting + about.to.delivered + about.to.failed;
    if about.to.waiting == all { all.to_string() } else { format!("{}/{all}", about.to.waiting) }
}

/// What it waits for; else what was met last.
fn reason(waits_for: Option<&Obstacle>, about: &About) -> String {
    let trouble = about.trouble.as_ref().map(|trouble| (trouble.reason, &trouble.text));
    let obstacle = waits_for.map(|obstacle| (obstacle.reason, &obstacle.text));
    let Some((reason, text)) = obstacle.or(trouble) else { return "-".into() };
    let text = reason.map_or_else(|| text.clone(), |reason| reason.to_string());
    match text.char_indices().nth(REASON_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn state(row: &Row, now: Timestamp) -> String {
    let state = row.state.as_str();
    match row.next {
        Some(next) if row.state != State::Trying && next > now => {
            format!("{state}, next try in {}", when(next, now))
        }
        Some(_) if row.state != State::Trying => format!("{state}, due now"),
        _ => state.into(),
    }
}

/// How long from `now`, and when that is.
fn when(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", ago(now, at), second(at))
}

fn words(obstacle: &Obstacle) -> String {
    match obstacle.reason {
        Some(reason) => format!("{reason}: {}", obstacle.text),
        None => obstacle.text.clone(),
    }
}

fn told(trouble: &DeliveryProblem) -> String {
    let mut text = second(trouble.at).to_string();
    match trouble.reason {
        Some(reason) => text.push_str(&format!(" {reason}")),
        None => text.push_str(&format!(" {}", trouble.outcome)),
    }
    text.push_str(&format!(": {}", trouble.text));
    if let Some(host) = &trouble.host {
        text.push_str(&format!(" (from {host})"));
    }
    text
}

/// From one time to another, in the largest unit that still says something.
fn ago(from: Timestamp, to: Timestamp) -> String {
    match until(to, from).as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Without the fraction.
fn second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let tenths = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
    let ((whole, tenth), unit) = match bytes {
        0..KIB => return format!("{bytes} B"),
        KIB..0x10_0000 => (tenths(KIB), "KiB"),
        _ => (tenths(KIB * KIB), "MiB"),
    };
    format!("{whole}.{tenth} {unit}")
}

/// One line without control characters.
fn tame(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
#[path = "print_tests.rs"]
mod tests;

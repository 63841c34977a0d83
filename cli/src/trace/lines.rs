//! Lines of a sidecar's log, as JSON and as text, and which of them are about one message. Pure.
//!
//! A line is whatever a container printed. What cannot be read is no line about a message; a field that is not there is empty.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::args::is_queue_id;

/// Most lines that are kept of one log: a message that is tried every minute for two weeks has fewer.
const MAX_LINES: usize = 20_000;

/// Fields that may stand in a line, for the text format.
const FIELDS: [&str; 22] = [
    "queue_id",
    "message_id",
    "route",
    "mailbox",
    "sender",
    "recipients",
    "refused",
    "bytes",
    "attempt",
    "host",
    "reply",
    "outcome",
    "reason",
    "duration_ms",
    "repeated",
    "cause",
    "place",
    "client",
    "user",
    "gateway",
    "error",
    "failed",
];

/// A line that is about some message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// What happened, in the words of the log.
    pub event: String,
    /// Its fields.
    pub fields: BTreeMap<String, String>,
}

impl Line {
    /// A field; empty where there is none.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Reads a line. None where it is about no message.
    pub fn parse(text: &str) -> Option<Self> {
        let line = if text.trim_start().starts_with('{') { json(text) } else { plain(text) }?;
        (!line.field("queue_id").is_empty() || !line.field("message_id").is_empty()).then_some(line)
    }
}

fn json(text: &str) -> Option<Line> {
    let Value::Object(mut object) = serde_json::from_str(text).ok()? else { return None };
    let mut taken = |name: &str| object.remove(name).and_then(|value| value.as_str().map(str::to_owned));
    let (at, event) = (taken("timestamp")?.parse().ok()?, taken("message").unwrap_or_default());
    let word = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        _ => None,
    };
    let fields = object.into_iter().filter_map(|(name, value)| Some((name, word(value)?))).collect();
    Some(Line { at, event, fields })
}

/// `2027-01-15T08:00:00.000000Z  INFO delivery queue_id=… message_id="<1@app>" …`: the words before the first field are the event.
fn plain(text: &str) -> Option<Line> {
    let (at, rest) = text.trim_start().split_once(' ')?;
    let (level, rest) = rest.trim_start().split_once(' ')?;
    let at = at.parse().ok()?;
    let mut starts: Vec<(usize, usize, &str)> = Vec::new();
    for name in FIELDS {
        let found = rest.match_indices(name).find(|(at, _)| {
            (*at == 0 || rest[..*at].ends_with(' ')) && rest[at + name.len()..].starts_with('=')
        });
        starts.extend(found.map(|(at, _)| (at, at + name.len() + 1, name)));
    }
    starts.sort_unstable();
    let first = starts.first().map_or(rest.len(), |(at, _, _)| *at);
    let event = rest[..first].trim().to_owned();
    let mut fields = BTreeMap::from([("level".to_owned(), level.to_owned())]);
    let mut end_of_last = 0;
    for (at, value, name) in starts {
        // A name inside of a quoted value is no field.
        if at < end_of_last {
            continue;
        }
        let (text, length) = unquoted(&rest[value..]);
        end_of_last = value + length;
        fields.insert(name.to_owned(), text);
    }
    Some(Line { at, event, fields })
}

/// A value as `tracing` writes it: a quoted string with Rust's escapes, or a word. And how many octets of the text it takes.
fn unquoted(text: &str) -> (String, usize) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return (text[..end].to_owned(), end);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, at + 2),
            c => value.push(c),
        }
    }
    (value, text.len())
}

/// What is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Message-ID, without angle brackets; empty while it is not known.
    pub message_id: String,
    /// Ids in the queue.
    pub queue_ids: BTreeSet<String>,
}

impl Wanted {
    /// What a person gave: a queue id, or a Message-ID with or without its angle brackets.
    pub fn of(given: &str) -> Self {
        let given = given.trim();
        if is_queue_id(given) {
            return Self { queue_ids: [given.to_owned()].into(), ..Self::default() };
        }
        Self { message_id: bare(given).to_owned(), ..Self::default() }
    }

    /// Whether this message is meant.
    pub fn is(&self, queue_id: &str, message_id: &str) -> bool {
        self.queue_ids.contains(queue_id)
            || (!self.message_id.is_empty() && bare(message_id) == self.message_id)
    }

    /// Learns the other name of a message that is meant.
    pub fn learn(&mut self, queue_id: &str, message_id: &str) {
        if !self.is(queue_id, message_id) {
            return;
        }
        if is_queue_id(queue_id) {
            self.queue_ids.insert(queue_id.to_owned());
        }
        if self.message_id.is_empty() {
            self.message_id = bare(message_id).to_owned();
        }
    }

    /// The lines of a log that are about the message, in their order; learns its names from them.
    pub fn lines(&mut self, log: &str) -> Vec<Line> {
        // A line with one name alone may stand before the line with both.
        let parsed = || {
            log.lines()
                .filter(|line| line.contains("queue_id") || line.contains("message_id"))
                .filter_map(Line::parse)
        };
        for line in parsed() {
            self.learn(line.field("queue_id"), line.field("message_id"));
        }
        let is_it = |line: &Line| self.is(line.field("queue_id"), line.field("message_id"));
        parsed().filter(is_it).take(MAX_LINES).collect()
    }
}

/// A Message-ID without its angle brackets.
fn bare(message_id: &str) -> &str {
    message_id.trim().trim_start_matches('<').trim_end_matches('>')
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The log of a sidecar whose message waited, and was handed over.
    pub const LOG: &str = concat!(
        r#"{"timestamp":"2027-01-15T08:00:00.000001Z","level":"INFO","addresses":"[127.0.0.1:25]","message":"listening"}"#,
        "\n",
        r#"{"timestamp":"2027-01-15T08:00:04.100000Z","level":"WARN","queue_id":"1k0v20rrs91sz4h0yms","message_id":"<1@contoso.com>","route":"notifications","mailbox":"noreply@contoso.com","sender":"<noreply@contoso.com>","recipients":2,"refused":0,"bytes":339,"attempt":0,"host":"FR3P257CA0055.outlook.office365.com","reply":"452 4.2.2 The recipient's mailbox is full","outcome":"transient","duration_ms":812,"message":"delivery"}"#,
        "\n",
        r#"{"timestamp":"2027-01-15T08:00:04.200000Z","level":"INFO","queue_id":"1k0v20rrs91sz4h0yms","recipients":2,"cause":"transient","place":"pod","message":"queued"}"#,
        "\n",
        r#"{"timestamp":"2027-01-15T08:00:05.000000Z","level":"INFO","queue_id":"1k0v20qfd35b4ye2de0","message_id":"<2@contoso.com>","outcome":"delivered","message":"delivery"}"#,
        "\nnot a line\n{\"timestamp\":7}\n",
        r#"{"timestamp":"2027-01-15T08:10:00.000000Z","level":"INFO","queue_id":"1k0v20rrs91sz4h0yms","message_id":"<1@contoso.com>","gateway":"mail-gateway-0","message":"handed over"}"#,
        "\n",
    );

    #[test]
    fn a_message_id_finds_the_lines_that_have_the_queue_id_alone() {
        for given in ["<1@contoso.com>", "1@contoso.com", "1k0v20rrs91sz4h0yms"] {
            let mut wanted = Wanted::of(given);
            let lines = wanted.lines(LOG);
            assert_eq!(
                lines.iter().map(|it| it.event.as_str()).collect::<Vec<_>>(),
                ["delivery", "queued", "handed over"],
                "{given}"
            );
            assert_eq!(wanted.message_id, "1@contoso.com");
            assert!(wanted.queue_ids.contains("1k0v20rrs91sz4h0yms"));
        }
        assert!(Wanted::of("<3@contoso.com>").lines(LOG).is_empty());
        assert!(Wanted::of("").lines(LOG).is_empty());
    }

    #[test]
    fn a_log_as_text_is_read_too() {
        let line = r#"2027-01-15T08:00:04.100000Z  WARN delivery queue_id=1k0v20rrs91sz4h0yms message_id="<1@contoso.com>" sender=<noreply@contoso.com> recipients=2 reply="452 4.2.2 \"full\" host=evil" outcome="transient""#;
        let line = Line::parse(line).unwrap();
        assert_eq!((line.event.as_str(), line.field("queue_id")), ("delivery", "1k0v20rrs91sz4h0yms"));
        assert_eq!(line.field("reply"), "452 4.2.2 \"full\" host=evil");
        assert_eq!(
            (line.field("host"), line.field("outcome"), line.field("level")),
            ("", "transient", "WARN")
        );
        assert_eq!(line.at, "2027-01-15T08:00:04.1Z".parse().unwrap());
    }

    proptest! {
        #[test]
        fn whatever_a_container_prints_is_read_to_its_end(log in any::<String>(), value in any::<String>()) {
            Wanted::of("1k0v20rrs91sz4h0yms").lines(&log);
            Line::parse(&format!("2027-01-15T08:00:04Z  INFO x queue_id={value} reply=\"{log}"));
        }

        #[test]
        fn a_value_that_was_quoted_is_read_back(value in any::<String>(), more in "[a-z =\"]*") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("\"{quoted}\"{more}");
            prop_assert_eq!(unquoted(&text), (value, quoted.len() + 2));
        }
    }
}

//! What was said on connections, for a person to read: commands, replies, and what happened between them.
//!
//! Plain data with bounds. Whoever adds a line removes credentials and message content first.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

/// Connections whose dialogue is stored, the newest.
const MAX_CONNECTIONS: usize = 500;

/// Lines of one connection that are stored, the newest.
const MAX_LINES: usize = 200;

/// Characters of one line that are stored.
const MAX_TEXT: usize = 300;

/// The dialogues of the newest connections.
#[derive(Clone, Debug, Default)]
pub struct Dialogues(BTreeMap<u64, Dialogue>);

/// What was said on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dialogue {
    /// Earlier lines that are no longer stored.
    pub omitted: u64,
    /// The lines, oldest first.
    pub lines: VecDeque<Utterance>,
}

/// One line of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Utterance {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Speaker,
    /// The line, shortened when it is long.
    pub text: String,
}

/// Who said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Speaker {
    /// The client.
    Client,
    /// The simulator.
    Server,
    /// Nobody: something happened to the connection.
    Event,
}

impl Dialogues {
    /// Adds a line to the dialogue of a connection.
    pub fn add(&mut self, connection: u64, at: Timestamp, by: Speaker, text: &str) {
        let mut kept: String = text.chars().take(MAX_TEXT).collect();
        if kept.len() < text.len() {
            kept.push('…');
        }
        let dialogue = self.0.entry(connection).or_default();
        dialogue.lines.push_back(Utterance { at, by, text: kept });
        if dialogue.lines.len() > MAX_LINES {
            dialogue.lines.pop_front();
            dialogue.omitted += 1;
        }
        if self.0.len() > MAX_CONNECTIONS {
            self.0.pop_first();
        }
    }

    /// The dialogue of a connection, while it is stored.
    #[must_use]
    pub fn of(&self, connection: u64) -> Option<&Dialogue> {
        self.0.get(&connection)
    }

    /// Every stored dialogue with the number of its connection.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Dialogue)> {
        self.0.iter().map(|(connection, dialogue)| (*connection, dialogue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(dialogues: &mut Dialogues, connection: u64, text: &str) {
        dialogues.add(connection, Timestamp::UNIX_EPOCH, Speaker::Client, text);
    }

    #[test]
    fn the_newest_lines_of_a_connection_are_stored_and_the_others_counted() {
        let mut dialogues = Dialogues::default();
        for number in 0..MAX_LINES + 3 {
            say(&mut dialogues, 1, &number.to_string());
        }
        let dialogue = dialogues.of(1).unwrap();
        assert_eq!((dialogue.omitted, dialogue.lines.len()), (3, MAX_LINES));
        assert_eq!(dialogue.lines[0].text, "3");
    }

    #[test]
    fn the_newest_connections_are_stored() {
        let mut dialogues = Dialogues::default();
        for connection in 1..=MAX_CONNECTIONS as u64 + 1 {
            say(&mut dialogues, connection, "NOOP");
        }
        assert!(dialogues.of(1).is_none() && dialogues.of(2).is_some());
    }

    #[test]
    fn a_long_line_is_shortened() {
        let mut dialogues = Dialogues::default();
        say(&mut dialogues, 1, &"é".repeat(MAX_TEXT + 1));
        assert_eq!(dialogues.of(1).unwrap().lines[0].text, format!("{}…", "é".repeat(MAX_TEXT)));
    }
}

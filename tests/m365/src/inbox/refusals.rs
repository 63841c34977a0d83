//! What the simulator refused, and why: violations, replies to commands, and answers to token requests.

use std::cmp::Reverse;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;

use super::Inbox;
use crate::{
    dialogue::{Dialogue, Speaker},
    entra::TokenExchange,
    office::Office,
    violations::Violation,
};

/// Entries of each list, the newest.
const MAX_ENTRIES: usize = 200;

/// Both lists, newest first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusals {
    /// Violations that are recorded, shown or not.
    total: usize,
    /// What a careful client does not do.
    violations: Vec<Violation>,
    /// What was not done as asked; many a set-up or a fault is the reason of one.
    refused: Vec<Refused>,
}

/// Something that was asked and refused.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refused {
    at: Timestamp,
    /// The connection; 0 at the token endpoint.
    connection: u64,
    /// The command or request.
    asked: String,
    /// The reply.
    reply: String,
}

/// The newest of everything.
pub(super) async fn refusals(State(inbox): State<Inbox>) -> Json<Refusals> {
    Json(inbox.shared.read(all))
}

fn all(office: &Office) -> Refusals {
    let replies =
        office.dialogues.iter().flat_map(|(connection, dialogue)| of_dialogue(connection, dialogue));
    let answers = office.exchanges.iter().rev().filter(|exchange| exchange.status != 200).take(MAX_ENTRIES);
    let mut refused: Vec<Refused> = replies.chain(answers.map(of_exchange)).collect();
    refused.sort_by_key(|one| Reverse(one.at));
    refused.truncate(MAX_ENTRIES);
    Refusals {
        total: office.violations.len(),
        violations: office.violations.iter().rev().take(MAX_ENTRIES).cloned().collect(),
        refused,
    }
}

/// The lines of the server that refuse, each with the line of the client before it.
fn of_dialogue(connection: u64, dialogue: &Dialogue) -> Vec<Refused> {
    let mut asked = String::new();
    let mut found = Vec::new();
    for line in &dialogue.lines {
        match line.by {
            Speaker::Client => asked.clone_from(&line.text),
            Speaker::Server if line.text.starts_with(['4', '5']) => {
                let (at, reply) = (line.at, line.text.clone());
                found.push(Refused { at, connection, asked: asked.clone(), reply });
            }
            Speaker::Server | Speaker::Event => {}
        }
    }
    found
}

fn of_exchange(exchange: &TokenExchange) -> Refused {
    let subject = exchange.assertion_subject.as_deref();
    let who = subject.map_or_else(String::new, |subject| format!(" by {subject}"));
    Refused {
        at: exchange.at,
        connection: 0,
        asked: format!("token for {}{who}", exchange.client_id),
        reply: format!("{} {}", exchange.status, exchange.outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::Dialogues;

    #[test]
    fn a_reply_is_listed_with_the_command_before_it() {
        let mut dialogues = Dialogues::default();
        for (by, text) in [
            (Speaker::Server, "220 ready"),
            (Speaker::Client, "MAIL FROM:<a@b.example>"),
            (Speaker::Event, "(pause of 5000 ms)"),
            (Speaker::Server, "530 5.7.57 Client not authenticated"),
        ] {
            dialogues.add(7, Timestamp::UNIX_EPOCH, by, text);
        }
        let found = of_dialogue(7, dialogues.of(7).unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].asked.as_str(), &found[0].reply[..3]), ("MAIL FROM:<a@b.example>", "530"));
    }
}

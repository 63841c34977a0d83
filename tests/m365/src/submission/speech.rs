//! What the session says: a line of the catalogue with its blanks filled, behind the tarpit when it is a refusal.
//!
//! It refuses to know when a line is due.

use super::session::{Phase, Session, Step, Turn};
use crate::{
    mailbox::Face,
    replies::{DIAGNOSTICS, Line, fill},
};

/// Refused commands after which Exchange hangs up (`MaxProtocolErrors`).
const MAX_ERRORS: u32 = 5;

impl Session {
    /// Says a line of the catalogue that needs no further blanks.
    pub(crate) fn say(&mut self, turn: &mut Turn<'_>, line: Line) {
        self.say_with(turn, line.text(), &[]);
    }

    /// Says a reply with its blanks filled, a permanent refusal after the tarpit. Gives the text.
    pub(crate) fn say_with(
        &mut self,
        turn: &mut Turn<'_>,
        template: &str,
        blanks: &[(&str, &str)],
    ) -> String {
        let text = self.filled(turn, template, blanks);
        let tarpit = turn.office.config.pace.tarpit_milliseconds;
        if text.starts_with('5') && tarpit > 0 {
            turn.steps.push(Step::Wait(tarpit));
        }
        if text.starts_with(['4', '5']) {
            tracing::info!(connection = self.id(), "refused: {text}");
            turn.office.tally.refused(&text);
        }
        turn.steps.push(Step::Send(format!("{text}\r\n").into_bytes()));
        text
    }

    /// Refuses a command; after too many of them the connection is closed.
    pub(super) fn refuse(&mut self, turn: &mut Turn<'_>, line: Line) {
        self.say(turn, line);
        self.errors += 1;
        if self.errors >= MAX_ERRORS {
            self.say(turn, Line::TooManyErrors);
            self.close(turn, Step::Close);
        }
    }

    /// Ends the conversation.
    pub(super) fn close(&mut self, turn: &mut Turn<'_>, step: Step) {
        self.phase = Phase::Closed;
        turn.steps.push(step);
    }

    /// The text of a reply; refusals end with host, time and session, unless they name the host themselves.
    pub(super) fn filled(&self, turn: &Turn<'_>, template: &str, blanks: &[(&str, &str)]) -> String {
        if !template.contains('{') && !template.starts_with(['4', '5']) {
            return template.to_owned();
        }
        let (host, internal) = match self.peer.facts.face {
            Face::Relay => (".mail.protection.outlook.com", ".prod.protection.outlook.com"),
            // What the other services call their hosts is not published.
            _ => (".outlook.office365.com", ".PROD.OUTLOOK.COM"),
        };
        let (host, internal) = (format!("{}{host}", self.peer.host), format!("{}{internal}", self.peer.host));
        let date = if template.contains("{date}") {
            turn.now.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
        } else {
            String::new()
        };
        let mut all = vec![
            ("host", host.as_str()),
            ("internal", &internal),
            ("date", &date),
            ("session", &self.peer.session),
            ("client", &self.peer.facts.client),
            ("diagnostics", DIAGNOSTICS),
        ];
        all.extend_from_slice(blanks);
        let text = fill(template, &all);
        if !text.starts_with(['4', '5']) || text.ends_with(']') {
            return text;
        }
        format!("{text} [{internal} {} {}]", turn.now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"), self.peer.session)
    }
}

/// Microsoft's list, in its order; `extension` stands where STARTTLS or AUTH does.
pub(super) fn ehlo_lines(first: &str, extension: Option<&str>, size: usize) -> String {
    let hello = first.split_once(' ').map_or(first, |(_, rest)| rest);
    let size = format!("SIZE {size}");
    let mut lines = vec![hello, &size, "PIPELINING", "DSN", "ENHANCEDSTATUSCODES"];
    lines.extend(extension);
    lines.extend(["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]);
    let last = lines.len() - 1;
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' }))
        .collect()
}

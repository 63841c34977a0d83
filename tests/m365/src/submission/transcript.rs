//! The session's own record of what is said, for the dialogue that a person reads. Credentials and messages stay out.

use super::{
    line::printable,
    session::{Phase, Session, Step, Turn},
};
use crate::dialogue::Speaker;

/// Commands whose arguments hold no credential.
const PLAIN: [&str; 11] =
    ["EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "QUIT"];

impl Session {
    /// Records a line of the client's.
    pub(super) fn record_line(&self, turn: &mut Turn<'_>, line: &str) {
        let shown = match self.phase {
            Phase::Challenge(_) => hidden_answer(line),
            _ => without_credentials(line),
        };
        turn.office.transcribe(turn.now, self.id(), Speaker::Client, &shown);
    }

    /// Records that the client sent a message.
    pub(super) fn record_message(&self, turn: &mut Turn<'_>, octets: usize) {
        let shown = format!("(message, {octets} octets)");
        turn.office.transcribe(turn.now, self.id(), Speaker::Client, &shown);
    }

    /// Records something that happened to the connection.
    pub(super) fn record_event(&self, turn: &mut Turn<'_>, text: &str) {
        turn.office.transcribe(turn.now, self.id(), Speaker::Event, text);
    }

    /// Records what the steps of a turn say; once, when the turn is complete.
    pub(super) fn record_steps(&self, turn: &mut Turn<'_>) {
        let Turn { office, now, steps } = turn;
        let mut record = |by, text: &str| office.transcribe(*now, self.id(), by, text);
        for step in steps.iter() {
            match step {
                Step::Send(bytes) => {
                    let text = String::from_utf8_lossy(bytes);
                    text.split_terminator("\r\n").for_each(|line| record(Speaker::Server, line));
                }
                Step::Wait(milliseconds) => {
                    record(Speaker::Event, &format!("(pause of {milliseconds} ms)"));
                }
                Step::Close => record(Speaker::Event, "(connection closed)"),
                Step::Cut => record(Speaker::Event, "(connection cut)"),
                Step::Drip(_) | Step::StartTls | Step::Submitted => {}
            }
        }
    }
}

/// The answer to a challenge of AUTH; only a cancellation is no credential.
fn hidden_answer(line: &str) -> String {
    if line == "*" { line.to_owned() } else { "(credentials)".to_owned() }
}

/// A command line as it may be shown. Of a command that is not known to be harmless only the beginning of its first word
/// is left, since a client that lost its place sends credentials as commands.
fn without_credentials(line: &str) -> String {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let upper = verb.to_ascii_uppercase();
    if PLAIN.contains(&upper.as_str()) {
        return line.to_owned();
    }
    let rest = if upper == "AUTH" { words.next().map(printable) } else { None };
    let more = words.next().is_some().then_some("(credentials)");
    let shown = [Some(printable(verb)), rest, more.map(str::to_owned)];
    shown.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_came() {
        for line in ["EHLO shop.example", "mail FROM:<a@b.example> SIZE=1", "DATA"] {
            assert_eq!(without_credentials(line), line);
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(without_credentials("AUTH XOAUTH2 dXNlcj1hQGI="), "AUTH XOAUTH2 (credentials)");
        assert_eq!(without_credentials("auth LOGIN"), "auth LOGIN");
        assert_eq!(hidden_answer("c2VjcmV0"), "(credentials)");
        assert_eq!(hidden_answer("*"), "*");
    }

    #[test]
    fn of_an_unknown_command_the_first_characters_are_shown() {
        assert_eq!(without_credentials("dXNlcj1hQGIuZXhhbXBsZQFhdXRoPUJlYXJlciA"), "dXNlcj1hQGIuZXhh");
        assert_eq!(without_credentials("XAUTH secret"), "XAUTH (credentials)");
    }
}

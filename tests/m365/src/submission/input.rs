//! Bytes to commands: what the next bytes of a conversation are, and how much of them is used up.
//!
//! Nothing is done for a line before its CRLF. It refuses to know what a command does.

use super::{
    command::Command,
    line::{MAX_LINE, complete_line, printable},
    session::{Phase, Session, Step, Turn},
};
use crate::{faults::Stage, replies::Line, violations::Kind};

impl Session {
    /// Uses up some of the buffer; false when it needs more.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>) -> bool {
        match &mut self.phase {
            Phase::Closed => {
                self.buffer.clear();
                false
            }
            Phase::Data(reader) => {
                let (used, content) = reader.read(&self.buffer);
                self.buffer.drain(..used);
                content.is_some_and(|content| {
                    self.phase = Phase::Command;
                    self.end_of_data(turn, content);
                    true
                })
            }
            Phase::Chunk { .. } => self.take_chunk(turn),
            Phase::Command | Phase::Challenge(_) => self.take_line(turn),
        }
    }

    fn take_chunk(&mut self, turn: &mut Turn<'_>) -> bool {
        let Phase::Chunk { size, left, last, is_refused } = &mut self.phase else { return false };
        let used = (*left).min(self.buffer.len());
        *left -= used;
        let (size, done, last, is_refused) = (*size, *left == 0, *last, *is_refused);
        let config = &turn.office.config;
        let keep = config.record.bytes_kept(config.limits.advertised_size);
        let chunk: Vec<u8> = self.buffer.drain(..used).collect();
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks.push_chunk(&chunk, keep);
        }
        if !done {
            return false;
        }
        self.phase = Phase::Command;
        if is_refused {
            // Its reply was given with the command.
        } else if last {
            let content =
                self.transaction.as_mut().map(|open| std::mem::take(&mut open.chunks)).unwrap_or_default();
            self.staged(Some(Stage::Bdat), turn, |session, turn| session.end_of_data(turn, content));
        } else {
            self.say_with(turn, Line::ChunkOk.text(), &[("octets", &size.to_string())]);
        }
        true
    }

    fn take_line(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            if self.buffer.len() > MAX_LINE {
                turn.violation(self, Kind::Protocol, "a command line without end");
                self.say(turn, Line::LineTooLong);
                self.close(turn, Step::Close);
            }
            return false;
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        match complete_line(&line) {
            Ok(text) => {
                self.record_line(turn, &text);
                self.obey_line(turn, &text);
            }
            Err((kind, detail)) => {
                self.record_event(turn, &format!("({detail})"));
                turn.violation(self, kind, detail);
                self.refuse(turn, Line::Unrecognized);
            }
        }
        true
    }

    fn obey_line(&mut self, turn: &mut Turn<'_>, line: &str) {
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Challenge(challenge) => {
                self.staged(None, turn, |session, turn| session.answer(turn, challenge, line));
            }
            _ => match Command::parse(line) {
                Ok(command) => self.obey(turn, command),
                Err(reply) => {
                    let verb = line.split(' ').next().unwrap_or_default();
                    let kind =
                        if reply == Line::InvalidDomain { Kind::InvalidEhloName } else { Kind::Protocol };
                    turn.violation(self, kind, format!("{} is answered {}", printable(verb), reply.text()));
                    self.refuse(turn, reply);
                }
            },
        }
    }

    fn obey(&mut self, turn: &mut Turn<'_>, command: Command) {
        if command.ends_group() && !self.buffer.is_empty() {
            self.note_pipelined(turn, &command);
        }
        self.staged(command.stage(), turn, |session, turn| session.carry_out(turn, command));
    }

    fn note_pipelined(&mut self, turn: &mut Turn<'_>, command: &Command) {
        if *command == Command::StartTls {
            let detail = format!("{} bytes behind STARTTLS were thrown away", self.buffer.len());
            turn.violation(self, Kind::DataBehindStartTls, detail);
            self.buffer.clear();
        } else {
            let detail =
                format!("{} bytes were sent behind a command that must end its group", self.buffer.len());
            turn.violation(self, Kind::PipeliningPastGroup, detail);
        }
    }
}

//! The dialog as the faults have it: a reply in the place of the proper one, a delay, a cut.
//!
//! Which fault is due is decided in [`crate::faults`]; here it is carried out around the proper work.

use super::session::{Session, Step, Turn};
use crate::faults::{SmtpAction, Stage};

/// Longer than any client waits for a reply, milliseconds.
const FOR_EVER: u64 = 24 * 3600 * 1000;

impl Session {
    /// Runs `work` as the faults of `stage` have it.
    pub(super) fn staged(
        &mut self,
        stage: Option<Stage>,
        turn: &mut Turn<'_>,
        work: impl FnOnce(&mut Self, &mut Turn<'_>),
    ) {
        let face = self.peer.facts.face;
        let (delay, action) =
            stage.and_then(|stage| Some(turn.office.faults.of_mut(face)?.take(stage))).unwrap_or_default();
        if delay > 0 {
            turn.steps.push(Step::Wait(delay));
        }
        let before = turn.steps.len();
        match action {
            Some(SmtpAction::Reply(reply)) => self.answer_with_fault(turn, stage, reply.template()),
            Some(SmtpAction::Silence) => {
                self.transaction = None;
                turn.steps.push(Step::Wait(FOR_EVER));
            }
            Some(SmtpAction::Cut) => self.close(turn, Step::Cut),
            Some(SmtpAction::CutBeforeReply) => {
                work(self, turn);
                turn.steps.truncate(before);
                self.close(turn, Step::Cut);
            }
            Some(SmtpAction::Drip(milliseconds)) => {
                turn.steps.push(Step::Drip(milliseconds));
                work(self, turn);
                turn.steps.push(Step::Drip(0));
            }
            Some(SmtpAction::Append(text)) => {
                let at = turn.steps.len();
                work(self, turn);
                if let Some(Step::Send(reply)) =
                    turn.steps[at..].iter_mut().find(|step| matches!(step, Step::Send(_)))
                {
                    reply.extend_from_slice(text.as_bytes());
                }
            }
            Some(SmtpAction::CutAfterReply) => {
                work(self, turn);
                self.close(turn, Step::Cut);
            }
            Some(SmtpAction::Delay(_)) | None => work(self, turn),
        }
    }

    fn answer_with_fault(&mut self, turn: &mut Turn<'_>, stage: Option<Stage>, template: &str) {
        if matches!(stage, Some(Stage::EndOfData | Stage::Bdat)) {
            self.transaction = None;
        }
        let text = self.say_with(turn, template, &[]);
        if stage == Some(Stage::Auth) {
            self.failed_login = Some(text);
        }
        if template.starts_with("421") {
            self.close(turn, Step::Close);
        }
    }
}

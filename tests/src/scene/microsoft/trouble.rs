//! Faults that can be switched on.

use std::time::Duration;

use anyhow::Result;
use mailroute_m365::replies::ReplyText;
use mailroute_m365::{Faults, Line, Rule, SmtpAction, Stage};

use super::Microsoft;

/// Longer than any scenario lasts.
const SILENCE: Duration = Duration::from_secs(3600);

impl Microsoft {
    /// Closes the submission port.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn go_down(&self) -> Result<()> {
        let mut faults = Faults::default();
        faults.submission.down = true;
        self.faults(&faults).await
    }

    /// Closes the ports of both faces: submission, and port 25.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn go_down_entirely(&self) -> Result<()> {
        let mut faults = Faults::default();
        (faults.submission.down, faults.relay.down) = (true, true);
        self.faults(&faults).await
    }

    /// Takes connections and never says a word.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn fall_silent(&self) -> Result<()> {
        let silence = u64::try_from(SILENCE.as_millis())?;
        let mut faults = Faults::default();
        faults.submission.rules = vec![Rule::always(Stage::Connect, SmtpAction::Delay(silence))];
        self.faults(&faults).await
    }

    /// Answers for each recipient that the mailbox is full, which a sidecar tries again after an hour.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn put_recipients_off(&self) -> Result<()> {
        let full = ReplyText::try_from("452 4.2.2 The recipient's mailbox is full".to_owned())?;
        let mut faults = Faults::default();
        faults.submission.rules = vec![Rule::always(Stage::Rcpt, SmtpAction::Reply(full))];
        self.faults(&faults).await
    }

    /// Ends each connection after a message has been taken, so that every message comes over a new one.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn hang_up_after_each_message(&self) -> Result<()> {
        self.faults(&hanging_up()).await
    }

    /// The same, and the next log-in is refused as one with an unknown token, which a client answers with another token.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn refuse_the_next_token(&self) -> Result<()> {
        let mut faults = hanging_up();
        let refusal = SmtpAction::Reply(Line::AuthUnsuccessful.into());
        faults.submission.rules.push(Rule::times(Stage::Auth, refusal, 1));
        self.faults(&faults).await
    }

    /// Ends every fault.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn come_back(&self) -> Result<()> {
        self.faults(&Faults::default()).await
    }

    /// Replaces what is switched on.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn faults(&self, faults: &Faults) -> Result<()> {
        self.request("PUT", "faults", Some(serde_json::to_vec(faults)?)).await.map(drop)
    }
}

fn hanging_up() -> Faults {
    let mut faults = Faults::default();
    for face in [&mut faults.submission, &mut faults.relay] {
        face.rules = vec![Rule::always(Stage::EndOfData, SmtpAction::CutAfterReply)];
    }
    faults
}

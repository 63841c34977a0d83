//! A message that was sent, and what became of it, as text. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::table::{Cell, Table, number, text};
use crate::terminal::{Style, Tone, clean};
use crate::trace::story::{End, Story};

/// What the sidecar's `send -o json` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// The sender.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The Message-ID.
    pub message_id: String,
    /// The steps.
    pub steps: Vec<Step>,
    /// Whether it was answered 250.
    pub accepted: bool,
    /// Its id in the queue, where it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
    /// Why it did not come to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// Which.
    pub step: String,
    /// How long its reply took.
    pub milliseconds: u64,
    /// The reply.
    pub reply: String,
    /// Whether it let the conversation go on.
    pub ok: bool,
}

/// The message, and the steps of its session.
pub fn sent(message: &Sent, style: Style) -> String {
    let mut out = format!(
        "{} to <{}>, Message-ID {}\n\n",
        clean(&message.from),
        clean(&message.to),
        clean(&message.message_id)
    );
    let mut table = Table::new([text("STEP"), number("MS"), text("REPLY")]);
    for step in &message.steps {
        let tone = if step.ok { Tone::Plain } else { Tone::Bad };
        table.row([(&step.step).into(), step.milliseconds.to_string().into(), Cell::new(&step.reply, tone)]);
    }
    // Whole: a reply is what one came for.
    out.push_str(&table.render(Style { width: None, ..style }));
    if let Some(error) = &message.error {
        out.push_str(&format!("{}\n", style.paint(Tone::Bad, &clean(error))));
    }
    out
}

/// What became of it after so much time.
pub fn followed(
    message: &Sent,
    story: Option<&Story>,
    took: Duration,
    style: Style,
    now: Timestamp,
) -> String {
    let seconds = format!("{}.{} s", took.as_secs(), took.subsec_millis() / 100);
    let (tone, end) = match (message.accepted, story.map(|story| story.end)) {
        (false, _) => (
            Tone::Bad,
            "The message was not accepted. kubectl mailroute explain tells what the reply means.".to_owned(),
        ),
        (true, None | Some(End::Delivered)) => {
            (Tone::Good, format!("Microsoft 365 has accepted the message, after {seconds}."))
        }
        (true, Some(End::Waiting)) => (
            Tone::Warning,
            format!(
                "After {seconds} the message still waits. kubectl mailroute trace {} follows it.",
                clean(&message.message_id)
            ),
        ),
        (true, Some(_)) => (Tone::Bad, format!("After {seconds} Microsoft 365 does not have the message.")),
    };
    let mut out = String::new();
    if let Some(story) = story {
        out.push_str(&format!("\n{}", story.print(style, now)));
    }
    out.push_str(&format!("\n{}\n", style.paint(tone, &end)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_time_and_the_end_is_said() {
        let step = |step: &str, milliseconds, reply: &str| Step {
            step: step.into(),
            milliseconds,
            reply: reply.into(),
            ok: true,
        };
        let message = Sent {
            from: "<noreply@contoso.com>".into(),
            to: "ada@contoso.com".into(),
            message_id: "<1.test@contoso.com>".into(),
            steps: vec![
                step("connection", 2, "220 ready\x1b"),
                step("message", 812, "250 2.0.0 OK [Hostname=FR3P]"),
            ],
            accepted: true,
            ..Sent::default()
        };
        let expected = "\
<noreply@contoso.com> to <ada@contoso.com>, Message-ID <1.test@contoso.com>

STEP         MS  REPLY
connection    2  220 ready\u{fffd}
message     812  250 2.0.0 OK [Hostname=FR3P]
";
        assert_eq!(sent(&message, Style::default()), expected);
        let end =
            followed(&message, None, Duration::from_millis(930), Style::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(end, "\nMicrosoft 365 has accepted the message, after 0.9 s.\n");
    }
}

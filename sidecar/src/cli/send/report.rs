//! What sending a message met, as text for people and as JSON for programs. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::args::Output;
use crate::message::envelope::QueueId;
use crate::outcome::one_line;
use crate::smtp::reply::Reply;

/// What was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `namespace/name` of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The sender, with angle brackets.
    pub from: String,
    /// The recipient.
    pub to: String,
    /// The Message-ID.
    pub message_id: String,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Whether the message was answered 250.
    pub accepted: bool,
    /// Its id in the queue, where it was stored. Without one an accepted message is with Microsoft 365.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
    /// Why it did not come to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which: `connection`, the commands, `message`.
    pub step: &'static str,
    /// How long the reply took, milliseconds.
    pub milliseconds: u64,
    /// The reply in one line.
    pub reply: String,
    /// Whether it lets the conversation go on.
    pub ok: bool,
}

impl Step {
    /// A step that was answered.
    pub fn new(step: &'static str, took: Duration, reply: &Reply) -> Self {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { step, milliseconds, reply: one_line(reply), ok: reply.is_positive() }
    }
}

impl Report {
    /// Nothing could be sent.
    pub fn failed(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    /// The same, with what follows from the steps.
    #[must_use]
    pub fn concluded(self) -> Self {
        let last = self.steps.last().filter(|last| last.step == "message" && last.ok);
        let queued = last.and_then(|last| last.reply.split_once("OK queued as "));
        let id = queued.and_then(|(_, id)| QueueId::parse(id.trim())).map(|id| id.to_string());
        Self { accepted: last.is_some(), queue_id: id, ..self }
    }

    /// As it is printed, ending in a newline.
    pub fn print(&self, output: Output) -> String {
        match output {
            Output::Text => self.text(),
            Output::Json => {
                // Only maps with odd keys and failing `Serialize` impls can fail, and there are none here.
                let mut json = serde_json::to_string_pretty(self).expect("plain data serialises");
                json.push('\n');
                json
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Step { step, milliseconds, reply, ok } in &self.steps {
            let state = if *ok { "ok" } else { "FAILED" };
            text.push_str(&format!("{state:8} {step:12} {milliseconds:>6} ms  {reply}\n"));
        }
        if let Some(error) = &self.error {
            text.push_str(&format!("FAILED   {error}\n"));
        }
        let end = match (self.accepted, &self.queue_id) {
            (true, Some(id)) => format!("The message is stored as {id}: mailroute-sidecar queue show {id}"),
            (true, None) => format!("Microsoft 365 has accepted the message {}.", self.message_id),
            (false, _) => "The message was not accepted.".into(),
        };
        format!("{text}\n{end}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reply: &str) -> Report {
        let reply = Reply::parse(format!("{reply}\r\n").as_bytes()).unwrap().unwrap().0;
        let steps = vec![Step::new("message", Duration::from_millis(812), &reply)];
        Report { message_id: "<1.test@contoso.com>".into(), steps, ..Report::default() }.concluded()
    }

    #[test]
    fn the_reply_says_whether_the_message_is_stored_or_with_microsoft() {
        let queued = report("250 2.0.0 OK queued as 1k0v20rrs91sz4h0yms");
        assert_eq!((queued.accepted, queued.queue_id.as_deref()), (true, Some("1k0v20rrs91sz4h0yms")));
        let sent = report("250 2.0.0 OK <1.test@contoso.com> [Hostname=FR3P]");
        assert_eq!((sent.accepted, &sent.queue_id), (true, &None));
        let expected = "\
ok       message         812 ms  250 2.0.0 OK <1.test@contoso.com> [Hostname=FR3P]

Microsoft 365 has accepted the message <1.test@contoso.com>.
";
        assert_eq!(sent.print(Output::Text), expected);
        let refused = report("554 5.2.252 SendAsDenied; not allowed");
        assert!(!refused.accepted && refused.print(Output::Text).starts_with("FAILED   message "));
        let json: serde_json::Value = serde_json::from_str(&refused.print(Output::Json)).unwrap();
        assert_eq!((&json["accepted"], &json["steps"][0]["milliseconds"]), (&false.into(), &812.into()));
    }
}

//! What can be switched on at Graph.

use serde::{Deserialize, Serialize};

use super::{Act, Rule, take};

/// Faults of Graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GraphFaults {
    /// The port is closed: connections are refused and open ones cut.
    pub down: bool,
    /// Which answers replace the proper one.
    pub rules: Vec<Rule<Request, GraphAction>>,
}

/// Graph has a single stage: the request is there as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// `sendMail`.
    #[default]
    SendMail,
}

/// What Graph does instead of its work, or after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GraphAction {
    /// This answer.
    Answer(GraphAnswer),
    /// The connection is cut without an answer.
    Cut {
        /// The message is accepted all the same, unless it is refused.
        accepted: bool,
    },
    /// 202, and the message is delivered twice.
    Duplicate,
    /// The proper answer, but after so many milliseconds.
    Delay(u64),
}

/// An answer in the place of the proper one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphAnswer {
    /// HTTP status.
    pub status: u16,
    /// `error.code` of the body; without it the body is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `error.message`; without it the one that goes with the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The body is a page of HTML.
    #[serde(default)]
    pub html: bool,
    /// `Retry-After`, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The message is accepted before. One that is refused gets its proper refusal.
    #[serde(default)]
    pub accepted: bool,
}

impl GraphAnswer {
    /// An answer of this status with an empty body; nothing is accepted.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, code: None, message: None, html: false, retry_after: None, accepted: false }
    }

    /// With this `error.code`.
    #[must_use]
    pub fn code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// With this `error.message`.
    #[must_use]
    pub fn message(self, text: &str) -> Self {
        Self { message: Some(text.to_owned()), ..self }
    }

    /// With a page of HTML.
    #[must_use]
    pub fn html(self) -> Self {
        Self { html: true, ..self }
    }

    /// With `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// After the message was accepted.
    #[must_use]
    pub fn accepted(self) -> Self {
        Self { accepted: true, ..self }
    }
}

impl Act for GraphAction {
    fn delay(&self) -> Option<u64> {
        if let Self::Delay(milliseconds) = self { Some(*milliseconds) } else { None }
    }
}

impl GraphFaults {
    /// What is due for the next request: all delays together, and the first other action.
    pub fn take(&mut self) -> (u64, Option<GraphAction>) {
        take(&mut self.rules, Request::SendMail)
    }
}

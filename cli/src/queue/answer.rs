//! What the sidecar's `queue -o json` says, read leniently: sidecars of another version may say more or less. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct List {
    /// The messages.
    pub messages: Vec<Row>,
    /// Names of files that were set aside as damaged.
    pub corrupt: Vec<String>,
    /// Whether the MailRoute of the pod was deleted.
    pub route_deleted: bool,
}

/// A message in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Row {
    /// Which.
    pub id: String,
    /// `waiting`, `held`, `trying` or `dead`.
    pub state: String,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What it waits for, when that is not its own time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Obstacle>,
    /// When it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Timestamp>,
    /// Attempts that count.
    pub attempts: u32,
    /// Octets.
    pub bytes: u64,
    /// Its Message-ID; empty where the sidecar does not say it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message_id: String,
    /// The reverse path.
    pub from: String,
    /// How its recipients fare.
    pub to: Counts,
    /// What was met last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Problem>,
    /// Why its file cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// Recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Still to be delivered to.
    pub waiting: u64,
    /// Delivered to.
    pub delivered: u64,
    /// Given up.
    pub failed: u64,
}

/// What keeps a message from being tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Obstacle {
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In words.
    pub text: String,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What an attempt met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Its outcome.
    pub outcome: String,
    /// Its reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reply, or what was met.
    pub text: String,
    /// Microsoft's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What a command changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Changed {
    /// Messages that were changed.
    pub done: u64,
    /// Why others were not.
    pub failed: Vec<String>,
    /// What keeps them from being tried at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<Obstacle>,
}

impl Obstacle {
    /// The reason, or else the words.
    pub fn short(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.text)
    }
}

impl Row {
    /// What it waits for, or what was met last, in a few words.
    pub fn why(&self) -> &str {
        let trouble = self.trouble.as_ref().map(|it| it.reason.as_deref().unwrap_or(&it.text));
        let waits = self.waits_for.as_ref().map(Obstacle::short);
        self.unreadable.as_deref().or(waits).or(trouble).unwrap_or("-")
    }

    /// Recipients that wait, of how many where others are settled.
    pub fn recipients(&self) -> String {
        let all = self.to.waiting.saturating_add(self.to.delivered).saturating_add(self.to.failed);
        if self.to.waiting == all { all.to_string() } else { format!("{}/{all}", self.to.waiting) }
    }
}

/// Reads an answer.
///
/// # Errors
/// When it is none; with what it is.
pub fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| {
        format!("its answer is not understood ({error}); is its sidecar much older than this program?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_sidecar_is_read_whether_it_says_more_or_less() {
        let json = br#"{"running":true,"messages":[{"id":"1k0v20rrs91sz4h0yms","state":"held","accepted":"2027-01-15T08:00:00Z",
            "kind":"message","attempts":1,"bytes":339,"from":"noreply@contoso.com","to":{"waiting":1,"delivered":2,"failed":0},
            "waitsFor":{"reason":"DailyQuotaExceeded","text":"limits","limits":true},"news":7},{"id":"x"}],"corrupt":["a"]}"#;
        let list: List = read(json).unwrap();
        let row = &list.messages[0];
        assert_eq!(
            (row.why(), row.recipients().as_str(), list.corrupt.len()),
            ("DailyQuotaExceeded", "1/3", 1)
        );
        assert_eq!(list.messages[1].why(), "-");
        assert!(read::<List>(b"Error").unwrap_err().contains("not understood"));
    }
}

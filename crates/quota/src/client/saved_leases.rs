//! What a lease client has to remember over a restart: plain data, and its text. Names in the text stay as they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::timing::millis;
use crate::wire::TimeSlots;

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedLeases {
    /// Number of this run of the process, which grows with each.
    pub instance: u64,
    /// The time slots that were assigned.
    pub slots: Option<TimeSlots>,
    /// Recipients of messages in slots, and when.
    pub slot_recipients: Vec<(Duration, u64)>,
    /// Messages in slots, and when.
    pub slot_messages: Vec<(Duration, u64)>,
}

#[derive(Default, Serialize, Deserialize)]
struct SavedText {
    life: u64,
    turn: Option<TimeSlots>,
    /// Milliseconds since the Unix epoch, and recipients.
    taken: Vec<(u64, u64)>,
    /// Milliseconds since the Unix epoch, and messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sent: Vec<(u64, u64)>,
}

impl SavedLeases {
    /// The text.
    pub fn print(&self) -> String {
        let counted = |counted: &[(Duration, u64)]| counted.iter().map(|&(at, n)| (millis(at), n)).collect();
        let (taken, sent) = (counted(&self.slot_recipients), counted(&self.slot_messages));
        let text = SavedText { life: self.instance, turn: self.slots, taken, sent };
        serde_json::to_string(&text).expect("plain data serialises")
    }

    /// Reads a text.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let SavedText { life, turn, taken, sent } = serde_json::from_slice(text)?;
        let counted =
            |text: Vec<(u64, u64)>| text.into_iter().map(|(at, n)| (Duration::from_millis(at), n)).collect();
        Ok(Self {
            instance: life,
            slots: turn,
            slot_recipients: counted(taken),
            slot_messages: counted(sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back_also_in_the_form_of_other_releases() {
        let saved = SavedLeases {
            instance: 7,
            slot_recipients: vec![(Duration::from_millis(5), 3)],
            ..<_>::default()
        };
        assert_eq!(saved.print(), r#"{"life":7,"turn":null,"taken":[[5,3]]}"#);
        assert_eq!(SavedLeases::parse(saved.print().as_bytes()).unwrap(), saved);
        let saved = SavedLeases { slot_messages: vec![(Duration::from_millis(6), 1)], ..saved };
        assert_eq!(SavedLeases::parse(saved.print().as_bytes()).unwrap(), saved);
        assert!(SavedLeases::parse(b"{").is_err());
    }
}

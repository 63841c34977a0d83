//! The fields that name who a message is from: whether `From` and `Sender` pass, are taken out, or have the message refused.

use super::Pass;
use crate::smtp::encoded_word;
use crate::smtp::senders::{Judgement, Senders};

/// What became of `From`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// There was none, or none with a value. One has to be added.
    #[default]
    Absent,
    /// There is one, and it was passed on.
    Kept,
    /// It was taken out. Another one has to be put in.
    Removed {
        /// Its value, up to and including the line end.
        value: Vec<u8>,
    },
}

/// What became of `Sender`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// There was none.
    #[default]
    Absent,
    /// There is one, and it was passed on.
    Kept,
    /// It was taken out.
    Removed,
}

/// What was met that a message is refused for.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    pub(super) several_from: bool,
    pub(super) long_from: bool,
    pub(super) unclear_from: bool,
    pub(super) sender: Option<String>,
}

impl Pass {
    /// Whether a `From` field is passed on.
    pub(super) fn passes_from(&mut self, field: &[u8], senders: &Senders) -> bool {
        let value = value_of(field);
        if value.trim_ascii().is_empty() {
            return false;
        }
        if self.found.from != From::Absent {
            self.refused.several_from = true;
            return false;
        }
        match senders.judge_authors("From", value) {
            Judgement::Rewrite => {
                let encoded = self.encode.then(|| encoded_word::field(field)).flatten();
                self.found.encoded += u32::from(encoded.is_some());
                let value = value_of(encoded.as_deref().unwrap_or(field)).to_vec();
                self.found.from = From::Removed { value };
                false
            }
            judgement => {
                self.refuse(judgement);
                self.found.from = From::Kept;
                true
            }
        }
    }

    /// Whether a `Sender` field is passed on. Only asked where there are rules.
    pub(super) fn passes_sender(&mut self, field: &[u8], senders: &Senders) -> bool {
        if value_of(field).trim_ascii().is_empty() {
            return false;
        }
        let judgement = senders.judge_authors("Sender", value_of(field));
        let passes = judgement != Judgement::Rewrite;
        match (passes, self.found.sender) {
            (true, _) => self.found.sender = Sender::Kept,
            (false, Sender::Absent) => self.found.sender = Sender::Removed,
            (false, _) => {}
        }
        self.refuse(judgement);
        passes
    }

    fn refuse(&mut self, judgement: Judgement) {
        if let Judgement::Refused(who) = judgement {
            self.refused.sender.get_or_insert(who);
        }
    }
}

/// What stands behind the colon of a field.
fn value_of(field: &[u8]) -> &[u8] {
    let colon = field.iter().position(|&b| b == b':').map_or(field.len(), |at| at + 1);
    &field[colon..]
}

//! How often what happened: plain counters that stay small however much is sent.
//!
//! Refusals are counted by basic and enhanced code, the part that a client classifies by. Pure; it refuses to know why a
//! reply was given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::Peak;

/// Kinds of refusal that are counted apart at most; a fault may give any code, so there must be an end.
const MAX_KINDS: usize = 1_000;

/// Counters since the start, or since they were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// SMTP connections that were accepted.
    pub connections: u64,
    /// Messages that were accepted.
    pub messages: u64,
    /// Recipients of accepted messages.
    pub recipients: u64,
    /// Bytes of accepted messages.
    pub bytes: u64,
    /// 4xx and 5xx replies by their codes, such as `432 4.3.2`; at Graph `429 ApplicationThrottled`.
    pub refusals: BTreeMap<String, u64>,
}

/// The counters together with the peaks of each mailbox, as the control API shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// The counters.
    #[serde(flatten)]
    pub tally: Tally,
    /// SMTP connections that are open now.
    pub open_connections: usize,
    /// Peaks by mailbox address in lower case.
    pub mailboxes: BTreeMap<String, Peak>,
    /// The most requests at Graph that were under way at once, by client id, or by client id and mailbox as
    /// `graph.concurrencyPer` has it.
    #[serde(default)]
    pub requests_at_once: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts a refusal, given its whole text.
    pub fn refused(&mut self, text: &str) {
        self.count(codes(text));
    }

    /// Counts a refusal of Graph's; the code may be empty.
    pub fn refused_by_graph(&mut self, status: u16, code: &str) {
        self.count(format!("{status} {code}").trim_end());
    }

    fn count(&mut self, codes: &str) {
        if let Some(count) = self.refusals.get_mut(codes) {
            *count += 1;
        } else if self.refusals.len() < MAX_KINDS {
            self.refusals.insert(codes.to_owned(), 1);
        }
    }

    /// Refusals whose codes begin so: `432`, `421 4.4.2`, or `550 5.2.25` for the whole family of barred mailboxes.
    #[must_use]
    pub fn refusals(&self, prefix: &str) -> u64 {
        self.refusals.iter().filter(|(codes, _)| codes.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// Counts an accepted message.
    pub fn accepted(&mut self, recipients: usize, bytes: usize) {
        self.messages += 1;
        self.recipients += recipients as u64;
        self.bytes += bytes as u64;
    }
}

/// `550 5.2.252` of a reply, or its basic code alone when it has no enhanced one.
fn codes(text: &str) -> &str {
    let mut spaces = text.match_indices(' ').map(|(at, _)| at);
    let basic = spaces.next().unwrap_or(text.len());
    let both = spaces.next().unwrap_or(text.len());
    let second = text.get(basic + 1..both).unwrap_or_default();
    if is_enhanced(second) { &text[..both] } else { &text[..basic] }
}

fn is_enhanced(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replies::Line;

    #[test]
    fn refusals_are_counted_by_their_codes() {
        let mut tally = Tally::default();
        for line in [
            Line::ConcurrentConnections,
            Line::SenderThreadLimit,
            Line::MessageRate,
            Line::ThrottledSendAsDenied,
            Line::ThrottledMailboxFull,
        ] {
            tally.refused(line.text());
        }
        tally.refused("451 later");
        tally.refused("452");
        assert_eq!(tally.refusals("432"), 2);
        assert_eq!(tally.refusals("421 4.4.2"), 1);
        assert_eq!(tally.refusals("550 5.2.25"), 2);
        assert_eq!(tally.refusals.keys().filter(|codes| codes.len() == 3).count(), 2, "{tally:?}");
    }

    #[test]
    fn kinds_of_refusal_are_bounded() {
        let mut tally = Tally::default();
        for number in 0..2 * MAX_KINDS {
            tally.refused(&format!("450 4.0.{number} x"));
        }
        assert_eq!(tally.refusals.len(), MAX_KINDS);
    }
}

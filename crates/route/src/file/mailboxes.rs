//! Several mailboxes of one route: which they are, and the route as each of them sees it.

use serde::{Deserialize, Serialize};

use super::{Method, RouteFile};

/// Most mailboxes of one route.
pub const MAX_MAILBOXES: usize = 16;

/// A mailbox among several, and the senders whose mail it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendingMailbox {
    /// Address of the mailbox.
    pub address: String,
    /// Senders of the envelope that it serves beside itself: addresses and `*@domain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<String>,
}

/// What becomes of `From` when a sender's mail is shared over several mailboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SpreadFrom {
    /// It stays: each of the mailboxes may send as the sender.
    #[default]
    Keep,
    /// It becomes the mailbox, and the sender is named in `Reply-To`.
    ReplyTo,
}

impl Method {
    /// The addresses that are sent as, at least one where the method logs in as a mailbox.
    pub fn mailboxes(&self) -> Vec<&str> {
        match self {
            Self::ClientSubmission(submission) if !submission.mailboxes.is_empty() => {
                submission.mailboxes.iter().map(|mailbox| mailbox.address.as_str()).collect()
            }
            _ => self.mailbox().into_iter().collect(),
        }
    }
}

impl RouteFile {
    /// The route narrowed to each of its mailboxes, in their order; the route itself where it has one or none.
    pub fn lanes(&self) -> Vec<Self> {
        let Method::ClientSubmission(submission) = &self.method else { return vec![self.clone()] };
        if submission.mailboxes.is_empty() {
            return vec![self.clone()];
        }
        let narrowed = |mailbox: &SendingMailbox| {
            let mut submission = submission.clone();
            submission.mailbox.clone_from(&mailbox.address);
            (submission.mailboxes, submission.spread) = (vec![], None);
            Self { method: Method::ClientSubmission(submission), ..self.clone() }
        };
        submission.mailboxes.iter().take(MAX_MAILBOXES).map(narrowed).collect()
    }
}

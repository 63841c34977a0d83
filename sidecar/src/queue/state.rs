//! What the queue knows in memory, under one lock.

use std::collections::{HashMap, HashSet};

use super::index::{Index, MailboxNumber};
use super::mailboxes::MailboxNumbers;
use crate::attempt::NoPermit;
use crate::attempt::lanes::Lanes;
use crate::clock::Instant;
use crate::message::envelope::{Address, QueueId};
use crate::spool::Progress;

/// What changes under the lock.
#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    /// The mailboxes that messages name.
    pub(super) mailboxes: MailboxNumbers,
    /// What each lane does.
    pub(super) lanes: Vec<LaneState>,
    /// Settled messages that wait for the disk, their places taken by others.
    pub(super) settled: usize,
    /// Changes since the start that the workers have to look at.
    pub(super) nudges: u64,
    /// Progress that could not be written to disk; what is remembered here is not delivered twice.
    pub(super) unwritten: HashMap<QueueId, Progress>,
    /// The process ends soon.
    pub(super) is_draining: bool,
    /// No attempt begins any more.
    pub(super) is_closed: bool,
    /// Dead letters that are being handed over.
    pub(super) leaving_dead: HashSet<QueueId>,
    /// Message-IDs of the newest messages that waited when the process was to end.
    pub(super) named: Vec<(QueueId, String)>,
}

/// What the worker of one lane knows.
#[derive(Default)]
pub(super) struct LaneState {
    /// Messages being tried.
    pub(super) in_delivery: usize,
    /// After a look at all changes: when there is more to do, if anything. Nothing while there are changes to look at, or
    /// while the operator is asked for a lease, as nobody knows when it answers.
    pub(super) rest: Option<Option<Instant>>,
    /// When to look next for messages whose time is over, while nothing may go.
    pub(super) next_look: Option<Instant>,
    /// What stood in the way of the message that is due first, when the worker looked last.
    pub(super) denied: Option<NoPermit>,
}

impl State {
    /// The number of a mailbox.
    pub(super) fn number(&mut self, mailbox: Option<&Address>, lanes: &Lanes) -> MailboxNumber {
        let (number, freed) = self.mailboxes.number(mailbox, |name| lanes.names(name));
        if let Some(freed) = freed {
            self.index.forget_mailbox(freed);
        }
        number
    }

    /// The mailbox of a number.
    pub(super) fn mailbox(&self, number: MailboxNumber) -> Option<&Address> {
        self.mailboxes.name(number)
    }

    /// Whether each mailbox of messages, by its number, goes by this lane.
    pub(super) fn goes_by(&self, lanes: &Lanes, lane: usize) -> impl Fn(MailboxNumber) -> bool + use<> {
        let own: Vec<bool> = self.mailboxes.names().map(|mailbox| lanes.position(mailbox) == lane).collect();
        move |number| own.get(usize::from(number)).copied().unwrap_or(false)
    }
}

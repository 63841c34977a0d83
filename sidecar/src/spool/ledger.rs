//! What is kept, and how much of the volume it takes, in memory.
//!
//! Owns the sums. Refuses to know the disk: whoever writes takes [`Room`] first, and gives it back or keeps it.
//!
//! Counted as the volume counts: whole blocks, and one more for a message's progress, since Kubernetes evicts a pod by
//! what its volume really holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::Full;
use super::layout::Shelf;
use crate::lock;
use crate::message::envelope::QueueId;

/// The block of nearly all file systems, octets.
pub(super) const BLOCK: u64 = 4096;

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Most octets of all that is kept, in whole blocks.
    pub max_bytes: u64,
    /// Most dead letters. When there are more, those that were accepted first go.
    pub keep_dead: usize,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Messages that wait to be delivered.
    pub queued: usize,
    /// Messages that were given up.
    pub dead: usize,
    /// Files that could not be read again.
    pub corrupt: usize,
    /// Octets of all of them, in whole blocks.
    pub bytes: u64,
    /// Octets that may be kept.
    pub max_bytes: u64,
}

/// One message that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Octets of its files, in whole blocks.
    pub cost: u64,
    /// Whether its progress has a file.
    pub has_state: bool,
    /// Whether its content is known to be what was written.
    pub intact: bool,
}

/// Octets that a message takes on the volume when its file has `len`.
pub(super) const fn cost(len: u64) -> u64 {
    blocks(len) * BLOCK + BLOCK
}

/// Blocks of a file that has `len` octets.
pub(super) const fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK)
}

/// The ledger of one spool.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<Books>);

#[derive(Debug)]
struct Books {
    queue: HashMap<QueueId, Held>,
    /// In the order in which they were accepted.
    dead: BTreeMap<QueueId, Held>,
    corrupt: usize,
    used: u64,
    limits: SpoolLimits,
}

impl Ledger {
    pub fn new(limits: SpoolLimits) -> Self {
        let (queue, dead) = (HashMap::new(), BTreeMap::new());
        Self(Mutex::new(Books { queue, dead, corrupt: 0, used: 0, limits }))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.0)
    }

    pub fn set_limits(&self, limits: SpoolLimits) {
        self.books().limits = limits;
    }

    pub fn stock(&self) -> Stock {
        let Books { queue, dead, corrupt, used, limits } = &*self.books();
        let (queued, dead) = (queue.len(), dead.len());
        Stock { queued, dead, corrupt: *corrupt, bytes: *used, max_bytes: limits.max_bytes }
    }

    /// Takes room for a message, if the limit leaves any. `claimed` octets of it were taken while it came in, and are
    /// given back when this succeeds.
    pub fn reserve(self: &Arc<Self>, cost: u64, claimed: u64) -> Result<Room, Full> {
        self.books().take_room(cost, claimed)?;
        Ok(Room { ledger: Arc::clone(self), cost })
    }

    /// Takes room for octets of a message that comes in, if the limit leaves any.
    pub fn claim(&self, octets: u64) -> Result<(), Full> {
        self.books().take_room(octets, 0)
    }

    /// Gives back what [`Ledger::claim`] took.
    pub fn release(&self, octets: u64) {
        let mut books = self.books();
        books.used = books.used.saturating_sub(octets);
    }

    /// Enters a message that was found on the disk, over the limit or not.
    pub fn enter(&self, shelf: Shelf, id: QueueId, held: Held) {
        let mut books = self.books();
        books.used += held.cost;
        books.insert(shelf, id, held);
    }

    pub fn find(&self, id: &QueueId) -> Option<(Shelf, Held)> {
        let books = self.books();
        let queued = books.queue.get(id).map(|held| (Shelf::Queue, *held));
        queued.or_else(|| books.dead.get(id).map(|held| (Shelf::Dead, *held)))
    }

    /// Changes what is known of a message, if it is kept.
    pub fn update(&self, id: &QueueId, change: impl FnOnce(&mut Held)) {
        let mut books = self.books();
        let Books { queue, dead, .. } = &mut *books;
        if let Some(held) = queue.get_mut(id).or_else(|| dead.get_mut(id)) {
            change(held);
        }
    }

    pub fn transfer(&self, id: &QueueId, to: Shelf) {
        let mut books = self.books();
        if let Some(held) = books.take(id) {
            books.insert(to, id.clone(), held);
        }
    }

    /// Forgets a message and the room that it took.
    pub fn forget(&self, id: &QueueId) {
        let mut books = self.books();
        if let Some(held) = books.take(id) {
            books.used = books.used.saturating_sub(held.cost);
        }
    }

    /// A kept message was set aside: from one moment to the next it counts as that and no longer as kept.
    pub fn spoil(&self, id: &QueueId) {
        let mut books = self.books();
        if books.take(id).is_some() {
            books.corrupt += 1;
        }
    }

    /// Counts a file that was set aside, with what it takes on the volume.
    pub fn set_aside(&self, cost: u64) {
        let mut books = self.books();
        books.corrupt += 1;
        books.used += cost;
    }

    /// A message whose files, with these costs, had been set aside is kept in the queue again.
    pub fn restore(&self, id: QueueId, files: &[u64], held: Held) {
        let mut books = self.books();
        books.corrupt = books.corrupt.saturating_sub(files.len());
        books.used = books.used.saturating_sub(files.iter().sum()) + held.cost;
        books.insert(Shelf::Queue, id, held);
    }

    /// Every dead letter, in the order in which they were accepted.
    pub fn dead(&self) -> Vec<QueueId> {
        self.books().dead.keys().cloned().collect()
    }

    /// The dead letters that are too many, the first accepted ones.
    pub fn too_many(&self) -> Vec<QueueId> {
        let books = self.books();
        let excess = books.dead.len().saturating_sub(books.limits.keep_dead);
        books.dead.keys().take(excess).cloned().collect()
    }
}

impl Books {
    fn take_room(&mut self, more: u64, instead_of: u64) -> Result<(), Full> {
        let (used, max) = (self.used.saturating_sub(instead_of), self.limits.max_bytes);
        if used.saturating_add(more) > max {
            return Err(Full::Limit { used, more, max });
        }
        self.used = used + more;
        Ok(())
    }

    fn insert(&mut self, shelf: Shelf, id: QueueId, held: Held) {
        match shelf {
            Shelf::Queue => self.queue.insert(id, held),
            Shelf::Dead => self.dead.insert(id, held),
        };
    }

    fn take(&mut self, id: &QueueId) -> Option<Held> {
        self.queue.remove(id).or_else(|| self.dead.remove(id))
    }
}

/// Room that is taken, but not yet by a message that is kept. Given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    ledger: Arc<Ledger>,
    cost: u64,
}

impl Room {
    /// Leaves the room to a message in the queue that was just written.
    pub fn keep(mut self, id: QueueId, has_state: bool) {
        let cost = std::mem::take(&mut self.cost);
        self.ledger.books().insert(Shelf::Queue, id, Held { cost, has_state, intact: true });
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        books.used = books.used.saturating_sub(self.cost);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn id(n: u64) -> QueueId {
        QueueId::new(Timestamp::UNIX_EPOCH, n)
    }

    fn ledger(max_bytes: u64, keep_dead: usize) -> Arc<Ledger> {
        Arc::new(Ledger::new(SpoolLimits { max_bytes, keep_dead }))
    }

    #[test]
    fn a_message_costs_whole_blocks_and_one_for_its_progress() {
        assert_eq!([cost(1), cost(4096), cost(4097)], [8192, 8192, 12288]);
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let ledger = ledger(8192, 1);
        let room = ledger.reserve(8192, 0).unwrap();
        assert!(matches!(ledger.reserve(1, 0), Err(Full::Limit { used: 8192, more: 1, max: 8192 })));
        drop(room);
        assert_eq!(ledger.stock().bytes, 0);
        ledger.reserve(8192, 0).unwrap().keep(id(1), false);
        assert_eq!((ledger.stock().queued, ledger.stock().bytes), (1, 8192));
        ledger.forget(&id(1));
        assert_eq!((ledger.stock().queued, ledger.stock().bytes), (0, 0));
    }

    #[test]
    fn what_comes_in_takes_room_and_hands_it_to_what_is_kept() {
        let ledger = ledger(3 * 8192, 1);
        ledger.claim(8192).unwrap();
        ledger.claim(8192).unwrap();
        assert!(matches!(ledger.claim(8193), Err(Full::Limit { used: 16384, more: 8193, max: 24576 })));
        // It fits in the place of its own claim, and in no other's.
        assert!(ledger.reserve(16384, 0).is_err());
        let room = ledger.reserve(16384, 8192).unwrap();
        assert_eq!(ledger.stock().bytes, 24576);
        ledger.release(8192);
        drop(room);
        assert_eq!(ledger.stock().bytes, 0);
    }

    #[test]
    fn a_message_that_is_set_aside_keeps_its_room_under_another_name() {
        let ledger = ledger(8192, 1);
        ledger.reserve(8192, 0).unwrap().keep(id(1), false);
        ledger.spoil(&id(1));
        let stock = ledger.stock();
        assert_eq!((stock.queued, stock.corrupt, stock.bytes), (0, 1, 8192));
        ledger.spoil(&id(1));
        assert_eq!(ledger.stock(), stock, "it is counted once");
    }

    #[test]
    fn a_dead_letter_still_takes_its_room() {
        let ledger = ledger(8192, 1);
        ledger.reserve(8192, 0).unwrap().keep(id(1), false);
        ledger.transfer(&id(1), Shelf::Dead);
        let stock = ledger.stock();
        assert_eq!((stock.queued, stock.dead, stock.bytes), (0, 1, 8192));
        assert!(matches!(ledger.find(&id(1)), Some((Shelf::Dead, Held { has_state: false, .. }))));
    }

    #[test]
    fn the_first_accepted_dead_letters_are_too_many() {
        let ledger = ledger(0, 2);
        for n in [3, 1, 4, 2] {
            ledger.enter(Shelf::Dead, id(n), Held { cost: 1, has_state: true, intact: false });
        }
        assert_eq!(ledger.too_many(), [id(1), id(2)]);
        ledger.set_limits(SpoolLimits { max_bytes: 0, keep_dead: 9 });
        assert!(ledger.too_many().is_empty());
    }
}

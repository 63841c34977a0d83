//! Claims in, allotments out: reads a mailbox's ledger when it is first asked for, and has it written down before anything of it
//! is given out.
//!
//! Owns the clock and the order of reads and writes: one at a time for each mailbox. Decides nothing about limits; that is
//! [`crate::budget`]'s.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_entra::clock::Steady;
use mailroute_route::control::{Allotment, Claim, ShortOf};

use super::books::{Books, Error, Page};
use super::lock;
use crate::budget::ledger::{Decision, Ledger, Living, View};
use crate::budget::mailboxes::{Key, Mailboxes};
use crate::budget::terms::Terms;
use crate::budget::{Holder, Limits};

/// Decisions about one claim before it is told to come again. Two are needed when something has to be written down.
const ROUNDS: usize = 4;

/// Who claims, for which mailbox.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// The sidecar.
    pub holder: Holder,
    /// Its route, `namespace/name`.
    pub route: String,
    /// The mailbox that the route names now.
    pub mailbox: Key,
    /// What the route says its limits are.
    pub limits: Limits,
}

/// Gives out leases.
pub struct Leases {
    terms: Terms,
    books: Arc<dyn Books>,
    clock: Steady,
    mailboxes: Mutex<Mailboxes>,
    /// Where each sidecar claimed last.
    claimed: Mutex<HashMap<Holder, Key>>,
    /// One reads or writes a mailbox at a time.
    writing: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    swept: Mutex<Duration>,
    /// The sidecars of each mailbox whose pods live, as of then.
    living: Mutex<HashMap<Key, Vec<Living>>>,
}

impl Leases {
    /// Leases on these terms, written down in these books.
    pub fn new(terms: Terms, books: Arc<dyn Books>) -> Self {
        Self {
            terms,
            books,
            clock: Steady::start(),
            mailboxes: Mutex::default(),
            claimed: Mutex::default(),
            writing: Mutex::default(),
            swept: Mutex::default(),
            living: Mutex::default(),
        }
    }

    /// Answers a claim; nothing when a later one of the same sidecar was heard already.
    ///
    /// # Errors
    /// When the ledger cannot be read or written. Then nothing is given out, and everything is read again.
    pub async fn exchange(&self, who: &Claimant, claim: &Claim) -> Result<Option<Allotment>, Error> {
        let outcome = self.answer(who, claim).await;
        if outcome.is_err() {
            lock(&self.mailboxes).clear();
        }
        outcome
    }

    async fn answer(&self, who: &Claimant, claim: &Claim) -> Result<Option<Allotment>, Error> {
        self.open(&who.mailbox).await?;
        self.moved(who, claim);
        let now = self.clock.now();
        let heard = self.with(&who.mailbox, |ledger| {
            ledger.limit(&who.route, who.limits, now);
            ledger.hear(who.holder, claim, now)
        });
        if heard != Some(true) {
            return Ok(None);
        }
        for _ in 0..ROUNDS {
            if let Some(answer) = self.decide(who) {
                self.write_if_due(who).await?;
                return Ok(Some(answer));
            }
            self.write(who, true).await?;
        }
        // Others were quicker each time.
        Ok(Some(self.later()))
    }

    /// What a sidecar is told whose mailbox is not the one its route names.
    pub fn later(&self) -> Allotment {
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Allotment {
            short_of: Some(ShortOf::Messages),
            again_millis: millis(self.terms.poll()),
            cut_millis: millis(self.terms.cut()),
            ..Allotment::default()
        }
    }

    /// Nothing when it has to be written down first.
    fn decide(&self, who: &Claimant) -> Option<Allotment> {
        let now = self.clock.now();
        match self.with(&who.mailbox, |ledger| ledger.decide(who.holder, now))? {
            Decision::Answer(answer) => Some(answer),
            Decision::NeedsWrite => None,
        }
    }

    async fn write_if_due(&self, who: &Claimant) -> Result<(), Error> {
        let now = self.clock.now();
        if self.with(&who.mailbox, |ledger| ledger.is_due(now)) == Some(true) {
            self.write(who, false).await?;
        }
        Ok(())
    }

    /// Writes the ledger down. Who was waiting for somebody else's write looks first whether that was enough.
    async fn write(&self, who: &Claimant, wanted: bool) -> Result<(), Error> {
        let turn = self.turn(&who.mailbox);
        let written = self.with(&who.mailbox, |ledger| ledger.writes());
        let _turn = turn.lock().await;
        if written != self.with(&who.mailbox, |ledger| ledger.writes()) {
            return Ok(());
        }
        let (now, asks) = (self.clock.now(), wanted.then_some(who.holder));
        let Some(record) = self.with(&who.mailbox, |ledger| ledger.record(asks, now)) else { return Ok(()) };
        self.books.write(&who.mailbox, &record).await?;
        let now = self.clock.now();
        self.with(&who.mailbox, |ledger| ledger.recorded(&record, now));
        Ok(())
    }

    /// Reads a ledger that is not here yet.
    async fn open(&self, mailbox: &Key) -> Result<(), Error> {
        if self.with(mailbox, |_| ()).is_some() {
            return Ok(());
        }
        let turn = self.turn(mailbox);
        let _turn = turn.lock().await;
        if self.with(mailbox, |_| ()).is_some() {
            return Ok(());
        }
        let page = self.books.read(mailbox).await?;
        let now = self.clock.now();
        let mut ledger = match page {
            Page::Written(record) => Ledger::restore(self.terms, &record, now),
            Page::Blank => Ledger::new(self.terms),
            Page::Lost(until) => Ledger::lost(self.terms, until.unwrap_or(now).min(now)),
        };
        ledger.expect(lock(&self.living).get(mailbox).into_iter().flatten().copied(), now);
        lock(&self.mailboxes).insert(mailbox.clone(), ledger);
        Ok(())
    }

    /// A sidecar whose route names another mailbox now has left the one before.
    fn moved(&self, who: &Claimant, claim: &Claim) {
        let before = {
            let mut claimed = lock(&self.claimed);
            if claim.leaving {
                claimed.remove(&who.holder)
            } else {
                claimed.insert(who.holder, who.mailbox.clone())
            }
        };
        if let Some(before) = before.filter(|before| *before != who.mailbox) {
            let now = self.clock.now();
            self.with(&before, |ledger| ledger.forget(who.holder, now));
        }
    }

    /// Forgets the sidecars that are not among the living, now and then, and looks which of these were never heard. `living` is
    /// asked for only if it is time.
    pub fn sweep(&self, living: impl FnOnce() -> HashMap<Key, Vec<Living>>) {
        let now = self.clock.now();
        {
            let mut swept = lock(&self.swept);
            if now < *swept + self.terms.idle() {
                return;
            }
            *swept = now;
        }
        let living = living();
        let holders: HashSet<Holder> = living.values().flatten().map(|one| one.holder).collect();
        let mut mailboxes = lock(&self.mailboxes);
        for (key, ledger) in mailboxes.iter_mut() {
            ledger.forget_unless(|holder| holders.contains(&holder), now);
            ledger.expect(living.get(key).into_iter().flatten().copied(), now);
        }
        mailboxes.tidy(now);
        lock(&self.claimed).retain(|holder, _| holders.contains(holder));
        lock(&self.writing).retain(|_, turn| Arc::strong_count(turn) > 1);
        *lock(&self.living) = living;
    }

    /// How the limits of a mailbox are used; nothing when nobody has claimed any of it here.
    pub fn view(&self, mailbox: &Key) -> Option<View> {
        let now = self.clock.now();
        self.with(mailbox, |ledger| ledger.view(now))
    }

    fn with<T>(&self, mailbox: &Key, what: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
        lock(&self.mailboxes).ledger(mailbox).map(what)
    }

    fn turn(&self, mailbox: &Key) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.writing).entry(mailbox.clone()).or_default())
    }
}

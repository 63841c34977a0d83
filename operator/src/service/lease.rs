//! Claims in, allotments out. Reads a mailbox's ledger when it is first needed, and stores its record before anything of it is
//! granted.
//!
//! Owns the clock, and which mailboxes there are: at most [`MOST_MAILBOXES`] for each namespace whose pods were the first to send as
//! them. What is granted is decided in [`mailroute_quota::server`]. No mailbox waits for another.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_entra::clock::Steady;
use mailroute_quota::Timing;
use mailroute_quota::server::MailboxView;
use mailroute_quota::server::application::Holders;
use mailroute_quota::server::grant::Decision;
use mailroute_quota::server::limits::{MailboxLimits, Namespace, SidecarId};
use mailroute_quota::server::reserve::RunningSidecar;
use mailroute_route::control::{Allotment, Claim, ShortOf, Throttled};

use super::application::{Applications, CONNECTIONS};
use super::claimed::ClaimedMailboxes;
use super::ids::{ApplicationKey, MailboxKey};
use super::ledger_store::LedgerStore;
use super::mailbox::{Mailbox, MailboxContext, StoreTask, Unwritten};
use crate::lock;
use crate::rate_limit::RateLimit;

/// Decisions about one claim before the sidecar is told to ask again. Two are needed when a record has to be stored.
const ROUNDS: usize = 4;

/// Most mailboxes that pods of one namespace were the first to send as within a day.
pub const MOST_MAILBOXES: usize = 100;

/// Records that claims of one namespace may have written at once, and the time after which one more may be: each mailbox that its pods
/// were the first to send as once in ten seconds.
const WRITES: (u32, Duration) = (MOST_MAILBOXES as u32, Duration::from_millis(100));

/// How long a sidecar whose route was deleted still gets leases: enough to empty its queue. A pod that ends has less time.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// How often the stored mailboxes are listed.
const LIST_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Stored mailboxes that one sweep reads to see whether they can be removed.
const READ_AT_ONCE: usize = 4;

/// A sidecar that claims, and for which mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claimant {
    /// The sidecar.
    pub holder: SidecarId,
    /// The namespace of its pod and its route.
    pub namespace: Namespace,
    /// Name of its route.
    pub route: String,
    /// The mailbox that the route names.
    pub mailbox: MailboxKey,
    /// Its address, as the route writes it.
    pub address: String,
    /// All mailboxes of the route. What the sidecar has of others it gives back.
    pub of_route: Vec<MailboxKey>,
    /// The limits that the route names.
    pub limits: MailboxLimits,
    /// The application whose connections are limited, too; none but with Microsoft Graph.
    pub application: Option<ApplicationKey>,
}

/// What runs, as far as leases go.
#[derive(Debug, Default)]
pub struct RunningPods {
    /// The sidecars of the pods that have not ended.
    pub pods: HashSet<SidecarId>,
    /// The sidecars that run, by the mailbox of their route.
    pub by_mailbox: HashMap<MailboxKey, Vec<RunningSidecar>>,
    /// The mailboxes of them by application, where an application's connections are limited.
    pub applications: HashMap<ApplicationKey, HashSet<MailboxKey>>,
}

/// Answers claims of all mailboxes.
pub struct Leases {
    context: Arc<MailboxContext>,
    mailboxes: Mutex<HashMap<MailboxKey, Arc<Mailbox>>>,
    /// Locked before `mailboxes`.
    applications: Mutex<Applications>,
    /// The stored mailboxes, each with the namespace whose pod was the first to send as it.
    opened: Arc<Mutex<HashMap<MailboxKey, Namespace>>>,
    /// The last claim of each sidecar on each mailbox by an accepted route, and when it was made.
    claimed: Mutex<ClaimedMailboxes>,
    /// How often claims of each namespace have a record stored.
    writes: Mutex<RateLimit<Namespace>>,
    /// The namespaces that were logged for too many mailboxes.
    warned: Mutex<HashSet<Namespace>>,
    swept: Mutex<Duration>,
    listed: Mutex<Duration>,
    /// The running sidecars of each mailbox, as of the last sweep.
    running: Mutex<HashMap<MailboxKey, Vec<RunningSidecar>>>,
}

impl Leases {
    /// Leases with this timing and this store.
    pub fn new(timing: Timing, store: Arc<dyn LedgerStore>) -> Self {
        Self {
            context: Arc::new(MailboxContext { timing, store, clock: Steady::start() }),
            mailboxes: Mutex::default(),
            applications: Mutex::new(Applications::new(CONNECTIONS, timing)),
            opened: Arc::default(),
            claimed: Mutex::default(),
            writes: Mutex::new(RateLimit::new(WRITES.0, WRITES.1)),
            warned: Mutex::default(),
            swept: Mutex::default(),
            listed: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// The same with at most so many connections of one application at a time.
    #[must_use]
    pub fn with_application_connections(mut self, limit: u32) -> Self {
        self.applications = Mutex::new(Applications::new(limit, self.context.timing));
        self
    }

    /// Answers a claim; nothing if a later claim of the same sidecar was heard before.
    ///
    /// # Errors
    /// When the record cannot be read or stored. Then nothing of this mailbox is granted.
    pub async fn exchange(&self, who: &Claimant, claim: &Claim) -> Result<Option<Allotment>, Unwritten> {
        let mailbox = self.mailbox(&who.mailbox, &who.namespace);
        let Some(mailbox) = mailbox else { return Ok(Some(self.later())) };
        if !mailbox.is_known() {
            mailbox.run(&self.context, StoreTask::Open, self.running(&who.mailbox)).await?;
        }
        self.moved(who, claim);
        let now = self.now();
        let heard = mailbox.with(|ledger| {
            ledger.set_limits(&who.namespace, &who.route, who.limits, now);
            ledger.claim(&who.namespace, who.holder, claim, now)
        });
        if !heard.ok_or(Unwritten)? {
            return Ok(None);
        }
        if let (Some(application), Some(Throttled::Connections)) = (&who.application, claim.throttled) {
            lock(&self.applications).throttled(application, &who.namespace, now);
        }
        for _ in 0..ROUNDS {
            if mailbox.is_retired() {
                break;
            }
            let now = self.now();
            match self.decide(&mailbox, who, now).ok_or(Unwritten)? {
                Decision::Answer(answer) => {
                    if mailbox.with(|ledger| ledger.is_due(now)) == Some(true) {
                        // No request waits for it.
                        let _ = mailbox.begin(&self.context, StoreTask::Write(None), vec![]);
                    }
                    return Ok(Some(answer));
                }
                // What is being written may be what it needs.
                Decision::NeedsWrite if !mailbox.is_busy() && !self.may_write(&who.namespace) => break,
                Decision::NeedsWrite => {
                    mailbox
                        .run(&self.context, StoreTask::Write(Some(who.holder)), self.running(&who.mailbox))
                        .await?;
                }
            }
        }
        // Others were quicker each time, or its namespace has had enough written.
        Ok(Some(self.later()))
    }

    /// Decides on a claim; nothing before the ledger is read.
    fn decide(&self, mailbox: &Mailbox, who: &Claimant, now: Duration) -> Option<Decision> {
        let Some(application) = &who.application else {
            return mailbox.with(|ledger| ledger.decide(who.holder, now));
        };
        let mut applications = lock(&self.applications);
        let mailboxes: Vec<Arc<Mailbox>> = {
            let known = lock(&self.mailboxes);
            let keys = applications.mailboxes(application, &who.mailbox, now).iter();
            keys.filter_map(|key| known.get(key).map(Arc::clone)).collect()
        };
        let holders = mailboxes.iter().filter_map(|it| it.with(|ledger| ledger.holders(now)));
        let mut holders: Holders = holders.flatten().collect();
        {
            // Of a holder that an earlier leader's record names, it is not known whether it uses the application.
            let claimed = lock(&self.claimed);
            let uses = |it: &Claimant| it.application.as_ref() == Some(application);
            holders.retain(|holder, _| claimed.of(*holder).is_none_or(|mut of| of.any(|(it, _)| uses(it))));
        }
        let connections = applications.connections(application, holders, now);
        mailbox.with(|ledger| ledger.decide_within(who.holder, Some(connections), now))
    }

    /// The answer to a sidecar whose mailbox is not the one that its route names.
    pub fn later(&self) -> Allotment {
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Allotment {
            short_of: Some(ShortOf::Messages),
            again_millis: millis(self.context.timing.poll_interval()),
            cut_millis: millis(self.context.timing.cut_off()),
            ..Allotment::default()
        }
    }

    /// The last claim of this sidecar on the mailbox `address` by this route while the route was accepted, if that is not long ago.
    pub fn remembered(
        &self,
        holder: SidecarId,
        namespace: &str,
        route: &str,
        address: &str,
    ) -> Option<Claimant> {
        let now = self.now();
        let claimed = lock(&self.claimed);
        let (who, at) = claimed.of(holder)?.find(|(who, _)| who.address.eq_ignore_ascii_case(address))?;
        let is_it = &*who.namespace == namespace && who.route == route && now < at + REMEMBERED;
        is_it.then(|| Claimant { holder, ..who.clone() })
    }

    /// Notes a claim by an accepted route.
    pub fn remember(&self, who: &Claimant) {
        // `moved` gives back what it had of another mailbox.
        lock(&self.claimed).renew(who, self.now());
    }

    /// A mailbox that pods of a namespace send as; none if the namespace has opened too many.
    fn mailbox(&self, key: &MailboxKey, namespace: &Namespace) -> Option<Arc<Mailbox>> {
        let mut mailboxes = lock(&self.mailboxes);
        if let Some(mailbox) = mailboxes.get(key) {
            return Some(Arc::clone(mailbox));
        }
        let mut opened = lock(&self.opened);
        let opened_by = match opened.get(key) {
            Some(opened_by) => opened_by.clone(),
            None if opened.values().filter(|it| *it == namespace).count() >= MOST_MAILBOXES => {
                if lock(&self.warned).insert(namespace.clone()) {
                    let namespace = &**namespace;
                    tracing::warn!(
                        namespace,
                        "no lease: pods of this namespace have used {MOST_MAILBOXES} new mailboxes within a day, which is \
                         the limit"
                    );
                }
                return None;
            }
            None => namespace.clone(),
        };
        opened.insert(key.clone(), opened_by.clone());
        let mailbox = Mailbox::new(key.clone(), opened_by);
        mailboxes.insert(key.clone(), Arc::clone(&mailbox));
        Some(mailbox)
    }

    /// Notes a claim, and forgets the sidecar in mailboxes that its route named before and names no longer.
    fn moved(&self, who: &Claimant, claim: &Claim) {
        let now = self.now();
        let left = lock(&self.claimed).claims(who, claim.leaving, now);
        for left in left {
            let left = lock(&self.mailboxes).get(&left).map(Arc::clone);
            left.and_then(|left| left.with(|ledger| ledger.forget(who.holder, now)));
        }
    }

    /// Now and then: forgets sidecars whose pods are gone, notes those that run, and removes mailboxes that were not used for a day.
    /// `look` is called only when a sweep is due.
    pub fn sweep(&self, look: impl FnOnce() -> RunningPods) {
        let now = self.now();
        {
            let mut swept = lock(&self.swept);
            if now < *swept + self.context.timing.idle_interval() {
                return;
            }
            *swept = now;
        }
        let RunningPods { pods, by_mailbox: running, applications } = look();
        let mailboxes: Vec<_> =
            lock(&self.mailboxes).iter().map(|(key, it)| (key.clone(), Arc::clone(it))).collect();
        for (key, mailbox) in mailboxes {
            let is_empty = mailbox.with(|ledger| {
                ledger.forget_unless(|holder| pods.contains(&holder), now);
                ledger.expect(running.get(&key).into_iter().flatten().cloned(), now);
                ledger.is_empty(now)
            });
            if mailbox.is_retired() {
                lock(&self.mailboxes).remove(&key);
                lock(&self.opened).remove(&key);
            } else if is_empty != Some(false) {
                // The next sweep tries again what fails.
                let _ = mailbox.begin(&self.context, StoreTask::Remove, vec![]);
            }
        }
        lock(&self.claimed).retain(|holder| pods.contains(&holder));
        let new = lock(&self.applications).sweep(applications, now);
        for key in new {
            let sidecars = running.get(&key).cloned().unwrap_or_default();
            let first = sidecars.first().map(|it| it.namespace.clone());
            if let Some(mailbox) = first.and_then(|namespace| self.mailbox(&key, &namespace)) {
                // Its leases count as soon as they are read. If that fails, the next claim tries again.
                let _ = mailbox.begin(&self.context, StoreTask::Open, sidecars);
            }
        }
        *lock(&self.running) = running;
        self.look_at_stored(now);
    }

    /// Lists the stored mailboxes now and then, and reads a few of those that no claim has named, so that unused ones are removed.
    fn look_at_stored(&self, now: Duration) {
        let is_time = {
            let mut listed = lock(&self.listed);
            let is_time = now >= *listed + LIST_INTERVAL;
            *listed = if is_time { now } else { *listed };
            is_time
        };
        if is_time {
            lock(&self.warned).clear();
            let (context, opened) = (Arc::clone(&self.context), Arc::clone(&self.opened));
            tokio::spawn(async move {
                match context.store.list().await {
                    Ok(found) => {
                        let mut opened = lock(&opened);
                        for (key, namespace) in found {
                            opened.entry(key).or_insert(namespace);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "cannot list the MailboxUsages"),
                }
            });
        }
        let unread: Vec<_> = {
            let (mailboxes, opened) = (lock(&self.mailboxes), lock(&self.opened));
            let unread = opened.iter().filter(|(key, _)| !mailboxes.contains_key(key));
            unread.take(READ_AT_ONCE).map(|(key, namespace)| (key.clone(), namespace.clone())).collect()
        };
        for (key, namespace) in unread {
            let mailbox = Mailbox::new(key.clone(), namespace);
            let mailbox = Arc::clone(lock(&self.mailboxes).entry(key.clone()).or_insert(mailbox));
            let _ = mailbox.begin(&self.context, StoreTask::Open, self.running(&key));
        }
    }

    /// How the limits of a mailbox are used; nothing if this replica had no claim for it.
    pub fn view(&self, mailbox: &MailboxKey) -> Option<MailboxView> {
        let now = self.now();
        let mailbox = lock(&self.mailboxes).get(mailbox).map(Arc::clone)?;
        mailbox.with(|ledger| ledger.view(now))
    }

    fn may_write(&self, namespace: &Namespace) -> bool {
        lock(&self.writes).allows(namespace, tokio::time::Instant::now().into_std())
    }

    fn running(&self, mailbox: &MailboxKey) -> Vec<RunningSidecar> {
        lock(&self.running).get(mailbox).cloned().unwrap_or_default()
    }

    fn now(&self) -> Duration {
        self.context.clock.now()
    }
}

#[cfg(test)]
mod tests;

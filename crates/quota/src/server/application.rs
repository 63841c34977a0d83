//! The connections of one application, over all mailboxes that it sends as.
//!
//! Microsoft Graph limits how many requests of one application are under way at a time, whichever mailboxes they are for. So the ledgers
//! of these mailboxes ask here before they lease another connection ([`Ledger::decide_within`]). As in a mailbox, the namespace that
//! has least goes first, in it the sidecar that has waited longest: no mailbox starves. After Microsoft throttled a namespace's
//! requests, that namespace has fewer for some minutes; one that does not tell the truth slows itself down.
//!
//! The caller says who holds a connection: every sidecar with a lease of one of these mailboxes, those of an earlier leader's records
//! included. Time slots are not counted, as they are a mailbox's: each uses one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Ledger;
use super::limits::{MailboxLimits, NO_LIMIT, Namespace, SidecarId};
use super::wait_queue::{Demand, NamespaceUse, WaitQueue};
use crate::throttle::Throttle;
use crate::timing::Timing;

/// Sidecars that hold a connection, each with the namespace of its pod.
pub type Holders = BTreeMap<SidecarId, Namespace>;

/// One namespace's part of an application.
#[derive(Clone, Copy, Debug, Default)]
struct ApplicationShare {
    throttle: Throttle,
    /// When it was last granted a connection.
    served: Duration,
}

/// The connections of one application.
#[derive(Clone, Debug)]
pub struct Application {
    timing: Timing,
    limit: u32,
    /// Nothing is granted before: leases of an earlier leader are named meanwhile.
    opens: Duration,
    holders: Holders,
    queue: WaitQueue,
    shares: BTreeMap<Namespace, ApplicationShare>,
}

impl Application {
    /// An application with at most so many connections, of which an earlier leader may have granted some.
    pub fn new(limit: u32, timing: Timing, now: Duration) -> Self {
        Self {
            timing,
            limit: limit.max(1),
            opens: now + timing.scan_interval(),
            holders: Holders::new(),
            queue: WaitQueue::default(),
            shares: BTreeMap::new(),
        }
    }

    /// Notes who holds a connection.
    pub fn set_holders(&mut self, holders: Holders) {
        self.holders = holders;
    }

    /// Notes that Microsoft found that this namespace's sidecars send too much at a time.
    pub fn throttled(&mut self, namespace: &Namespace, now: Duration) {
        let minute = self.timing.minute;
        self.shares.entry(namespace.clone()).or_default().throttle.throttled(now, minute);
    }

    /// Checks whether a sidecar may have a connection now.
    ///
    /// # Errors
    /// Not now; and how long until it is worth asking again.
    pub(super) fn connect(
        &mut self,
        who: SidecarId,
        namespace: &Namespace,
        now: Duration,
    ) -> Result<(), Duration> {
        if self.holders.contains_key(&who) {
            return Ok(());
        }
        if now < self.opens {
            return Err((self.opens - now).max(self.timing.poll_interval()));
        }
        self.queue.add(who, namespace, Demand { messages: 1, recipients: 1 }, now);
        let uses = self.uses(now);
        let limits =
            MailboxLimits { connections: self.limit, messages: NO_LIMIT, ..MailboxLimits::PUBLISHED };
        let place = self.queue.position(who, now, &uses, limits);
        let room = uses.get(namespace).map_or(0, |own| own.room);
        let free = (self.limit as usize).saturating_sub(self.holders.len());
        let poll = self.timing.poll_interval();
        // Longer than a record takes to be stored.
        let patience = self.timing.poll_interval() + 2 * self.timing.scan_interval();
        if free > place.before && room > place.in_namespace {
            self.queue.expect(who, now + patience);
            return Ok(());
        }
        let before = u32::try_from(place.before).unwrap_or(u32::MAX);
        let again = poll.saturating_mul(before) / (2 * self.limit);
        let again = again.clamp(poll / 2, self.timing.idle_interval());
        self.queue.expect(who, now + again + patience);
        Err(again)
    }

    /// Notes that a sidecar was granted a connection.
    pub(super) fn granted(&mut self, who: SidecarId, namespace: &Namespace, now: Duration) {
        self.queue.remove(who);
        self.holders.insert(who, namespace.clone());
        self.shares.entry(namespace.clone()).or_default().served = now;
    }

    /// Notes that a sidecar does not wait for a connection.
    pub(super) fn leaves(&mut self, who: SidecarId) {
        self.queue.remove(who);
    }

    /// What each namespace has of the application, and how many more it may have.
    fn uses(&mut self, now: Duration) -> BTreeMap<Namespace, NamespaceUse> {
        let (minute, kept) = (self.timing.minute, self.timing.routes_kept());
        let active: BTreeSet<&Namespace> = self.holders.values().chain(self.queue.namespaces()).collect();
        self.shares.retain(|name, share| {
            let last = share.throttle.last().map_or(share.served, |last| last.at.max(share.served));
            active.contains(name) || now < last + kept
        });
        let (limit, count) = (u64::from(self.limit), active.len().max(1) as u64);
        let used = |name: &&Namespace| {
            let connections = self.holders.values().filter(|of| of == name).count() as u64;
            let share = self.shares.get(*name).copied().unwrap_or_default();
            let own = match share.throttle.share(now, minute) {
                part if part < 1.0 => share.throttle.of((limit / count).max(1), now, minute),
                // One is left to the others.
                _ if count > 1 => (limit - 1).max(1),
                _ => limit,
            };
            let room = usize::try_from(own.saturating_sub(connections)).unwrap_or(usize::MAX);
            ((*name).clone(), NamespaceUse { messages: 0, connections, room, served: share.served })
        };
        active.iter().map(used).collect()
    }
}

impl Ledger {
    /// The sidecars that hold a connection by a lease of this mailbox.
    pub fn holders(&mut self, now: Duration) -> Holders {
        self.expire(now);
        let holders = self.leases.values().map(|lease| lease.holder).chain(self.inherited.keys().copied());
        let with_namespace = holders.map(|who| (who, self.namespaces.get(&who).cloned().unwrap_or_default()));
        with_namespace.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::grant::Decision;
    use super::super::record::LedgerRecord;
    use super::super::tests::{LIMITS, at, claim, open, used};
    use super::*;
    use crate::wire::{Allotment, Claim, Lease, LeaseUse, ShortOf};

    const LIMIT: u32 = 4;

    /// Mailboxes with four connections each, and an application that sends as all of them.
    struct Scene {
        ledgers: Vec<Ledger>,
        application: Application,
    }

    impl Scene {
        fn new(mailboxes: usize) -> Self {
            let ledgers = (0..mailboxes).map(|_| Ledger::new(Timing::default())).collect();
            Self { ledgers, application: Application::new(LIMIT, Timing::default(), at(0)) }
        }

        fn holders(&mut self, now: Duration) -> Holders {
            self.ledgers.iter_mut().flat_map(|ledger| ledger.holders(now)).collect()
        }

        fn exchange(
            &mut self,
            mailbox: usize,
            namespace: &str,
            who: u64,
            claim: &Claim,
            now: Duration,
        ) -> Allotment {
            let (namespace, id) = (Namespace::from(namespace), SidecarId(who));
            let limits = MailboxLimits { connections: 4, messages: 1000, ..LIMITS };
            self.ledgers[mailbox].set_limits(&namespace, "r", limits, now);
            assert!(self.ledgers[mailbox].claim(&namespace, id, claim, now));
            if claim.throttled.is_some() {
                self.application.throttled(&namespace, now);
            }
            for _ in 0..2 {
                let holders = self.holders(now);
                self.application.set_holders(holders);
                let ledger = &mut self.ledgers[mailbox];
                match ledger.decide_within(id, Some(&mut self.application), now) {
                    Decision::Answer(answer) => return answer,
                    Decision::NeedsWrite => {
                        let record = ledger.record(Some(id), now);
                        ledger.persisted(&record, now);
                    }
                }
            }
            panic!("a record of what is asked for does not allow it")
        }
    }

    /// Sidecars that each want to send all the time, a message in two seconds. Returns how many messages each sent in two minutes.
    fn rush(scene: &mut Scene, sidecars: &[(usize, &str)], most: usize) -> Vec<u32> {
        let mut sent = vec![0; sidecars.len()];
        let mut held: Vec<Option<(Lease, u64)>> = vec![None; sidecars.len()];
        for second in 10..130 {
            for (who, &(mailbox, namespace)) in sidecars.iter().enumerate() {
                let leases: Vec<LeaseUse> = match held[who] {
                    Some((lease, until)) if second < until => vec![open(lease)],
                    Some((lease, _)) => vec![used(lease, 1)],
                    None => vec![],
                };
                let messages = u32::from(leases.iter().all(|lease| lease.ended));
                let claim = Claim { leases, ..claim(second, messages) };
                let answer = scene.exchange(mailbox, namespace, who as u64, &claim, at(second));
                if messages == 1 {
                    held[who] = answer.lease.map(|lease| (lease, second + 2));
                    sent[who] += u32::from(answer.lease.is_some());
                }
                assert!(scene.holders(at(second)).len() <= most);
            }
        }
        sent
    }

    #[test]
    fn all_mailboxes_together_have_no_more_connections_than_the_application_and_none_starves() {
        let mut sidecars: Vec<(usize, &str)> = vec![(0, "shop"); 12];
        sidecars.extend([(1, "shop"), (2, "other")]);
        let sent = rush(&mut Scene::new(3), &sidecars, LIMIT as usize);
        assert!(sent.iter().sum::<u32>() > 200, "{sent:?}");
        assert!(sent[..13].iter().all(|sent| *sent >= 8), "{sent:?}");
        assert!(sent[13] > 40, "another namespace goes first whenever it has less: {sent:?}");
    }

    #[test]
    fn throttling_of_one_mailbox_shrinks_the_application_for_a_while() {
        let mut scene = Scene::new(3);
        let throttled = Some(crate::wire::Throttled::Connections);
        scene.exchange(0, "shop", 0, &Claim { throttled, ..claim(1, 0) }, at(9));
        for who in 1..=2 {
            assert!(scene.exchange(1, "shop", who, &claim(1, 1), at(10)).lease.is_some());
        }
        let third = scene.exchange(1, "shop", 3, &claim(1, 1), at(10));
        assert_eq!((third.lease, third.short_of), (None, Some(ShortOf::Connections)));
        let other = scene.exchange(1, "other", 4, &claim(1, 1), at(10));
        assert!(other.lease.is_some(), "what one namespace says is not believed of another");
        // By then all of these leases are over.
        for who in 1..=4 {
            assert!(scene.exchange(2, "shop", 10 + who, &claim(1, 1), at(700)).lease.is_some());
        }
    }

    #[test]
    fn leases_of_an_earlier_leader_count_and_a_mailbox_that_is_short_keeps_nobody_waiting() {
        let mut old = Scene::new(2);
        for who in 1..=4 {
            assert!(old.exchange(0, "shop", who, &claim(1, 1), at(10)).lease.is_some());
        }
        let text = old.ledgers[0].record(None, at(11)).print();
        let record = LedgerRecord::parse(&text).unwrap();
        let mut new = Scene::new(2);
        new.ledgers[0] = Ledger::restore(Timing::default(), &record, at(12));
        new.application = Application::new(LIMIT, Timing::default(), at(12));
        assert_eq!(new.exchange(1, "shop", 9, &claim(1, 1), at(20)).lease, None);
        assert!(
            new.exchange(1, "shop", 9, &claim(2, 1), at(90)).lease.is_some(),
            "they can be in use no more"
        );
    }
}

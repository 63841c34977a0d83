//! The mailboxes that each sidecar claimed last, in memory. What the claims of pods of one route have in common is there once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mailroute_quota::server::limits::SidecarId;

use super::ids::MailboxKey;
use super::lease::Claimant;

/// The last claims of all sidecars.
#[derive(Debug, Default)]
pub(super) struct ClaimedMailboxes {
    by_sidecar: HashMap<SidecarId, Vec<LastClaim>>,
    /// Each with [`SidecarId`] 0 in place of the holder's.
    claimants: HashSet<Arc<Claimant>>,
}

/// The last claim of one mailbox.
#[derive(Debug)]
struct LastClaim {
    who: Arc<Claimant>,
    at: Duration,
}

impl ClaimedMailboxes {
    /// What a sidecar claimed, and when; nothing when it is not known. The holder is not in it.
    pub(super) fn of(&self, holder: SidecarId) -> Option<impl Iterator<Item = (&Claimant, Duration)>> {
        Some(self.by_sidecar.get(&holder)?.iter().map(|claim| (&*claim.who, claim.at)))
    }

    /// A route that is accepted made the last claim again.
    pub(super) fn renew(&mut self, who: &Claimant, now: Duration) {
        let claims = self.by_sidecar.get_mut(&who.holder).into_iter().flatten();
        for claim in claims.filter(|claim| *claim.who == common(who)) {
            claim.at = now;
        }
    }

    /// Notes a claim. Returns the mailboxes that the sidecar had before and that its route names no longer.
    pub(super) fn claims(&mut self, who: &Claimant, is_leaving: bool, now: Duration) -> Vec<MailboxKey> {
        let common = self.share(common(who));
        let claims = self.by_sidecar.entry(who.holder).or_default();
        let place = claims.iter().position(|claim| claim.who.mailbox == who.mailbox);
        match place {
            Some(place) if is_leaving => drop(claims.swap_remove(place)),
            // A claim by a deleted route does not extend the time.
            Some(place) => claims[place].who = common,
            None if is_leaving => {}
            None => {
                claims.reserve_exact(1);
                claims.push(LastClaim { who: common, at: now });
            }
        }
        let stays = |key: &MailboxKey| *key == who.mailbox || who.of_route.contains(key);
        let left = claims.iter().map(|claim| &claim.who.mailbox).filter(|key| !stays(key)).cloned().collect();
        claims.retain(|claim| stays(&claim.who.mailbox));
        if claims.is_empty() {
            self.by_sidecar.remove(&who.holder);
        }
        left
    }

    /// Forgets the sidecars that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(SidecarId) -> bool) {
        self.by_sidecar.retain(|holder, _| is_there(*holder));
        self.claimants.retain(|claimant| Arc::strong_count(claimant) > 1);
    }

    fn share(&mut self, claimant: Claimant) -> Arc<Claimant> {
        if let Some(known) = self.claimants.get(&claimant) {
            return Arc::clone(known);
        }
        let claimant = Arc::new(claimant);
        self.claimants.insert(Arc::clone(&claimant));
        claimant
    }
}

/// The claimant without what is the sidecar's own.
fn common(who: &Claimant) -> Claimant {
    Claimant { holder: SidecarId(0), ..who.clone() }
}

#[cfg(test)]
mod tests {
    use mailroute_quota::server::limits::MailboxLimits;

    use super::*;

    fn claimant(holder: u64, address: &str, of_route: &[&str]) -> Claimant {
        let key = |address: &str| MailboxKey::of("contoso.com", address);
        Claimant {
            holder: SidecarId(holder),
            namespace: "shop".into(),
            route: "notifications".into(),
            mailbox: key(address),
            address: address.into(),
            of_route: of_route.iter().map(|address| key(address)).collect(),
            limits: MailboxLimits::LEAST,
            application: None,
        }
    }

    #[test]
    fn claims_of_one_route_are_in_memory_once_until_the_last_pod_is_gone() {
        let mut claimed = ClaimedMailboxes::default();
        for holder in 0..5 {
            assert_eq!(claimed.claims(&claimant(holder, "a", &["a"]), false, Duration::ZERO), vec![]);
        }
        assert_eq!((claimed.by_sidecar.len(), claimed.claimants.len()), (5, 1));
        claimed.retain(|holder| holder == SidecarId(3));
        assert_eq!((claimed.by_sidecar.len(), claimed.claimants.len()), (1, 1));
        claimed.claims(&claimant(3, "a", &["a"]), true, Duration::ZERO);
        claimed.retain(|_| true);
        assert_eq!((claimed.by_sidecar.len(), claimed.claimants.len()), (0, 0));
    }

    #[test]
    fn mailboxes_that_the_route_names_no_longer_are_left() {
        let mut claimed = ClaimedMailboxes::default();
        claimed.claims(&claimant(1, "a", &["a", "b"]), false, Duration::ZERO);
        assert_eq!(claimed.claims(&claimant(1, "b", &["a", "b"]), false, Duration::ZERO), vec![]);
        let left = claimed.claims(&claimant(1, "b", &["b"]), false, Duration::ZERO);
        assert_eq!(left, [MailboxKey::of("contoso.com", "a")]);
        assert_eq!(claimed.of(SidecarId(1)).unwrap().count(), 1);
    }

    #[test]
    fn only_a_claim_by_an_accepted_route_is_newer() {
        let (mut claimed, who) = (ClaimedMailboxes::default(), claimant(1, "a", &["a"]));
        let at = |claimed: &ClaimedMailboxes| claimed.of(SidecarId(1)).unwrap().next().unwrap().1;
        for (second, is_accepted, expected) in [(1, false, 1), (2, false, 1), (3, true, 3)] {
            let now = Duration::from_secs(second);
            claimed.claims(&who, false, now);
            if is_accepted {
                claimed.renew(&who, now);
            }
            assert_eq!(at(&claimed), Duration::from_secs(expected));
        }
    }
}

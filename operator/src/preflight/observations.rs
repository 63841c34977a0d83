//! What was found at each domain of a route, and when to look again. In memory; time is passed in.
//!
//! The controller reads it, [`super::rounds`] fills it. A change of leader loses it; the condition that stands in the
//! status stays until it is known anew.
//!
//! Invariants: no domain is looked at more often than once in [`SHORTEST`] for a namespace, whatever addresses its sidecars
//! report, except for the first `AT_ONCE` changes of them; no namespace has more than `OF_A_NAMESPACE` of the looks of a round; a
//! look that fails does not at once replace what an earlier one found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_operator_core::status::DnsNotice;
use tokio::time::Instant;

use super::need::DnsNeed;
use super::verdict::{DomainStanding, verdict};
use crate::lock;

/// Least time between two looks at a domain.
pub const SHORTEST: Duration = Duration::from_secs(60);

/// Longest time until the next look at a domain without findings, whatever the time to live of its records.
const LONGEST: Duration = Duration::from_secs(3600);

/// Longest time until the next look at a domain with findings: somebody may be correcting them.
const LONGEST_WRONG: Duration = Duration::from_secs(300);

/// Longest time until the next look after failures, whose pauses grow.
const LONGEST_FAILED: Duration = Duration::from_secs(900);

/// Looks of one round that one namespace may have: routes with many domains, or slow ones, delay only their own namespace.
const OF_A_NAMESPACE: usize = 4;

/// Changes of the addresses that are followed by a look at once.
const AT_ONCE: u32 = 3;

/// Looks in a row that may fail before what was found earlier is no longer shown.
const PATIENCE: u32 = 3;

/// The observations, shared. The default has none, and nobody looks.
#[derive(Clone, Debug, Default)]
pub struct DnsObservations(Option<Arc<Mutex<BTreeMap<DnsNeed, Entry>>>>);

/// What one look at a domain found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsLook {
    /// How the domain stands.
    pub standing: DomainStanding,
    /// How long that is good, when there were records.
    pub ttl: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Where the routes are that have this need.
    namespaces: BTreeSet<String>,
    standing: Option<DomainStanding>,
    failures: u32,
    /// When it was looked at last.
    looked: Option<Instant>,
    /// How often the addresses have changed.
    changed: u32,
    due: Instant,
}

impl DnsObservations {
    /// Observations that somebody fills.
    pub fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// What is known for a route with these needs.
    pub fn notice(&self, needs: &BTreeSet<DnsNeed>) -> DnsNotice {
        let Some(board) = self.0.as_ref().filter(|_| !needs.is_empty()) else { return DnsNotice::None };
        let board = lock(board);
        let standings: Option<Vec<_>> = needs.iter().map(|need| board.get(need)?.standing.as_ref()).collect();
        standings.map_or(DnsNotice::Pending, |standings| DnsNotice::Known(verdict(standings)))
    }

    /// Takes up new needs, with the namespaces that have them, and forgets those that nobody has any more. A new one is due
    /// at once; one that differs in the addresses from what its namespaces had is as it was, and due no sooner than allowed.
    pub fn keep(&self, needs: &BTreeMap<DnsNeed, BTreeSet<String>>, now: Instant) {
        let Some(board) = &self.0 else { return };
        let mut board = lock(board);
        let before = board.clone();
        board.retain(|need, _| needs.contains_key(need));
        for (need, namespaces) in needs {
            let entry =
                board.entry(need.clone()).or_insert_with(|| Entry::new(need, namespaces, &before, now));
            entry.namespaces.clone_from(namespaces);
        }
    }

    /// Up to `most` needs to look at now, those first that were never looked at, then the longest due; of each namespace no
    /// more than its share.
    pub fn due(&self, now: Instant, most: usize) -> Vec<DnsNeed> {
        let Some(board) = &self.0 else { return Vec::new() };
        let board = lock(board);
        let mut due: Vec<_> = board.iter().filter(|(_, entry)| entry.due <= now).collect();
        due.sort_by_key(|(_, entry)| (entry.standing.is_some(), entry.due));
        let mut taken = HashMap::<&str, usize>::new();
        let mut chosen = Vec::new();
        for (need, entry) in due {
            // What several have in common counts for the one that has had the least.
            let least = entry.namespaces.iter().min_by_key(|name| taken.get(name.as_str()).copied());
            let count = taken.entry(least.map_or("", String::as_str)).or_default();
            if *count < OF_A_NAMESPACE && chosen.len() < most {
                *count += 1;
                chosen.push(need.clone());
            }
        }
        chosen
    }

    /// When the next look is due.
    pub fn next_due(&self) -> Option<Instant> {
        let board = self.0.as_ref()?;
        lock(board).values().map(|entry| entry.due).min()
    }

    /// Stores what a look found, and returns whether the status of routes has to be written. `chance`, from 0 to 1, spreads the next looks.
    pub fn put(&self, need: &DnsNeed, look: DnsLook, now: Instant, chance: f64) -> bool {
        let Some(board) = &self.0 else { return false };
        let mut board = lock(board);
        let Some(entry) = board.get_mut(need) else { return false };
        let before = entry.standing.clone();
        entry.take(look, now, chance);
        before != entry.standing
    }
}

impl Entry {
    fn new(
        need: &DnsNeed,
        namespaces: &BTreeSet<String>,
        before: &BTreeMap<DnsNeed, Self>,
        now: Instant,
    ) -> Self {
        let mut alike = before
            .iter()
            .filter(|(other, entry)| need.is_like(other) && !entry.namespaces.is_disjoint(namespaces));
        match alike.next() {
            // Failures are spaced out all the same.
            Some((_, entry)) if entry.failures > 0 => entry.clone(),
            Some((_, entry)) => {
                let soonest =
                    entry.looked.filter(|_| entry.changed >= AT_ONCE).map(|looked| looked + SHORTEST);
                let due = soonest.map_or(now, |soonest| soonest.max(now));
                Self { due, changed: entry.changed.saturating_add(1), ..entry.clone() }
            }
            None => Self {
                namespaces: namespaces.clone(),
                standing: None,
                failures: 0,
                looked: None,
                changed: 0,
                due: now,
            },
        }
    }

    fn take(&mut self, look: DnsLook, now: Instant, chance: f64) {
        self.looked = Some(now);
        let failed = look.standing.failure.is_some();
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.due = now + pause(&look, self.failures).mul_f64(0.9 + 0.2 * chance);
        let keeps = failed
            && self.failures < PATIENCE
            && self.standing.as_ref().is_some_and(|standing| standing.failure.is_none());
        if !keeps {
            self.standing = Some(look.standing);
        }
    }
}

/// How long to wait after a look.
fn pause(look: &DnsLook, failures: u32) -> Duration {
    if failures > 0 {
        return SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_FAILED);
    }
    let longest = if look.standing.findings.is_empty() { LONGEST } else { LONGEST_WRONG };
    look.ttl.unwrap_or(longest).clamp(SHORTEST, longest)
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;

    use super::super::finding::DnsFinding;
    use super::*;

    const EVEN: f64 = 0.5;

    fn need(domain: &str) -> DnsNeed {
        DnsNeed {
            domain: domain.into(),
            service: "spf.protection.outlook.com",
            is_signed: true,
            names_smart_host: false,
            addresses: BTreeSet::new(),
        }
    }

    fn keep(board: &DnsObservations, needs: &BTreeSet<DnsNeed>, now: Instant) {
        keep_of(board, &[("shop", needs)], now);
    }

    fn keep_of(board: &DnsObservations, of: &[(&str, &BTreeSet<DnsNeed>)], now: Instant) {
        let mut all = BTreeMap::<DnsNeed, BTreeSet<String>>::new();
        for (namespace, needs) in of {
            needs.iter().for_each(|need| {
                all.entry(need.clone()).or_default().insert((*namespace).to_owned());
            });
        }
        board.keep(&all, now);
    }

    fn from(last: u8) -> BTreeSet<DnsNeed> {
        let addresses = BTreeSet::from([std::net::IpAddr::from([203, 0, 113, last])]);
        BTreeSet::from([DnsNeed { addresses, ..need("contoso.com") }])
    }

    fn good(ttl: u64) -> DnsLook {
        DnsLook { standing: DomainStanding::default(), ttl: Some(Duration::from_secs(ttl)) }
    }

    fn wrong() -> DnsLook {
        let findings = vec![DnsFinding::no_domain("contoso.com")];
        DnsLook { standing: DomainStanding { findings, failure: None }, ttl: None }
    }

    fn failed() -> DnsLook {
        DnsLook {
            standing: DomainStanding { findings: vec![], failure: Some("no answer".into()) },
            ttl: None,
        }
    }

    fn reason(board: &DnsObservations, needs: &BTreeSet<DnsNeed>) -> Option<Reason> {
        match board.notice(needs) {
            DnsNotice::Known(verdict) => Some(verdict.reason),
            DnsNotice::Pending | DnsNotice::None => None,
        }
    }

    #[test]
    fn nobody_looks_and_a_route_without_domains_are_no_notice() {
        let needs = BTreeSet::from([need("contoso.com")]);
        assert_eq!(DnsObservations::default().notice(&needs), DnsNotice::None);
        assert_eq!(DnsObservations::on().notice(&BTreeSet::new()), DnsNotice::None);
        assert_eq!(DnsObservations::on().notice(&needs), DnsNotice::Pending);
    }

    #[test]
    fn a_route_waits_for_all_of_its_domains() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        let needs = BTreeSet::from([need("a.example"), need("b.example")]);
        keep(&board, &needs, now);
        assert!(board.put(&need("a.example"), good(60), now, EVEN));
        assert_eq!(board.notice(&needs), DnsNotice::Pending);
        assert!(board.put(&need("b.example"), wrong(), now, EVEN));
        assert_eq!(reason(&board, &needs), Some(Reason::DomainNotFound));
        assert!(!board.put(&need("b.example"), wrong(), now, EVEN), "the same again is no news");
    }

    #[test]
    fn new_needs_come_first_and_old_ones_when_they_are_due() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        let both = BTreeSet::from([need("a.example"), need("b.example")]);
        keep(&board, &BTreeSet::from([need("a.example")]), now);
        board.put(&need("a.example"), good(60), now, EVEN);
        assert_eq!(board.due(now, 9), []);
        let later = now + Duration::from_secs(60);
        assert_eq!(board.next_due(), Some(later));
        keep(&board, &both, later);
        assert_eq!(board.due(later, 9), [need("b.example"), need("a.example")]);
        assert_eq!(board.due(later, 1), [need("b.example")]);
        keep(&board, &BTreeSet::new(), later);
        assert_eq!((board.due(later, 9), board.next_due()), (vec![], None));
    }

    #[test]
    fn a_look_holds_as_long_as_its_records_within_bounds() {
        let seconds = |look: &DnsLook, failures| pause(look, failures).as_secs();
        assert_eq!([1, 300, 999_999].map(|ttl| seconds(&good(ttl), 0)), [60, 300, 3600]);
        assert_eq!(seconds(&DnsLook { ttl: Some(LONGEST), ..wrong() }, 0), 300);
        assert_eq!([1, 2, 3, 40].map(|failures| seconds(&failed(), failures)), [60, 120, 240, 900]);
    }

    #[test]
    fn chance_spreads_the_next_looks_by_a_tenth() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        keep(&board, &BTreeSet::from([need("a.example")]), now);
        for (chance, seconds) in [(0.0, 90), (1.0, 110)] {
            board.put(&need("a.example"), good(100), now, chance);
            let due = board.next_due().unwrap().duration_since(now);
            assert_eq!(due.as_secs_f64().round(), f64::from(seconds));
        }
    }

    #[test]
    fn one_failed_look_does_not_hide_what_was_found_and_the_third_does() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        let needs = BTreeSet::from([need("a.example")]);
        keep(&board, &needs, now);
        let put = |look| board.put(&need("a.example"), look, now, EVEN);
        put(wrong());
        assert!(!put(failed()) && !put(failed()));
        assert_eq!(reason(&board, &needs), Some(Reason::DomainNotFound));
        assert!(put(failed()));
        assert_eq!(reason(&board, &needs), Some(Reason::DnsUnavailable));
        assert!(put(good(60)));
        assert_eq!(reason(&board, &needs), Some(Reason::DnsPublished));
    }

    #[test]
    fn without_anything_found_before_a_failure_shows_at_once() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        let needs = BTreeSet::from([need("a.example")]);
        keep(&board, &needs, now);
        assert!(board.put(&need("a.example"), failed(), now, EVEN));
        assert_eq!(reason(&board, &needs), Some(Reason::DnsUnavailable));
    }

    #[test]
    fn a_forged_address_asks_nothing_anew_and_hides_nothing() {
        let (board, start) = (DnsObservations::on(), Instant::now());
        keep(&board, &from(0), start);
        let look = board.due(start, 9).pop().unwrap();
        board.put(&look, wrong(), start, EVEN);
        let mut looks = 0;
        for second in 1..600 {
            let now = start + Duration::from_secs(second);
            let forged = from(u8::try_from(second % 250).unwrap());
            keep(&board, &forged, now);
            assert_ne!(board.notice(&forged), DnsNotice::Pending, "what was found before stands");
            for need in board.due(now, 9) {
                board.put(&need, wrong(), now, EVEN);
                looks += 1;
            }
        }
        assert!((10..=13).contains(&looks), "{looks} looks in ten minutes");
    }

    #[test]
    fn one_namespace_does_not_starve_the_advice_of_others() {
        let (board, now) = (DnsObservations::on(), Instant::now());
        let many: BTreeSet<_> = (0..1000).map(|n| need(&format!("a{n}.example"))).collect();
        let shared = BTreeSet::from([need("a0.example"), need("shared.example")]);
        let other = BTreeSet::from([need("z.example"), need("shared.example")]);
        let both: BTreeSet<_> = many.union(&shared).cloned().collect();
        keep_of(&board, &[("mallory", &both), ("shop", &other)], now);
        let due = board.due(now, 32);
        assert!(other.iter().all(|need| due.contains(need)), "{due:?}");
        assert_eq!(due.iter().filter(|need| !other.contains(need)).count(), OF_A_NAMESPACE);
    }
}

//! Asks name servers about the domains of all routes, round after round, in a task of its own. Runs only on the leader.
//!
//! Owns sockets (through [`Resolver`]), the clock and randomness. What is asked, and what answers mean, is decided elsewhere.
//!
//! Invariants: at most `AT_ONCE` domains are looked at at a time, each with at most `MAX_QUESTIONS` questions and within
//! `DEADLINE`; a domain whose name servers fail is left alone after `MAX_FAILURES` questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use mailroute_dns::resolver::Resolver;
use mailroute_operator_core::reports::Reports;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::examine::examine;
use super::known::{Fact, Known, Question};
use super::need::{DnsNeed, needs};
use super::observations::{DnsLook, DnsObservations};
use super::verdict::DomainStanding;
use crate::cache::route::{RouteRef, RouteStore};
use crate::cache::triggers::Triggers;
use crate::lock;
use crate::metrics::Metrics;

/// Domains that are looked at at a time.
const AT_ONCE: usize = 4;

/// Domains of one round; new ones come first in the next. Each namespace has its share.
const MAX_ROUND: usize = 32;

/// Most questions about one domain: its own six, the ten look-ups of an SPF policy, and addresses of mail exchangers.
const MAX_QUESTIONS: usize = 64;

/// Questions without an answer after which a domain is left alone for now.
const MAX_FAILURES: usize = 2;

/// Longest time for one domain.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longest pause between two rounds: the addresses of sidecars change without an event.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Routes that are read before others may work.
const AT_A_TIME: usize = 64;

/// Shortest pause between two rounds, however often routes change.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What the rounds work with. Handles only.
#[derive(Clone)]
pub struct DnsRounds {
    /// Asks name servers.
    pub resolver: Resolver,
    /// Where findings go.
    pub board: DnsObservations,
    /// Watched routes.
    pub routes: RouteStore,
    /// Changes with the routes.
    pub changes: watch::Receiver<u64>,
    /// What sidecars reported.
    pub reports: Arc<Mutex<Reports>>,
    /// Has the status of a route written again.
    pub triggers: Triggers,
    /// Where looks are counted.
    pub metrics: Metrics,
}

impl DnsRounds {
    /// Makes rounds until it is dropped.
    pub async fn run(mut self) {
        loop {
            let started = Instant::now();
            let routes = self.routes_by_need().await;
            self.board.keep(&namespaces(&routes), started);
            let due = self.board.due(started, MAX_ROUND);
            let mut looks =
                stream::iter(due).map(|need| looked(need, self.resolver.clone())).buffer_unordered(AT_ONCE);
            while let Some((need, look)) = looks.next().await {
                self.metrics.dns_look(outcome(&look.standing));
                if self.board.put(&need, look, Instant::now(), chance()) {
                    routes
                        .get(&need)
                        .into_iter()
                        .flatten()
                        .for_each(|route| self.triggers.add(route.clone()));
                }
            }
            drop(looks);
            self.pause(started).await;
        }
    }

    async fn routes_by_need(&self) -> BTreeMap<DnsNeed, Vec<RouteRef>> {
        let now = Timestamp::now();
        let mut routes = BTreeMap::<DnsNeed, Vec<_>>::new();
        for (number, route) in self.routes.state().into_iter().enumerate() {
            if number % AT_A_TIME == AT_A_TIME - 1 {
                yield_now().await;
            }
            let (namespace, name) = (route.namespace().unwrap_or_default(), route.name_any());
            let egress = lock(&self.reports).egress(&namespace, &name, now);
            for need in needs(&route.open().spec, egress) {
                routes.entry(need).or_default().push(ObjectRef::from_obj(&*route));
            }
        }
        routes
    }

    /// Until a look is due, a route changes, or it is time to see where sidecars come from.
    async fn pause(&mut self, started: Instant) {
        let latest = started + LONGEST_PAUSE;
        let next = self.board.next_due().map_or(latest, |due| due.min(latest));
        sleep_until(started + SHORTEST_PAUSE).await;
        tokio::select! {
            () = sleep_until(next) => {}
            // An error means that the watch has ended, and with it the process.
            Ok(()) = self.changes.changed() => {}
        }
    }
}

fn namespaces(routes: &BTreeMap<DnsNeed, Vec<RouteRef>>) -> BTreeMap<DnsNeed, BTreeSet<String>> {
    let of = |routes: &Vec<RouteRef>| routes.iter().filter_map(|route| route.namespace.clone()).collect();
    routes.iter().map(|(need, routes)| (need.clone(), of(routes))).collect()
}

async fn looked(need: DnsNeed, resolver: Resolver) -> (DnsNeed, DnsLook) {
    let look = look(&need, &resolver).await;
    (need, look)
}

/// Looks at one domain until nothing more has to be asked.
async fn look(need: &DnsNeed, resolver: &Resolver) -> DnsLook {
    let looked = timeout(DEADLINE, ask_all(need, resolver)).await;
    looked.unwrap_or_else(|_| {
        let domain = &need.domain;
        failed(format!("{domain}: name servers took longer than {} seconds", DEADLINE.as_secs()))
    })
}

async fn ask_all(need: &DnsNeed, resolver: &Resolver) -> DnsLook {
    let mut known = Known::default();
    loop {
        let examined = examine(need, &known);
        let is_enough = examined.wanted.is_empty() || examined.failures.len() >= MAX_FAILURES;
        if is_enough {
            let standing =
                DomainStanding { findings: examined.findings, failure: examined.failures.into_iter().next() };
            return DnsLook { standing, ttl: known.ttl };
        }
        if known.len() + examined.wanted.len() > MAX_QUESTIONS {
            return failed(format!("{}: its records refer to too many others", need.domain));
        }
        let wanted = stream::iter(examined.wanted);
        let mut answers = wanted.map(|question| ask(question, resolver.clone())).buffer_unordered(AT_ONCE);
        while let Some((question, fact, ttl)) = answers.next().await {
            known.learn(question, fact, ttl);
        }
    }
}

async fn ask(question: Question, resolver: Resolver) -> (Question, Fact, Option<Duration>) {
    let (fact, ttl) = match resolver.ask(&question.name, question.wanted).await {
        Ok(answer) => Fact::read(question.wanted, &answer),
        Err(error) => (Fact::Failed(error.to_string()), None),
    };
    (question, fact, ttl)
}

fn failed(why: String) -> DnsLook {
    DnsLook { standing: DomainStanding { findings: Vec::new(), failure: Some(why) }, ttl: None }
}

/// A closed set, for the metric.
fn outcome(standing: &DomainStanding) -> &'static str {
    match (standing.findings.is_empty(), &standing.failure) {
        (false, _) => "findings",
        (true, Some(_)) => "failed",
        (true, None) => "published",
    }
}

/// From 0 to 1. Without randomness in the middle: it only spreads load.
fn chance() -> f64 {
    let mut octets = [0; 4];
    match SystemRandom::new().fill(&mut octets) {
        Ok(()) => f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

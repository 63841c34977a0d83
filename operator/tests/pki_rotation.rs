//! Rotation over simulated time: one leader that comes and goes, three replicas and an API server, each of which learns
//! of a change only after a delay of its own. At every step, every leaf that is served has to be trusted by every view of
//! the published bundle that anyone may still hold.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use mailroute_operator::pki::authority::Authority;
use mailroute_operator::pki::bundle::Bundle;
use mailroute_operator::pki::keyring::{self, Due, Keyring, Lifetimes};
use mailroute_operator::pki::leaf::Leaf;
use mailroute_operator::pki::secret;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Two days, three hours and half an hour: the proportions of a year, a week and an hour, near enough, in fewer steps.
fn lifetimes() -> Lifetimes {
    Lifetimes::new(48 * HOUR, 3 * HOUR, 30 * MINUTE).unwrap()
}

fn names() -> Vec<String> {
    vec!["mailroute.mail.svc".to_owned()]
}

/// A value that others see late.
struct Watched<T> {
    history: VecDeque<(Timestamp, T)>,
}

impl<T: Clone> Watched<T> {
    fn new(now: Timestamp, value: T) -> Self {
        Self { history: VecDeque::from([(now, value)]) }
    }

    fn write(&mut self, now: Timestamp, value: T) {
        self.history.push_back((now, value));
    }

    fn latest(&self) -> &T {
        &self.history.back().unwrap().1
    }

    fn seen(&self, now: Timestamp, delay: Duration) -> &T {
        let known = self.history.iter().rev().find(|(at, _)| *at + delay <= now);
        &known.unwrap_or_else(|| self.history.front().unwrap()).1
    }
}

struct World {
    now: Timestamp,
    /// What the Secret holds, as it is read.
    secret: Watched<Option<Keyring>>,
    published: Watched<Bundle>,
    leaves: Vec<Option<Leaf>>,
    delays: [Duration; 3],
    /// How late the slowest client of the bundle is: less than the settling time, as the design asks.
    slowest_client: Duration,
    steps: Vec<Due>,
}

impl World {
    fn new(delays: [Duration; 3], slowest_client: Duration) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            now,
            secret: Watched::new(now, None),
            published: Watched::new(now, Bundle::default()),
            leaves: vec![None, None, None],
            delays,
            slowest_client,
            steps: Vec::new(),
        }
    }

    /// The leader reads what it wrote itself, and publishes what it read.
    fn lead(&mut self) {
        let keyring = self.secret.latest().as_ref();
        if let Some(due) = keyring::due(self.now, keyring, self.published.latest(), &lifetimes()) {
            let mint = || Authority::mint(self.now, lifetimes().ca());
            let advanced = keyring::advance(due, keyring.cloned(), self.now, mint).unwrap();
            let written = Secret { data: Some(secret::content(&advanced)), ..Secret::default() };
            self.secret.write(self.now, secret::read(&written).unwrap());
            self.steps.push(due);
        }
        let wanted = self.secret.latest().as_ref().unwrap().bundle();
        if *self.published.latest() != wanted {
            self.published.write(self.now, wanted);
        }
    }

    fn serve(&mut self) {
        for (leaf, delay) in self.leaves.iter_mut().zip(self.delays) {
            let Some(keyring) = self.secret.seen(self.now, delay) else { continue };
            let live = self.published.seen(self.now, delay);
            if Leaf::is_wanted(leaf.as_ref(), keyring.signing.certificate(), live, self.now) {
                *leaf = Some(Leaf::sign(&keyring.signing, &names(), self.now, lifetimes().leaf()).unwrap());
            }
        }
    }

    /// Every replica's leaf, under the newest bundle and under the oldest one that a client may still use.
    fn check(&self) {
        for (replica, leaf) in self.leaves.iter().enumerate() {
            let leaf = leaf.as_ref().expect("every replica has a leaf");
            for delay in [Duration::ZERO, self.slowest_client] {
                let bundle = self.published.seen(self.now, delay);
                assert!(
                    leaf.is_trusted(bundle, self.now),
                    "replica {replica} at {} serves a leaf that a client {delay:?} behind does not trust",
                    self.now
                );
            }
        }
        assert!((1..=3).contains(&self.published.latest().iter().count()));
    }

    /// Runs in steps of five minutes; `leads` says whether there is a leader in a step.
    fn run(&mut self, steps: u32, leads: impl Fn(u32) -> bool) {
        for step in 0..steps {
            if leads(step) {
                self.lead();
            }
            self.serve();
            // Until the first bundle has reached everybody, nobody can be trusted.
            if self.now > self.published.history[0].0 + 2 * HOUR {
                self.check();
            }
            self.now += 5 * MINUTE;
        }
    }

    fn count(&self, due: Due) -> usize {
        self.steps.iter().filter(|step| **step == due).count()
    }
}

#[test]
fn over_three_rotations_every_leaf_is_trusted_at_every_step() {
    let mut world = World::new([Duration::ZERO, MINUTE, 7 * MINUTE], 20 * MINUTE);
    // A CA is replaced after two thirds of its 48 hours: three times in 110 hours.
    world.run(110 * 12, |_| true);
    assert_eq!((world.count(Due::Found), world.count(Due::Stage), world.count(Due::Promote)), (1, 3, 3));
    assert!(world.count(Due::Prune) >= 1);
}

#[test]
fn nothing_is_written_between_rotations() {
    let mut world = World::new([Duration::ZERO; 3], Duration::ZERO);
    world.run(31 * 12, |_| true);
    assert_eq!(world.steps, [Due::Found]);
    assert_eq!(world.published.history.len(), 2);
}

#[test]
fn a_leader_that_dies_after_any_step_is_replaced_without_a_gap() {
    // The leader is away for an hour at a different moment of the rotation each time.
    for away in 0..36_u32 {
        let begins = 32 * 12 - 18 + away;
        let mut world = World::new([Duration::ZERO, MINUTE, 7 * MINUTE], 20 * MINUTE);
        world.run(40 * 12, |step| !(begins..begins + 12).contains(&step));
        assert_eq!(world.count(Due::Promote), 1, "away from step {begins}");
    }
}

#[test]
fn a_deleted_secret_begins_anew_and_the_old_authority_is_not_trusted_any_more() {
    let mut world = World::new([Duration::ZERO; 3], Duration::ZERO);
    world.run(12, |_| true);
    let old = world.published.latest().clone();
    world.secret.write(world.now, None);
    world.lead();
    world.serve();
    let new = world.published.latest();
    assert!(old.iter().all(|certificate| !new.contains(certificate)));
    assert!(world.leaves.iter().flatten().all(|leaf| leaf.is_trusted(new, world.now)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_delays_and_absences_every_leaf_is_trusted(
        delays in prop::array::uniform3(0_u32..25),
        client in 0_u32..25,
        absent in prop::collection::vec((0_u32..90 * 12, 1_u32..20), 0..6),
    ) {
        let minutes = |n: u32| n * MINUTE;
        let mut world = World::new(delays.map(minutes), minutes(client));
        // A leader is there for the first hours, so that there is something to check.
        let is_absent = |step: u32| absent.iter().any(|(from, long)| (*from..from + long).contains(&step));
        world.run(90 * 12, |step| step < 12 || !is_absent(step));
        prop_assert!(world.count(Due::Promote) >= 2);
    }
}

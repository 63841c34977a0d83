//! Plans for the situations that pods can be in.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use mailroute_route::control::Queue;

use super::super::age::ages;
use super::super::history::{EvictedPod, EvictionHistory};
use super::*;
use crate::reports::AccountedMail;
use crate::resolve::{PlatformSettings, resolve};
use crate::samples;

/// What a plan is made of, changed step by step.
struct Situation {
    rollout: Rollout,
    pods: Vec<SidecarPod>,
    reports: BTreeMap<String, ReceivedReport>,
    rollouts: EvictionHistory<&'static str>,
    now: Instant,
}

const fn key() -> &'static str {
    "notifications"
}

fn owner(kind: &str, name: &str) -> PodOwner {
    PodOwner { kind: kind.into(), name: name.into() }
}

/// A pod whose sidecar is outdated, and its report, with nothing in its queue.
fn old(name: &str, kind: &str, of: &str) -> (SidecarPod, ReceivedReport) {
    let pod = SidecarPod {
        hash: Some("of an older one".into()),
        owner: Some(owner(kind, of)),
        ..samples::current(name)
    };
    let at = Timestamp::UNIX_EPOCH;
    let report = samples::report(vec![]);
    let accounted = AccountedMail::default();
    (pod, ReceivedReport { pod: name.into(), report, at, since: at, is_told: true, accounted })
}

impl Situation {
    fn new(pods: impl IntoIterator<Item = (SidecarPod, ReceivedReport)>) -> Self {
        let (pods, received): (Vec<_>, Vec<_>) = pods.into_iter().unzip();
        let reports = pods.iter().map(|pod| pod.uid.clone()).zip(received).collect();
        let (rollout, rollouts, now) = (Rollout::Restart, EvictionHistory::default(), Instant::now());
        Self { rollout, pods, reports, rollouts, now }
    }

    fn pod(&mut self, name: &str) -> &mut SidecarPod {
        self.pods.iter_mut().find(|pod| pod.name == name).unwrap()
    }

    fn queue(&mut self, name: &str, queue: Queue) {
        self.reports.values_mut().filter(|it| it.pod == name).for_each(|it| it.report.queue = queue);
    }

    /// The next to go, and what each outdated pod waits for.
    fn planned(&self) -> (Option<String>, Vec<(String, Option<Obstacle>)>) {
        let (route, platform) = (samples::route(), samples::platform());
        let resolution = resolve(&route, &PlatformSettings::default());
        let ages = ages(&resolution, &platform, &self.pods);
        let history = self.rollouts.of(&key(), &self.pods, &ages, self.now);
        let plan = plan(&RolloutFacts {
            rollout: self.rollout,
            pods: &self.pods,
            ages: &ages,
            reports: &self.reports,
            history: &history,
        });
        let next = plan.next.map(|next| next.pod.name.clone());
        (next, plan.outdated.into_iter().map(|it| (it.pod.name.clone(), it.obstacle)).collect())
    }

    fn next(&self) -> Option<String> {
        self.planned().0
    }

    fn obstacle(&self, name: &str) -> Option<Obstacle> {
        self.planned().1.into_iter().find(|(pod, _)| pod == name).unwrap().1
    }

    /// The one that is next is evicted, and ends.
    fn evict(&mut self) -> String {
        let name = self.next().unwrap();
        let pod = self.pod(&name).clone();
        let owner = pod.owner.clone().unwrap();
        self.rollouts.evicted(&key(), &owner, EvictedPod::of(&pod, &owner, &self.pods));
        self.pods.retain(|pod| pod.name != name);
        name
    }

    /// A new pod of the Deployment comes up.
    fn comes(&mut self, name: &str) {
        self.pods.push(samples::current(name));
    }
}

fn web(names: &[&str]) -> Situation {
    Situation::new(names.iter().map(|name| old(name, "Deployment", "web")))
}

#[test]
fn a_route_that_only_reports_names_them_and_evicts_none() {
    let mut situation = web(&["web-2", "web-1"]);
    situation.rollout = Rollout::Report;
    let named = [("web-1".to_owned(), None), ("web-2".to_owned(), None)].to_vec();
    assert_eq!(situation.planned(), (None, named));
}

#[test]
fn current_pods_are_not_in_the_plan() {
    let mut situation = web(&["web-1"]);
    situation.comes("web-2");
    assert_eq!(situation.planned(), (Some("web-1".into()), vec![("web-1".into(), None)]));
}

#[test]
fn pods_of_one_owner_go_one_after_another() {
    let mut situation = web(&["web-1", "web-2", "web-3"]);
    let mut gone = Vec::new();
    for new in ["new-1", "new-2", "new-3"] {
        gone.push(situation.evict());
        assert_eq!(situation.next(), None, "nothing has come for {gone:?}");
        situation.comes(new);
        situation.pod(new).is_pod_ready = false;
        assert_eq!(situation.next(), None, "{new} is not ready");
        situation.pod(new).is_pod_ready = true;
    }
    assert_eq!(gone, ["web-1", "web-2", "web-3"]);
    assert_eq!(situation.planned(), (None, vec![]));
}

#[test]
fn a_replacement_that_never_comes_stops_its_owner_alone() {
    let mut situation = Situation::new([
        old("db-0", "StatefulSet", "db"),
        old("web-1", "Deployment", "web"),
        old("web-2", "Deployment", "web"),
    ]);
    assert_eq!(situation.evict(), "web-1");
    assert_eq!(situation.obstacle("web-2"), Some(Obstacle::Unreplaced("web-1".into())));
    assert_eq!(situation.next().as_deref(), Some("db-0"));
}

#[test]
fn a_replacement_that_is_outdated_as_well_ends_the_restarts() {
    let mut situation = web(&["web-1", "web-2"]);
    situation.evict();
    let (mut again, received) = old("web-3", "Deployment", "web");
    again.is_pod_ready = true;
    situation.reports.insert(again.uid.clone(), received);
    situation.pods.push(again);
    let futile = Some(Obstacle::Futile("web-3".into()));
    assert_eq!(situation.next(), None);
    assert_eq!((situation.obstacle("web-2"), situation.obstacle("web-3")), (futile.clone(), futile));
    // Until somebody has seen to it, and a new pod is as it should be.
    situation.comes("web-4");
    assert_eq!(situation.next().as_deref(), Some("web-2"));
}

#[test]
fn what_a_gateway_has_on_its_claim_does_not_keep_it_from_being_evicted() {
    let mut situation = Situation::new([old("g-0", "StatefulSet", "g"), old("g-1", "StatefulSet", "g")]);
    let queue = Queue { messages: 3, oldest_seconds: 9, dead_letters: 2 };
    situation.queue("g-0", queue);
    situation.queue("g-1", queue);
    assert_eq!(situation.next(), None);
    situation.pods.iter_mut().for_each(|pod| pod.role = Role::Gateway);
    assert_eq!(situation.evict(), "g-0");
    assert_eq!(situation.obstacle("g-1"), Some(Obstacle::Unreplaced("g-0".into())), "one at a time");
}

#[test]
fn a_new_sidecar_that_does_not_start_stops_the_whole_route() {
    let mut situation = Situation::new([old("db-0", "StatefulSet", "db"), old("web-1", "Deployment", "web")]);
    situation.comes("new-1");
    situation.pod("new-1").ready = false;
    assert_eq!(situation.obstacle("db-0"), Some(Obstacle::Newcomer("new-1".into())));
    assert_eq!(situation.next(), None);
}

#[test]
fn what_must_not_be_evicted_is_named_with_its_reason() {
    let waiting = Queue { messages: 1, ..Queue::default() };
    let dead = Queue { dead_letters: 1, ..Queue::default() };
    let annotation = ("mailroute.dev/sidecar-image".to_owned(), "example.com/own:1".to_owned());
    type Change = fn(&mut SidecarPod);
    let table: [(Change, Obstacle); 5] = [
        (|pod| pod.owner = None, Obstacle::Unowned),
        (|pod| pod.runs_on = false, Obstacle::RunsToEnd),
        (|pod| pod.is_ending = true, Obstacle::Ending),
        (|pod| pod.uid = "unheard".into(), Obstacle::Unreported),
        (
            |pod| drop(pod.annotations.insert("mailroute.dev/sidecar-port".into(), "x".into())),
            Obstacle::Refused(Refusal::InvalidAnnotation {
                key: "mailroute.dev/sidecar-port".into(),
                value: "x".into(),
                wanted: crate::inject::refusal::Wanted::Port,
            }),
        ),
    ];
    for (change, expected) in table {
        let mut situation = web(&["web-1"]);
        change(situation.pod("web-1"));
        assert_eq!((situation.next(), situation.obstacle("web-1")), (None, Some(expected)));
    }
    for (queue, expected) in [(waiting, Obstacle::Mail), (dead, Obstacle::DeadLetters)] {
        let mut situation = web(&["web-1"]);
        situation.queue("web-1", queue);
        assert_eq!((situation.next(), situation.obstacle("web-1")), (None, Some(expected)));
    }
    let mut situation = web(&["web-1"]);
    situation.pod("web-1").annotations.extend([annotation]);
    assert_eq!(situation.obstacle("web-1"), Some(Obstacle::Refused(Refusal::ImageNotAllowed)));
}

#[test]
fn an_owner_with_a_pod_in_trouble_is_left_alone_but_for_that_pod() {
    let mut situation = web(&["web-1", "web-2"]);
    situation.pod("web-2").is_pod_ready = false;
    assert_eq!(situation.obstacle("web-1"), Some(Obstacle::Peer("web-2".into())));
    assert_eq!(situation.next().as_deref(), Some("web-2"), "it is in trouble already");
}

#[test]
fn an_owner_that_a_budget_protects_waits_and_others_go_on() {
    let mut situation = Situation::new([old("db-0", "StatefulSet", "db"), old("web-1", "Deployment", "web")]);
    let until = situation.now + Duration::from_secs(30);
    situation.rollouts.refused(&key(), &owner("Deployment", "web"), until);
    assert_eq!(situation.obstacle("web-1"), Some(Obstacle::Budget));
    assert_eq!(situation.next().as_deref(), Some("db-0"));
    situation.now = until;
    assert_eq!(situation.next().as_deref(), Some("web-1"));
}

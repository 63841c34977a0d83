//! Leader election over one `coordination.k8s.io/v1` Lease: of all replicas, one writes.
//!
//! Owns the Lease and says who leads; refuses to know what a leader does. Invariants:
//! * Clocks of different machines are never compared. A candidate measures on its own monotonic clock how long the
//!   Lease has stayed unchanged, and takes it over only after the whole [`Terms::duration`].
//! * A leader that cannot renew stops leading after [`Terms::renew_within`], which is shorter, so that two replicas do
//!   not lead at a time.
//! * Every write carries the resourceVersion it was decided on: of two candidates one is refused.
//!
//! Who holds the Lease is written as `<pod>@<ip:port of its control service>`, so that any replica can name the leader
//! to a sidecar.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::api_error::ApiError;

/// Times of an election; those that most Kubernetes components use.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// After this long without a renewal others may take over.
    pub duration: Duration,
    /// A leader that could not renew for this long stops leading.
    pub renew_within: Duration,
    /// Pause between two looks at the Lease.
    pub every: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

/// A replica, as the Lease names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of its pod.
    pub pod: String,
    /// Where its control service listens, as other pods reach it.
    pub control: SocketAddr,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pod, self.control)
    }
}

/// A holder that is not written as `<pod>@<ip:port>`; somebody else's program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form <pod>@<ip:port>")]
pub struct UnknownHolder;

impl FromStr for Identity {
    type Err = UnknownHolder;

    fn from_str(text: &str) -> Result<Self, UnknownHolder> {
        let (pod, control) = text.split_once('@').ok_or(UnknownHolder)?;
        Ok(Self { pod: pod.to_owned(), control: control.parse().map_err(|_| UnknownHolder)? })
    }
}

/// Who leads, as far as this replica knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Whether it is this replica.
    pub leading: bool,
    /// Who it is, this replica or another.
    pub leader: Option<Identity>,
}

/// Takes part in the election until `stop` turns true, then gives the Lease back.
pub async fn run(
    client: Client,
    namespace: &str,
    name: &str,
    me: Identity,
    terms: Terms,
    told: &watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let api = Api::<Lease>::namespaced(client, namespace);
    let mut candidate = Candidate { me, terms, seen: None, renewed: None };
    while !*stop.borrow() {
        candidate.round(&api, name).await;
        candidate.tell(told, Instant::now());
        tokio::select! {
            () = sleep(terms.every) => {}
            _ = stop.changed() => break,
        }
    }
    told.send_replace(Leadership { leading: false, leader: None });
    candidate.release(&api, name).await;
}

/// What one replica knows of the Lease.
struct Candidate {
    me: Identity,
    terms: Terms,
    /// The Lease as last seen, and since when it has looked like that.
    seen: Option<(Lease, Instant)>,
    /// When this replica last renewed, if it leads.
    renewed: Option<Instant>,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// Another leads.
    Wait,
    /// There is no Lease yet.
    Create(Lease),
    /// Take it or renew it.
    Write(Lease),
}

impl Candidate {
    async fn round(&mut self, api: &Api<Lease>, name: &str) {
        match timeout(self.patience(Instant::now()), self.look_and_write(api, name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_conflict(&error) => tracing::debug!("another replica wrote the Lease first"),
            Ok(Err(error)) => {
                let error = ApiError::from(error);
                tracing::warn!(%error, lease = name, "cannot read or write the Lease");
            }
            Err(_) => tracing::warn!(lease = name, "the API server does not answer in time for the Lease"),
        }
    }

    /// How long one round may take: a leader that cannot renew has to say so in time.
    fn patience(&self, now: Instant) -> Duration {
        let half = self.terms.renew_within / 2;
        let left = self.renewed.map(|at| (at + self.terms.renew_within).saturating_duration_since(now));
        left.filter(|left| !left.is_zero()).map_or(half, |left| left.min(half))
    }

    async fn look_and_write(&mut self, api: &Api<Lease>, name: &str) -> kube::Result<()> {
        let now = Instant::now();
        self.saw(api.get_opt(name).await?, now);
        let written = match self.step(name, now, Timestamp::now()) {
            Step::Wait => {
                self.renewed = None;
                return Ok(());
            }
            Step::Create(lease) => api.create(&PostParams::default(), &lease).await?,
            Step::Write(lease) => api.replace(name, &PostParams::default(), &lease).await?,
        };
        // Counted from before the write: the API server may have stored it at any moment since.
        self.renewed = Some(now);
        self.seen = Some((written, now));
        Ok(())
    }

    fn saw(&mut self, lease: Option<Lease>, now: Instant) {
        let Some(lease) = lease else {
            self.seen = None;
            return;
        };
        let unchanged = self
            .seen
            .as_ref()
            .is_some_and(|(seen, _)| seen.metadata.resource_version == lease.metadata.resource_version);
        if !unchanged {
            self.seen = Some((lease, now));
        }
    }

    fn step(&self, name: &str, now: Instant, wall: Timestamp) -> Step {
        let Some((lease, since)) = &self.seen else {
            return Step::Create(self.claim(
                &Lease {
                    metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
                    spec: None,
                },
                wall,
            ));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let held = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let stated = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = stated.map_or(self.terms.duration, Duration::from_secs);
        match held {
            Some(holder) if holder == self.me.to_string() => Step::Write(self.renewal(lease, wall)),
            Some(_) if now.duration_since(*since) < duration => Step::Wait,
            _ => Step::Write(self.claim(lease, wall)),
        }
    }

    fn claim(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let old = lease.spec.clone().unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.me.to_string()),
            lease_duration_seconds: Some(i32::try_from(self.terms.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(old.lease_transitions.map_or(0, |count| count.saturating_add(1))),
            ..old
        };
        Lease { spec: Some(spec), ..lease.clone() }
    }

    fn renewal(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let spec = LeaseSpec { renew_time: Some(MicroTime(wall)), ..lease.spec.clone().unwrap_or_default() };
        Lease { spec: Some(spec), ..lease.clone() }
    }

    fn leadership(&self, now: Instant) -> Leadership {
        let leading = self.renewed.is_some_and(|at| now.duration_since(at) < self.terms.renew_within);
        if leading {
            return Leadership { leading, leader: Some(self.me.clone()) };
        }
        let holder =
            self.seen.as_ref().and_then(|(lease, _)| lease.spec.as_ref()?.holder_identity.as_deref());
        let leader = holder.and_then(|holder| holder.parse().ok()).filter(|leader| *leader != self.me);
        Leadership { leading, leader }
    }

    fn tell(&self, told: &watch::Sender<Leadership>, now: Instant) {
        let news = self.leadership(now);
        told.send_if_modified(|old| {
            if *old == news {
                return false;
            }
            match (&news.leading, &news.leader) {
                (true, _) => tracing::info!("this replica is the leader"),
                (false, Some(leader)) => tracing::info!(leader = leader.pod, "another replica is the leader"),
                (false, None) => tracing::warn!("no replica is known to be the leader"),
            }
            *old = news;
            true
        });
    }

    /// Gives the Lease back, so that the next replica need not wait. Bounded; a failure costs only that wait.
    async fn release(&self, api: &Api<Lease>, name: &str) {
        let Some((lease, _)) = self.seen.as_ref().filter(|_| self.renewed.is_some()) else { return };
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..lease.spec.clone().unwrap_or_default()
        };
        let lease = Lease { spec: Some(spec), ..lease.clone() };
        let written = timeout(self.terms.every, api.replace(name, &PostParams::default(), &lease)).await;
        tracing::info!(given_back = matches!(written, Ok(Ok(_))), "this replica is no longer the leader");
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pod: &str) -> Identity {
        Identity { pod: pod.into(), control: "10.0.0.5:8444".parse().unwrap() }
    }

    fn candidate(pod: &str) -> Candidate {
        Candidate { me: identity(pod), terms: Terms::default(), seen: None, renewed: None }
    }

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some("mailroute".into()),
                resource_version: Some(version.into()),
                ..Default::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                lease_transitions: Some(4),
                ..Default::default()
            }),
        }
    }

    fn wall() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_missing_lease_is_created() {
        let Step::Create(lease) = candidate("a").step("mailroute", Instant::now(), wall()) else {
            panic!("not created")
        };
        assert_eq!(lease.metadata.name.as_deref(), Some("mailroute"));
        assert_eq!(lease.spec.unwrap().holder_identity.as_deref(), Some("a@10.0.0.5:8444"));
    }

    #[test]
    fn a_lease_that_stays_unchanged_for_its_duration_is_taken() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.saw(Some(lease("b@10.0.0.6:8444", "1")), start);
        assert_eq!(a.step("mailroute", start + Duration::from_secs(14), wall()), Step::Wait);
        let Step::Write(taken) = a.step("mailroute", start + Duration::from_secs(15), wall()) else {
            panic!("not taken")
        };
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("1"), "decided on what was seen");
        assert_eq!(taken.spec.unwrap().lease_transitions, Some(5));
    }

    #[test]
    fn every_renewal_of_another_starts_the_wait_again() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.saw(Some(lease("b@10.0.0.6:8444", "1")), start);
        a.saw(Some(lease("b@10.0.0.6:8444", "2")), start + Duration::from_secs(10));
        assert_eq!(a.step("mailroute", start + Duration::from_secs(20), wall()), Step::Wait);
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.saw(Some(lease("", "1")), start);
        assert!(matches!(a.step("mailroute", start, wall()), Step::Write(_)));
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_others_may_start() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.renewed = Some(start);
        assert!(a.leadership(start + Duration::from_secs(9)).leading);
        assert!(!a.leadership(start + Duration::from_secs(10)).leading);
        assert!(Terms::default().renew_within < Terms::default().duration);
    }

    #[test]
    fn a_leader_waits_for_the_api_server_no_longer_than_it_may_lead() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.renewed = Some(start);
        assert_eq!(a.patience(start + Duration::from_secs(9)), Duration::from_secs(1));
        assert_eq!(a.patience(start + Duration::from_secs(60)), Duration::from_secs(5));
    }

    #[test]
    fn the_leader_is_named_with_the_address_of_its_control_service() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.saw(Some(lease("b@10.0.0.6:8444", "1")), start);
        let leader = a.leadership(start).leader.unwrap();
        assert_eq!((leader.pod.as_str(), leader.control.to_string().as_str()), ("b", "10.0.0.6:8444"));
    }

    #[test]
    fn a_holder_of_another_form_is_not_named() {
        let (mut a, start) = (candidate("a"), Instant::now());
        a.saw(Some(lease("somebody", "1")), start);
        assert_eq!(a.leadership(start), Leadership::default());
    }

    #[test]
    fn an_identity_is_read_back_also_over_ipv6() {
        let six = Identity { pod: "a".into(), control: "[fd00::5]:8444".parse().unwrap() };
        for identity in [identity("a"), six] {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
    }
}

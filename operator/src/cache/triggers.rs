//! The routes that have to be looked at again: a set that anyone adds to and the controller drains.
//!
//! A set, not a queue: however much happens to a route between two looks, it is looked at once, and memory is bounded by
//! the number of routes. Adding never blocks. What pods report comes as often as they like, so because of reports a route is
//! looked at only once in [`REPORTED`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cache::route::RouteRef;
use crate::lock;

/// After the first trigger, others that come within this time are taken along.
const GATHER: Duration = Duration::from_millis(100);

/// Least time between the last look at a route and one because of a report. Each look may write the route's status.
pub const REPORTED: Duration = Duration::from_secs(2);

/// The routes to look at. Cheap to clone; all clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// To be looked at now.
    routes: HashSet<RouteRef>,
    /// To be looked at when it is time, because of reports.
    reported: HashSet<RouteRef>,
    /// When a route was looked at last, for as long as that delays anything.
    looked: HashMap<RouteRef, Instant>,
}

impl Triggers {
    /// Has a route looked at.
    pub fn add(&self, route: RouteRef) {
        lock(&self.0.waiting).routes.insert(route);
        self.0.added.notify_one();
    }

    /// Has a route looked at because of what a pod reports: soon, but not within [`REPORTED`] of the last look.
    pub fn add_reported(&self, route: RouteRef) {
        lock(&self.0.waiting).reported.insert(route);
        self.0.added.notify_one();
    }

    /// Every route that was added, as it is added, each once until it was taken.
    pub fn stream(&self) -> impl Stream<Item = RouteRef> + Send + 'static {
        let triggers = self.clone();
        stream::unfold(triggers, |triggers| async move {
            let batch = triggers.next().await;
            Some((stream::iter(batch), triggers))
        })
        .flatten()
    }

    async fn next(&self) -> HashSet<RouteRef> {
        loop {
            let due = lock(&self.0.waiting).due();
            tokio::select! {
                () = self.0.added.notified() => {}
                () = at(due) => {}
            }
            sleep(GATHER).await;
            let batch = lock(&self.0.waiting).take(Instant::now());
            if !batch.is_empty() {
                return batch;
            }
        }
    }
}

/// Ready at this time; never without one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Waiting {
    /// When the next report is due that had to wait.
    fn due(&self) -> Option<Instant> {
        self.reported.iter().filter_map(|route| self.looked.get(route)).min().map(|looked| *looked + REPORTED)
    }

    /// What is to be looked at now. A look for whatever reason takes in what was reported before it.
    fn take(&mut self, now: Instant) -> HashSet<RouteRef> {
        self.looked.retain(|_, looked| now < *looked + REPORTED);
        let mut batch = std::mem::take(&mut self.routes);
        let looked = &self.looked;
        batch.extend(self.reported.extract_if(|route| !looked.contains_key(route)));
        self.reported.retain(|route| !batch.contains(route));
        self.looked.extend(batch.iter().map(|route| (route.clone(), now)));
        batch
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn route(name: &str) -> RouteRef {
        RouteRef::new(name).within("shop")
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_that_is_added_often_is_looked_at_once() {
        let triggers = Triggers::default();
        let mut stream = Box::pin(triggers.stream());
        for _ in 0..1000 {
            triggers.add(route("a"));
        }
        assert_eq!(stream.next().await, Some(route("a")));
        triggers.add(route("b"));
        assert_eq!(stream.next().await, Some(route("b")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_added_before_anyone_listened_is_not_lost() {
        let triggers = Triggers::default();
        triggers.add(route("a"));
        assert_eq!(Box::pin(triggers.stream()).next().await, Some(route("a")));
    }

    /// When the routes were looked at, until nothing comes for a minute.
    async fn looks(triggers: &Triggers) -> Vec<Instant> {
        let (mut stream, mut looks) = (Box::pin(triggers.stream()), vec![]);
        while let Ok(Some(_)) = timeout(Duration::from_secs(60), stream.next()).await {
            looks.push(Instant::now());
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_whose_reports_flap_is_looked_at_every_two_seconds_and_after_the_last() {
        let triggers = Triggers::default();
        let pods = triggers.clone();
        let flapping = tokio::spawn(async move {
            for _ in 0..600 {
                pods.add_reported(route("a"));
                sleep(Duration::from_millis(100)).await;
            }
            Instant::now() - Duration::from_millis(100)
        });
        let looks = looks(&triggers).await;
        let last = flapping.await.unwrap();
        assert!((25..=32).contains(&looks.len()), "{} looks in a minute", looks.len());
        assert!(looks.windows(2).all(|two| two[1] - two[0] >= REPORTED), "{looks:?}");
        assert!(looks.last().is_some_and(|look| *look >= last && *look <= last + REPORTED + 2 * GATHER));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_delay_no_other_route_and_nothing_but_reports() {
        let triggers = Triggers::default();
        let mut stream = Box::pin(triggers.stream());
        for first in ["a", "b"] {
            triggers.add_reported(route(first));
            let look = timeout(2 * GATHER, stream.next()).await;
            assert_eq!(look, Ok(Some(route(first))), "the first report is looked at as soon as any");
        }
        triggers.add_reported(route("a"));
        triggers.add(route("a"));
        assert_eq!(timeout(2 * GATHER, stream.next()).await, Ok(Some(route("a"))));
        // That look has taken the report in.
        assert!(timeout(2 * REPORTED, stream.next()).await.is_err());
        assert!(lock(&triggers.0.waiting).reported.is_empty());
    }
}

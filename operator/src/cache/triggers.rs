//! Which routes have to be looked at again: a set that anyone adds to and the controller drains.
//!
//! A set, not a queue: however much happens to a route between two looks, it is looked at once, and memory is bounded by
//! the number of routes. Adding never blocks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::cache::route::RouteRef;

/// After the first trigger, others that come within this time are taken along.
const GATHER: Duration = Duration::from_millis(100);

/// The routes to look at. Cheap to clone; all clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    routes: Mutex<HashSet<RouteRef>>,
    added: Notify,
}

impl Triggers {
    /// Has a route looked at.
    pub fn add(&self, route: RouteRef) {
        self.routes().insert(route);
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
            self.0.added.notified().await;
            sleep(GATHER).await;
            let batch = std::mem::take(&mut *self.routes());
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, HashSet<RouteRef>> {
        // A panic under the lock leaves a whole set behind.
        self.0.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
}

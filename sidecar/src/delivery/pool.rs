//! Connections kept between messages, and how many there may be at a time.
//!
//! Whoever wants to send takes a [`Slot`] first, in the order of asking; there are as many as connections are allowed.
//! Refuses to know how a connection is made and what goes over it.
//!
//! Invariants: never more connections in use than slots; a connection that is not given back with [`Pool::keep`] is
//! gone, so one on which anything went wrong, or whose attempt was dropped, is never used again.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::clock::Instant;
use crate::lock;

/// A connection without a message for so long is ended: the service cuts idle ones after some minutes, and then the
/// next message would find out.
const IDLE: Duration = Duration::from_secs(45);

/// A connection this old is replaced: long-lived ones have been seen cut after twenty minutes.
const AGE: Duration = Duration::from_secs(9 * 60);

/// Longest wait for a slot. A line that is longer moves too slowly to be worth waiting in.
pub const WAIT: Duration = Duration::from_secs(120);

/// A connection that can be kept.
pub trait Reusable: Send {
    /// When it was made.
    fn opened(&self) -> Instant;

    /// When the last message was done with.
    fn used(&self) -> Instant;

    /// Ends it politely.
    fn end(self) -> impl Future<Output = ()> + Send;
}

/// The connections of one transport.
pub struct Pool<C> {
    slots: Slots,
    /// The one used last is at the end.
    kept: Mutex<Vec<C>>,
}

/// How many connections may be in use.
struct Slots {
    free: Semaphore,
    count: Mutex<Count>,
}

struct Count {
    /// Most connections.
    most: usize,
    /// Slots in use that are not to come back, as there are fewer now than when they were given.
    excess: usize,
}

/// The right to use one connection.
pub struct Slot<'a> {
    slots: &'a Slots,
    permit: Option<SemaphorePermit<'a>>,
}

impl Slots {
    fn count(&self) -> MutexGuard<'_, Count> {
        lock(&self.count)
    }
}

impl<C: Reusable> Pool<C> {
    /// A pool of up to `most` connections, at least one.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let count = Mutex::new(Count { most, excess: 0 });
        Self { slots: Slots { free: Semaphore::new(most), count }, kept: Mutex::default() }
    }

    /// Allows `most` connections from now on, at least one. Those in use beyond it end with their message.
    pub fn resize(&self, most: usize) {
        let Slots { free, .. } = &self.slots;
        let (mut count, most) = (self.slots.count(), most.max(1));
        if most > count.most {
            let more = most - count.most;
            let stay = more.min(count.excess);
            count.excess -= stay;
            free.add_permits(more - stay);
        } else {
            let fewer = count.most - most;
            count.excess += fewer - free.forget_permits(fewer);
        }
        count.most = most;
    }

    /// A slot, in the order of asking; none within [`WAIT`] when the line is too long.
    pub async fn slot(&self) -> Option<Slot<'_>> {
        // The semaphore is never closed.
        let permit = timeout(WAIT, self.slots.free.acquire()).await.ok()?.ok()?;
        Some(Slot { slots: &self.slots, permit: Some(permit) })
    }

    /// Whether a slot is one of this pool's.
    pub fn gave(&self, slot: &Slot<'_>) -> bool {
        std::ptr::eq(slot.slots, &self.slots)
    }

    /// A kept connection that is fresh, the one used last, for whoever has a slot. Those that are not stay for
    /// [`Pool::tidy`].
    pub fn kept(&self, _: &Slot<'_>) -> Option<C> {
        let mut kept = lock(&self.kept);
        let fresh = kept.iter().rposition(is_fresh)?;
        Some(kept.remove(fresh))
    }

    /// Keeps a connection for the next message.
    pub fn keep(&self, connection: C) {
        lock(&self.kept).push(connection);
    }

    /// Ends what is no longer fresh, politely.
    pub async fn tidy(&self) {
        let most = self.slots.count().most;
        let stale: Vec<C> = {
            let mut kept = lock(&self.kept);
            let surplus = kept.len().saturating_sub(most);
            let mut stale: Vec<_> = kept.drain(..surplus).collect();
            stale.extend(kept.extract_if(.., |connection| !is_fresh(connection)));
            stale
        };
        join_all(stale.into_iter().map(Reusable::end)).await;
    }

    /// Waits for the slots in use, then ends every kept connection.
    pub async fn close(&self) {
        let all = u32::try_from(self.slots.count().most).unwrap_or(u32::MAX);
        let slots = self.slots.free.acquire_many(all).await;
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(slots);
        join_all(kept.into_iter().map(Reusable::end)).await;
    }
}

fn is_fresh(connection: &impl Reusable) -> bool {
    connection.used().elapsed() < IDLE && connection.opened().elapsed() < AGE
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut count = self.slots.count();
        if count.excess > 0
            && let Some(permit) = self.permit.take()
        {
            count.excess -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::connection::Connection;
    use crate::delivery::connection::tests::connection;

    #[tokio::test(start_paused = true)]
    async fn slots_are_given_in_the_order_of_asking() {
        let pool = Pool::<Connection>::new(1);
        let order = Mutex::new(Vec::new());
        let first = pool.slot().await.unwrap();
        let wait = async |n| {
            let _slot = pool.slot().await.unwrap();
            order.lock().unwrap().push(n);
        };
        let release = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(wait(1), wait(2), wait(3), release);
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end() {
        let pool = Pool::<Connection>::new(1);
        let _slot = pool.slot().await.unwrap();
        let started = Instant::now();
        assert!(pool.slot().await.is_none());
        assert_eq!(started.elapsed(), WAIT);
    }

    #[tokio::test]
    async fn fewer_connections_take_effect_as_slots_come_back_and_more_at_once() {
        let pool = Pool::<Connection>::new(3);
        let (a, b) = (pool.slot().await.unwrap(), pool.slot().await.unwrap());
        pool.resize(1);
        assert_eq!(pool.slots.free.available_permits(), 0);
        drop(a);
        assert_eq!(pool.slots.free.available_permits(), 0, "two were in use, one is allowed");
        drop(b);
        assert_eq!(pool.slots.free.available_permits(), 1);
        let _slot = pool.slot().await.unwrap();
        pool.resize(2);
        assert_eq!(pool.slots.free.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_used_last_is_used_next_and_idle_ones_end() {
        let (pool, (older, _a), (newer, _b)) = (Pool::new(2), connection("a").await, connection("b").await);
        let slot = pool.slot().await.unwrap();
        pool.keep(older);
        pool.keep(newer);
        let mut next = pool.kept(&slot).unwrap();
        assert_eq!(next.host, "b");
        tokio::time::advance(IDLE).await;
        assert!(pool.kept(&slot).is_none(), "the other one is too old by now");
        pool.tidy().await;
        assert!(lock(&pool.kept).is_empty());
        next.used = crate::clock::now();
        pool.keep(next);
        assert!(pool.kept(&slot).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_is_replaced_however_busy() {
        let (pool, (mut connection, _peer)) = (Pool::new(1), connection("a").await);
        tokio::time::advance(AGE).await;
        connection.used = crate::clock::now();
        let slot = pool.slot().await.unwrap();
        pool.keep(connection);
        assert!(pool.kept(&slot).is_none());
    }

    #[tokio::test]
    async fn the_end_waits_for_a_message_under_way() {
        let (pool, (connection, mut peer)) = (Pool::new(1), connection("a").await);
        let slot = pool.slot().await.unwrap();
        let finish = async {
            tokio::task::yield_now().await;
            pool.keep(connection);
            drop(slot);
        };
        let goodbye = async {
            assert_eq!(peer.line().await, "QUIT\r\n");
            peer.say("221 bye\r\n").await;
        };
        tokio::join!(pool.close(), finish, goodbye);
        assert!(lock(&pool.kept).is_empty());
    }
}

//! In which order logins are verified.
//!
//! Logins of one address come one after another. Passwords are hashed one at a time, so that memory and processor stay bounded; an
//! address that has logged in lately waits for one other login at most that is not such an address's. So those who guess hold up each
//! other, from however many addresses. Every wait is bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::lock;

/// Longest wait for the logins of the same address that came before.
const ADDRESS_WAIT: Duration = Duration::from_secs(20);

/// Longest wait for the turn to hash a password.
const HASH_WAIT: Duration = Duration::from_secs(10);

/// Who waits for whom.
pub(super) struct LoginOrder {
    /// Of each address with a login under way.
    addresses: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
    hashing: Arc<Semaphore>,
    /// One of all addresses that have not logged in lately waits for its turn, or is hashed.
    newcomers: Arc<Semaphore>,
}

/// The right to hash a password, for as long as this lives.
pub(super) struct HashTurn {
    _hashing: OwnedSemaphorePermit,
    _newcomer: Option<OwnedSemaphorePermit>,
}

impl LoginOrder {
    pub(super) fn new() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { addresses: Mutex::default(), hashing: one(), newcomers: one() }
    }

    /// Waits until no other login of the address is under way; none when that takes too long.
    pub(super) async fn of_address(&self, address: IpAddr) -> Option<OwnedSemaphorePermit> {
        let logins = {
            let mut addresses = lock(&self.addresses);
            // As many as sessions are left.
            addresses.retain(|_, logins| logins.strong_count() > 0);
            let known = addresses.get(&address).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let logins = Arc::new(Semaphore::new(1));
                addresses.insert(address, Arc::downgrade(&logins));
                logins
            })
        };
        timeout(ADDRESS_WAIT, logins.acquire_owned()).await.ok()?.ok()
    }

    /// Waits for the turn to hash a password; none when that takes too long.
    pub(super) async fn to_hash(&self, has_logged_in: bool) -> Option<HashTurn> {
        let turn = async {
            let newcomer = if has_logged_in {
                None
            } else {
                Some(Arc::clone(&self.newcomers).acquire_owned().await.ok()?)
            };
            let hashing = Arc::clone(&self.hashing).acquire_owned().await.ok()?;
            Some(HashTurn { _hashing: hashing, _newcomer: newcomer })
        };
        timeout(HASH_WAIT, turn).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::join_all;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn logins_of_an_address_wait_for_each_other_and_no_other_does() {
        let order = LoginOrder::new();
        let first = order.of_address(address(1)).await.unwrap();
        assert!(order.of_address(address(2)).await.is_some());
        let mut second = Box::pin(order.of_address(address(1)));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let second = second.await.unwrap();
        assert!(order.of_address(address(1)).await.is_none(), "not for ever");
        drop(second);
        order.of_address(address(2)).await;
        assert_eq!(lock(&order.addresses).len(), 1, "who has left is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_logged_in_lately_waits_for_one_newcomer_at_most() {
        let order = LoginOrder::new();
        let hashed = order.to_hash(false).await.unwrap();
        let mut newcomers: Vec<_> = (0..30).map(|_| Box::pin(order.to_hash(false))).collect();
        for newcomer in &mut newcomers {
            assert!(newcomer.now_or_never().is_none());
        }
        let mut known = Box::pin(order.to_hash(true));
        assert!((&mut known).now_or_never().is_none(), "one at a time");
        drop(hashed);
        let known = known.now_or_never().flatten();
        assert!(known.is_some(), "it comes next");
        assert!(join_all(newcomers).await.iter().all(Option::is_none), "none waits for ever");
        drop(known);
        assert!(order.to_hash(false).await.is_some(), "who has given up is in nobody's way");
    }
}

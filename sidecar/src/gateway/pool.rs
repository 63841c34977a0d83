//! Connections to gateways that wait for the next message.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use super::connection::Connection;
use super::identity::Basis;
use crate::clock::{self, Instant};
use crate::lock;

/// Messages handed over at a time, each on a connection of its own.
pub const CONNECTIONS: usize = 4;

/// How long a connection is kept for the next message. Less than a gateway waits for a command.
const IDLE: Duration = Duration::from_secs(4);

/// How long a connection is used at all: what has changed at the gateway, or on the way to it, counts by then.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Open connections, at most [`CONNECTIONS`].
#[derive(Default)]
pub(super) struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    /// A connection, or one to this address: the one that was used last. Those that do not rest on `basis` are dropped.
    pub fn take(&self, only: Option<SocketAddr>, basis: &Basis) -> Option<Connection> {
        let (mut open, now) = (lock(&self.0), clock::now());
        open.retain(|it| it.basis == *basis && is_fresh(it.opened, it.used, now));
        loop {
            let at = open.iter().rposition(|it| only.is_none_or(|only| it.address == only))?;
            let mut connection = open.remove(at);
            // What is sent over one that is closed looks as if it had arrived.
            if !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next message.
    pub fn keep(&self, connection: Connection) {
        let (mut open, now) = (lock(&self.0), clock::now());
        open.retain(|it| is_fresh(it.opened, it.used, now));
        if open.len() < CONNECTIONS {
            open.push(connection);
        }
    }

    /// Ends all of them.
    pub async fn close(&self) {
        let open = std::mem::take(&mut *lock(&self.0));
        futures::future::join_all(open.into_iter().map(Connection::quit)).await;
    }
}

fn is_fresh(opened: Instant, used: Instant, now: Instant) -> bool {
    now.saturating_duration_since(used) < IDLE && now.saturating_duration_since(opened) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_used_all_the_time_is_dropped_after_a_minute() {
        let opened = clock::now();
        let second = Duration::from_secs(1);
        assert!(is_fresh(opened, opened, opened + 3 * second));
        assert!(!is_fresh(opened, opened, opened + IDLE), "idle");
        assert!(is_fresh(opened, opened + 58 * second, opened + 59 * second));
        assert!(!is_fresh(opened, opened + 60 * second, opened + MAX_AGE));
    }
}

//! How gateways are reached: whose turn it is, which addresses are tried in which order, and a connection to one of them.

use std::net::SocketAddr;

use tokio::time::{timeout, timeout_at};

use super::{Gateways, HandOverError, REACH_ONE, TURN, unreachable};
use crate::clock::{self, Instant};
use crate::gateway::addresses::{host_and_port, is_own};
use crate::gateway::connection::Connection;
use crate::gateway::identity::IdentityError;
use crate::lock;
use crate::message::envelope::QueueId;
use crate::net::dial;

impl Gateways {
    pub(super) async fn place(&self) -> Result<tokio::sync::SemaphorePermit<'_>, HandOverError> {
        let place = timeout(TURN, self.places.acquire()).await;
        place.ok().and_then(Result::ok).ok_or(HandOverError::Time)
    }

    /// The addresses to try for a message: the one that may have it, alone for a while and then first.
    pub(super) async fn addresses_for(
        &self,
        id: &QueueId,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, HandOverError> {
        if let Some(address) = self.doubt(id) {
            return Ok(vec![address]);
        }
        let mut addresses = self.addresses(deadline).await?;
        let preferred = self.preferred(id);
        // The order of the others stays.
        addresses.sort_by_key(|address| Some(*address) != preferred);
        Ok(addresses)
    }

    /// All addresses, in an order that is another one each time.
    pub(super) async fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, HandOverError> {
        let gateway = self.identity.gateway().ok_or(IdentityError::NoGateway)?;
        let (host, port) = host_and_port(&gateway.host);
        let fixed = lock(&self.fixed).clone();
        let mut addresses = match fixed {
            Some(fixed) => fixed,
            None => {
                let found = timeout_at(deadline, dial::resolve(host, port)).await;
                found.map_err(|_| HandOverError::Time)??
            }
        };
        addresses.retain(|address| self.own_port != Some(address.port()) || !is_own(*address));
        Ok(lock(&self.unresponsive).ordered(addresses, clock::now(), clock::chance))
    }

    pub(super) async fn connect(
        &self,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<Connection, HandOverError> {
        let basis = self.identity.basis()?;
        let (config, name) = self.identity.client().await?;
        let deadline = deadline.min(clock::now() + REACH_ONE);
        let opened = timeout_at(deadline, Connection::open(address, config, name, basis)).await;
        let opened = match opened {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(unreachable(address, &error)),
            Err(_) => Err(HandOverError::Unreachable { address, met: "it does not answer in time".into() }),
        };
        match &opened {
            Ok(_) => lock(&self.unresponsive).remove(address),
            Err(_) => lock(&self.unresponsive).add(address, clock::now()),
        }
        opened
    }

    /// The gateway that may have it, also when that was long ago; none once it did not answer any more.
    pub(super) fn preferred(&self, id: &QueueId) -> Option<SocketAddr> {
        let now = clock::now();
        let preferred = lock(&self.doubts).preferred(id, now)?;
        let is_silent = lock(&self.unresponsive).contains(preferred, now);
        (!is_silent || self.doubt(id).is_some()).then_some(preferred)
    }
}

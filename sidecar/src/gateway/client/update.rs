//! What came of an attempt whose message a gateway has: told to that gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Gateways, HandOverError, MAX_ADDRESSES, REACH, REACH_ONE};
use crate::clock;
use crate::gateway::protocol::{Command, Update};
use crate::message::envelope::QueueId;
use crate::spool::{Progress, format};

/// An attempt of which a gateway is still to be told.
pub struct Following(Arc<Gateways>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.followed.send_modify(|followed| *followed -= 1);
    }
}

impl Gateways {
    /// Tells the gateway at `address`, which has the message, how far it has come since. After a restart it may have another address, or
    /// may have handed the message on: then the others are asked.
    ///
    /// # Errors
    /// When no gateway that has the message could be told.
    pub async fn update(
        &self,
        address: SocketAddr,
        id: &QueueId,
        progress: &Progress,
    ) -> Result<(), HandOverError> {
        let state = format::encode_progress(progress)?;
        let command = Command::State(Update { id: id.clone(), state: state.len() });
        let _place = self.place().await?;
        let Err(error) = self.update_at(address, &command, &state).await else { return Ok(()) };
        if !error.may_be_elsewhere() {
            return Err(error);
        }
        let Ok(others) = self.addresses(clock::now() + REACH).await else { return Err(error) };
        for other in others.into_iter().filter(|other| *other != address).take(MAX_ADDRESSES) {
            match self.update_at(other, &command, &state).await {
                Err(other) if other.may_be_elsewhere() => {}
                result => return result,
            }
        }
        Err(error)
    }

    async fn update_at(
        &self,
        address: SocketAddr,
        command: &Command,
        state: &[u8],
    ) -> Result<(), HandOverError> {
        let mut connection = match self.open.take(Some(address), &self.identity.basis()?) {
            Some(connection) => connection,
            None => self.connect(address, clock::now() + REACH_ONE).await?,
        };
        let sent = connection.send(command, &[state], None).await;
        self.answered(connection, sent)
    }

    /// Counts an attempt of which a gateway is to be told.
    pub fn follow(self: &Arc<Self>) -> Following {
        self.followed.send_modify(|followed| *followed += 1);
        Following(Arc::clone(self))
    }

    /// Completes when the gateways were told of all attempts.
    pub async fn all_told(&self) {
        // The sender is this value's own.
        let _ = self.followed.subscribe().wait_for(|followed| *followed == 0).await;
    }
}

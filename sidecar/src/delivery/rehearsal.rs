//! A transaction without its message: MAIL and RCPT as they would be said, then RSET.
//!
//! The same commands, replies and judgements as [`super::transaction`] has, so that what a rehearsal finds is what mail
//! would meet. Nothing is sent: without DATA there is no message.

use async_trait::async_trait;

use super::Deliver;
use super::classify::Stage;
use super::outcome::{Met, Verdict};
use crate::envelope::Envelope;

/// How far a walk came.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// The conditions met on the way, in order.
    pub met: Vec<Met>,
    /// Positive answers to MAIL and RCPT.
    pub answers: Vec<(Stage, String)>,
    /// Why it ended early, when it did.
    pub stopped: Option<Verdict>,
}

/// A way that can be walked without a message.
#[async_trait]
pub trait Rehearse: Send + Sync {
    /// Walks it on a connection of its own, and notes in `rehearsal` how far it came; also when it is dropped.
    async fn rehearse(&self, envelope: &Envelope, rehearsal: &mut Rehearsal);
}

/// A way out that can be rehearsed.
pub trait Way: Deliver + Rehearse {}

impl<T: Deliver + Rehearse> Way for T {}

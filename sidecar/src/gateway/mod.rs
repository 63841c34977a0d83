//! Between the sidecars of a route and its gateway: messages that are handed over, and the certificates by which the two know
//! each other.
//!
//! ```text
//!  accept ─┐                                                              ┌─► queue ─► spool, synced
//!  end ────┴─► client ─ connection ══ XSPOOL over mutual TLS ══► server ─ session
//! ```
//!
//! * [`protocol`]: what is said. [`identity`]: who may say it.
//! * [`client`]: hands one message over. `flush`: all that waits, once. [`backlog`]: what waits in a pod and should not.
//!   [`end`]: all that is left when a pod ends.
//! * [`check`]: whether a gateway can be reached.
//! * [`server`]: takes messages over, in a gateway.

mod addresses;
pub mod backlog;
pub mod check;
pub mod client;
mod connection;
mod doubts;
pub mod end;
mod error;
mod flush;
pub mod identity;
mod pool;
pub mod protocol;
pub mod server;
mod session;
pub mod smtp;

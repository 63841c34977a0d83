//! The listener of a gateway for pods and machines without a sidecar, over real sockets and TLS: who gets in, and who does not.

#![cfg(test)]

mod client;
mod clients;
mod files;
mod limits;
mod open_relay;
mod program;
mod server;
mod starttls;

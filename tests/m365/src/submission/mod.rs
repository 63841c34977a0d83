//! The Exchange Online half: client submission on port 587, and the two services that speak like it, High Volume Email and
//! Communication Services.
//!
//! ```text
//!  socket ─► connection ─► Session::receive(bytes, &mut Office, now) ─► [Step] ─► connection ─► socket
//!             (I/O)          command · authentication · transaction · data · acceptance   (all pure)
//! ```
//! The session is a value: bytes, the shared [`Office`](crate::office::Office) and the time go in, steps come out. It
//! refuses to know sockets, TLS and clocks. The conversation on port 25 is the same session with another
//! [`Face`](crate::mailbox::Face); its rules are in [`crate::relay`].

mod acceptance;
pub mod authentication;
pub mod command;
mod communication_services;
pub mod connection;
pub mod data;
mod faulted;
mod high_volume_email;
mod input;
pub mod line;
pub mod message;
mod relay_acceptance;
mod relay_envelope;
mod service;
pub mod session;
mod speech;
pub mod transaction;
mod transcript;
pub mod xoauth2;

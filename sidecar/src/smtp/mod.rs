//! SMTP as values: octets in, steps out. No socket, no clock, no disk, no log in this folder.
//!
//! ```text
//!              ┌──────────────── session ────────────────┐
//!  octets ──►  │ line ─► command ─► state ─► answer       │ ──► Write · Begin · Store · Verify · Close …
//!              │ data  ─► decoder ─► header pass          │ ──► the message's octets
//!              └──────────────────────────────────────────┘
//! ```

pub mod answer;
pub mod auth;
pub mod authors;
pub mod command;
pub mod data;
pub mod encoded_word;
pub mod header;
pub mod line;
pub mod mailboxes;
pub mod recipients;
pub mod rule_action;
pub mod senders;
pub mod session;
pub mod trace;
pub mod transaction;

pub use mailroute_replies::reply;

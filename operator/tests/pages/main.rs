//! Pages that are written from what the operator is made of: its resource, and what it says.
//!
//! After a change: `make crds` writes every page again, and
//! `MAILROUTE_WRITE=1 cargo test -p mailroute-operator --test pages` those that are written here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod messages;
mod resource;

#[path = "../../../crates/route/tests/pages/page.rs"]
#[expect(dead_code, reason = "shared with the pages of the contract, which use more of it")]
mod page;

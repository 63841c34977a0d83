//! Pages that are written from the code, and pages that are compared with it.
//!
//! Code of both programs is read as text where it is not part of the contract, so that a page about both needs neither of
//! them built. After a change: `make crds` writes every page again, and
//! `MAILROUTE_WRITE=1 cargo test -p mailroute-route --test pages` those that are written here.

#![expect(clippy::expect_used, clippy::panic, reason = "a test says what it cannot read")]

mod by_hand;
mod chart_readme;
mod metrics;
mod page;
mod reasons;
mod tables;
mod troubleshooting;

//! The commands beside `run`: [`queue`], [`check`], [`send`] and [`health_check`], and what answers the first and the last of
//! them in the sidecar that runs, over a [`socket`] in the spool each.

pub mod check;
pub mod health_check;
pub mod queue;
pub mod send;
pub mod socket;

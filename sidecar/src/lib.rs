//! SMTP on localhost, forwarded through Microsoft 365.

pub mod accept;
pub mod admin;
pub mod app;
pub mod args;
pub mod attempt;
pub mod budget;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod file_watcher;
pub mod gateway;
pub mod listener;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod net;
pub mod outcome;
pub mod queue;
pub mod report;
pub mod route_deleted;
pub mod shutdown;
pub mod smtp;
pub mod spool;
pub mod token;
pub mod upstream;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use mailroute_entra::{clock, secret};

/// The value of a lock. What is kept in one holds after every line, so a panic elsewhere changes nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

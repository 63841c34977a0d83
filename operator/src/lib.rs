//! The MailRoute operator: turns `MailRoute` resources into the configuration of their sidecars, adds the sidecar to
//! labelled pods, and shows in `status` what the sidecars meet at Microsoft 365.
//!
//! ```text
//! kubectl apply MailRoute ──► cache (resolved) ──► controller: render ► apply ► status ► publish
//!                                                             (core)           (core)
//! new labelled pod ─────────► webhook ──► inject (core) ──► JSON patch with the sidecar
//! sidecar's report ─────────► service (TokenReview) ──► controller ──► status, Events
//! ```

pub mod admin;
pub mod api_error;
pub mod app;
pub mod args;
pub mod cache;
pub mod controller;
pub mod events;
pub mod inject_files;
pub mod injection_flags;
pub mod installation_test;
pub mod leader_election;
pub mod logging;
pub mod metrics;
pub mod pki;
pub mod preflight;
pub mod rate_limit;
pub mod server;
pub mod service;
pub mod webhook;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A panic under one of the operator's locks leaves whole values behind, so a poisoned lock is used like any other.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

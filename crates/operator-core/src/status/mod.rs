//! What the status of a route should say. Pure.
//!
//! * [`mod@compute`]: the whole status. [`aggregate`]: from what many sidecars met to one verdict for each condition. `evidence`:
//!   what of it still stands.
//! * One file for each condition that is not observed by sidecars alone: `dns_published`, `federation_fits`, `sidecars_current`,
//!   `sidecars_reporting`; `pods_refused` is what Ready says of refused pods.
//! * [`lost_messages`]: what is said of mail that pods left behind.

pub mod aggregate;
pub mod compute;
pub mod dns_published;
mod evidence;
mod federation_fits;
mod finding;
pub mod lost_messages;
mod pods_refused;
mod sidecars_current;
pub mod sidecars_reporting;

pub use compute::{Acceptance, Facts, compute};

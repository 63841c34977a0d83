//! What the status of a route should say. Pure.
//!
//! * [`mod@compute`]: the whole status. [`aggregate`]: from what many sidecars met to one verdict for each condition. `evidence`:
//!   what of it still stands.
//! * One file for each condition that is not observed by sidecars alone: `accepted`, `ready` (with `pods_refused`, what it says of
//!   refused pods), `progress`, `dns_published`, `federation_fits`, `gateway_ready`, `sidecars_current`, `sidecars_reporting`. `facts`: what all of them read.
//! * [`lost_messages`]: what is said of mail that pods left behind.

mod accepted;
pub mod aggregate;
pub mod compute;
mod dns_published;
mod evidence;
mod facts;
mod federation_fits;
mod finding;
mod gateway_ready;
pub mod lost_messages;
mod mailboxes;
mod pods_refused;
mod progress;
mod ready;
mod sidecars_current;
pub mod sidecars_reporting;
mod tenant_quota;

pub use compute::compute;
pub use facts::{Acceptance, DnsNotice, DnsVerdict, RouteFacts, SilentSidecar};
pub use ready::is_shown;

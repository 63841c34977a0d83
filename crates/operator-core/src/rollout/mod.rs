//! Pods whose sidecar is not as a new pod would get it: which they are, and who may be evicted next. Pure.
//!
//! ```text
//!  pods, route, platform ─► age ─► plan ─► status (named in SidecarsCurrent)
//!                                   │ next, while the route is Ready
//!                                   ▼
//!                                  pace ─► evict (the operator's) ─► history
//! ```
//! * [`age`]: current or not. [`mod@plan`]: who may go next, and what each of the others waits for. [`history`]: what was
//!   evicted and not replaced yet.
//!
//! Invariants: one at a time for each owner, and the next when a new pod has taken its place and is ready; none without a
//! controller that makes it again, none that runs to an end, and none that holds mail which would go with it; none while a new sidecar is not ready.

pub mod age;
pub mod history;
pub mod plan;

use std::time::Duration;

/// Between two evictions of all routes together: twelve a minute.
pub const PACE: Duration = Duration::from_secs(5);

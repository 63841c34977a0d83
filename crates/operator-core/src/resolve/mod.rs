//! From a `MailRoute`, as people write it, and what the platform says, to the route as its sidecars read it and its pods get it. Pure.
//!
//! ```text
//!  MailRoute ─────────┐
//!  PlatformSettings ──┴─► resolve ─► RouteResolution ─► accepted? ─► render ─► ConfigMap with route.json
//!                                      │ route
//!                                      └─► inject, status
//! ```
//! A route is resolved once, when it comes or changes; the result is stored beside it, and everybody reads that.
//!
//! * `resolution`: what comes out. `platform`: what goes in beside the route. [`operator_identity`]: which applications the operator
//!   can prove itself as, and which routes may use them. [`mailbox_rules`]: which namespaces may send as which mailbox.
//! * `method`: how mail leaves, made of `endpoints` (the servers) and `credential` (the mounted files). `rules`: what
//!   is done to messages. `validate`: the rest of a route. `invalid`: what can be wrong with it.
//! * [`render`]: the ConfigMap. `shown`: what people see of a route.

mod credential;
mod endpoints;
mod invalid;
mod limits;
pub mod mailbox_rules;
mod method;
pub mod operator_identity;
mod platform;
pub mod render;
mod resolution;
mod rules;
mod shown;
mod validate;

pub use credential::MountedSecret;
pub use invalid::Invalid;
pub use limits::LimitPreset;
use method::method;
pub use platform::PlatformSettings;
pub use resolution::{NotAccepted, ResolvedRoute, RouteResolution, resolve};
pub use shown::{place, sender};

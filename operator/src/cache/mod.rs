//! What the operator knows of the cluster, in memory on every replica.
//!
//! * [`watch`]: watches MailRoutes, and the pods that carry the route label. [`scope`]: in which namespaces. [`route_bounds`]:
//!   how much of a route is stored, and how many routes of a namespace.
//! * [`route`]: a MailRoute and its resolution.
//! * [`pods`]: the pods, by name and by route.
//! * [`namespaces`]: which namespaces name the route of their pods.
//! * [`triggers`]: the routes that have to be looked at again.
//! * [`federation_capacity`]: under how many ServiceAccounts the pods of each application run.
//!
//! Sidecars' reports are in [`mailroute_operator_core::reports`].

pub mod federation_capacity;
pub mod namespaces;
pub mod pods;
pub mod route;
pub mod route_bounds;
pub mod scope;
pub mod triggers;
pub mod watch;

//! What the operator knows of the cluster, in memory on every replica.
//!
//! * [`watch`]: MailRoutes, and the pods that carry the route label, as the API server tells of them. [`scope`]: of which
//!   namespaces. [`route_bounds`]: what is stored of a route, and how many routes of a namespace.
//! * [`route`]: a MailRoute and its resolution.
//! * [`triggers`]: which routes something happened to.
//! * [`federation_capacity`]: under how many ServiceAccounts the pods of each application run.
//!
//! What sidecars reported is beside it: [`mailroute_operator_core::reports`].

pub mod federation_capacity;
pub mod route;
pub mod route_bounds;
pub mod scope;
pub mod triggers;
pub mod watch;

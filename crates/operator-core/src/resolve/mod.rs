//! From a `MailRoute`, as people write it, to the route as its sidecars read it. Pure.
//!
//! * [`operator_identity`]: which applications the operator can prove itself as, and which routes may use them.
//! * [`mod@accept`]: whether the platform lets a namespace have what its route names. [`mod@validate`]: whether the route makes sense.
//! * [`mod@method`]: how mail leaves, made of `endpoints` (the servers) and `credential` (the mounted files).
//! * [`render`]: the ConfigMap. `shown`: what people see of it.

pub mod accept;
mod credential;
mod endpoints;
pub mod method;
pub mod operator_identity;
pub mod render;
mod shown;
pub mod validate;

pub use credential::secret;
pub use endpoints::authority;
pub use method::method;
pub use shown::{place, sender};

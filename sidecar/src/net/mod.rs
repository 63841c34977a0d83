//! The way out of the pod: names to connections, connections to verified TLS, TLS to one HTTPS exchange.
//!
//! * [`dial`]: resolve a name and connect, IPv4 first.
//! * [`tls`]: whom to trust.
//! * [`https`]: one bounded POST.
//!
//! Knows nothing of mail, tokens or routes. Every call ends within a bounded time.

pub mod dial;
pub mod https;
pub mod tls;

//! The way out of the pod: names to connections, connections to verified TLS, TLS to one HTTPS exchange.
//!
//! * [`dial`]: resolve a name and connect, IPv4 first.
//! * [`tls`]: whom to trust.
//! * [`https`]: one bounded POST. [`control_service`]: one to the operator.
//! * [`certificate`]: a chain and its key, as a client presents them: read, matched, its end told.
//!
//! Knows nothing of mail and tokens. Every call ends within a bounded time.

pub mod certificate;
pub mod control_service;
pub mod dial;
pub mod https;
pub mod tls;

use std::io;

/// Whether listening failed because the address, or its whole family, is not there.
pub fn is_absent(error: &io::Error) -> bool {
    /// `EAFNOSUPPORT`, which std has no kind for.
    const NO_SUCH_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
}

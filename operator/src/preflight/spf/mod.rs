//! SPF (RFC 7208): what a record says, and whom it lets send.
//!
//! * [`record`]: the text of a record as a value.
//! * [`policy`]: the records of a domain, followed through includes.

pub mod policy;
pub mod record;

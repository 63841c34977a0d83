//! SPF (RFC 7208): what a record says, and whom it lets send.
//!
//! * [`record`]: the text of a record as a value.
//! * [`policy`]: the records of a domain, followed through includes: can they be evaluated?
//! * [`permit`]: whom they let send.

pub mod permit;
pub mod policy;
pub mod record;

#[cfg(test)]
mod tests;

//! Between the sidecars of a route and its gateway: messages that are handed over, and the certificates by which the two know
//! each other.

pub mod identity;
pub mod review;
pub mod smtp;

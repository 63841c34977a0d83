//! SMTP on localhost, forwarded through Microsoft 365.

pub mod body;
pub mod envelope;
pub mod server;
pub mod smtp;

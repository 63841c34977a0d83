//! SMTP on localhost, forwarded through Microsoft 365.

pub mod body;
pub mod clock;
pub mod envelope;
pub mod net;
pub mod secret;
pub mod server;
pub mod smtp;
pub mod trace;
pub mod token;

//! SMTP on localhost, forwarded through Microsoft 365.

pub mod admin;
pub mod app;
pub mod args;
pub mod body;
pub mod breaker;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod door;
pub mod envelope;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod relay;
pub mod report;
pub mod secret;
pub mod server;
pub mod sessions;
pub mod shutdown;
pub mod smtp;
pub mod token;
pub mod trace;
pub mod upstream;
pub mod usage;

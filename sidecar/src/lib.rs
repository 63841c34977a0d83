//! SMTP on localhost, forwarded through Microsoft 365.

pub mod admin;
pub mod alive;
pub mod app;
pub mod args;
pub mod body;
pub mod breaker;
pub mod budget;
pub mod by_hand;
pub mod certificate;
pub mod check;
pub mod config;
pub mod delivery;
pub mod dispatch;
pub mod door;
pub mod envelope;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod net;
pub mod probe;
pub mod queue;
pub mod redact;
pub mod relay;
pub mod report;
pub mod server;
pub mod service;
pub mod sessions;
pub mod settings;
pub mod shutdown;
pub mod smtp;
pub mod spool;
pub mod token;
pub mod trace;
pub mod upstream;
pub mod watched;

pub use mailroute_entra::{clock, secret};

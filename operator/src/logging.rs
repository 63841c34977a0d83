//! Structured logs to standard error: JSON for machines, text for people.
//!
//! Only our own targets speak. The Kubernetes client logs a response that it cannot read with its whole body, as a
//! warning, and ours carry sidecars' tokens (TokenReview) and the key of the authority (Secret).

use std::io;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One readable line.
    Text,
}

/// Starts logging; a second call changes nothing.
pub fn start(format: Format, level: Level) {
    let ours = Targets::new().with_target("mailroute_operator", level);
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_filter(ours)),
        Format::Text => Box::new(lines.with_ansi(false).with_filter(ours)),
    };
    // Fails only when a subscriber is already set, which then is the one to keep.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

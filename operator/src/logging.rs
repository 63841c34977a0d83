//! Structured logs to standard error: JSON for machines, text for people.

use std::io;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::fmt;

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
    let builder = fmt().with_max_level(level).with_writer(io::stderr).with_target(true);
    // Fails only when a subscriber is already set, which then is the one to keep.
    let _ = match format {
        Format::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        Format::Text => builder.with_ansi(false).try_init(),
    };
}

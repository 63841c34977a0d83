//! Structured logs to standard error: JSON for machines, text for people.
//!
//! Only our own targets speak. The Kubernetes client logs a response that it cannot read with its whole body, as a
//! warning, and ours carry sidecars' tokens (TokenReview) and the key of the authority (Secret).

use std::io;

use clap::ValueEnum;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// One readable line.
    Text,
}

/// Starts logging; a second call changes nothing.
pub fn start(format: Format, level: Level) {
    // Fails only when a subscriber is already set, which then is the one to keep.
    let _ = subscriber(format, level, io::stderr).try_init();
}

/// What [`start`] sets up, writing elsewhere.
pub fn subscriber<W>(format: Format, level: Level, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let ours = Targets::new().with_target("mailroute_operator", level);
    let lines = fmt::layer().with_writer(to);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_filter(ours)),
        Format::Text => Box::new(lines.with_ansi(false).with_filter(ours)),
    };
    tracing_subscriber::registry().with(lines)
}

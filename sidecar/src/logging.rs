//! Log lines: JSON for machines, text for people, on standard error.
//!
//! Only our own targets speak. Dependencies stay silent, since some of them would print requests.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object on each line.
    #[default]
    Json,
    /// For reading along.
    Text,
}

/// Starts logging.
///
/// # Errors
/// When something else in the process has started it already.
pub fn start(format: Format, level: Level) -> Result<(), TryInitError> {
    let ours = Targets::new().with_target("mailroute_sidecar", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_target(false).with_filter(ours)),
        Format::Text => Box::new(lines.with_target(false).with_filter(ours)),
    };
    tracing_subscriber::registry().with(lines).try_init()
}

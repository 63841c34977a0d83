//! What the fuzz targets check. Shared with the sidecar's property tests, which run the same on generated input.

pub mod checks;
#[path = "../../tests/dialogs/core.rs"]
pub mod core;
pub mod second_reader;

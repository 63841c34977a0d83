//! The controller.
pub mod triggers;

//! The simulator over real sockets and TLS: dialogs, token endpoint, submission, control API.

mod client;
mod control;
mod dialogs;
mod login;
mod submission;
mod wire;

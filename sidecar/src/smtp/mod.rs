//! SMTP as values: octets in, steps out. No socket, no clock, no disk, no log in this folder.

pub mod reply;

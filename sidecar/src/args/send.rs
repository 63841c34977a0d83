//! The command line of `send`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Output, address, default_route, seconds};
use crate::message::envelope::Address;

/// Options of `send`.
#[derive(Clone, Debug, Args)]
pub struct Send {
    /// The rendered route, for the port and the default sender.
    #[arg(long, value_name = "FILE", default_value_os_t = default_route())]
    pub route: PathBuf,

    /// Port on localhost, instead of the route's port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Sender. Default: the route's mailbox, or postmaster of its first accepted domain.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub from: Option<Address>,

    /// Recipient.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub to: Address,

    /// Subject.
    #[arg(long, value_name = "TEXT", default_value = "MailRoute test message", value_parser = one_line)]
    pub subject: String,

    /// Maximum time for the whole conversation.
    #[arg(long, value_name = "SECONDS", default_value = "270", value_parser = seconds)]
    pub timeout: Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// A text that cannot begin another line of a header.
fn one_line(text: &str) -> Result<String, &'static str> {
    if text.contains(char::is_control) || text.len() > 500 {
        Err("one line of at most 500 octets, without control characters")
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_line() {
        assert_eq!(one_line("Grüße"), Ok("Grüße".to_owned()));
        for wrong in ["a\r\nBcc: eve@example.com", "a\x1b", &"x".repeat(501)] {
            assert!(one_line(wrong).is_err(), "{wrong:?}");
        }
    }
}

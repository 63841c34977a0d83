//! How long each step may take, from RFC 5321 §4.5.3.2, and what bounds them together.
//!
//! A limit is for a whole step, not for a read: a peer that sends an octet a second gets no longer than a silent one.
//! Bounds over several steps keep it from collecting the limits of all of them.

use std::time::Duration;

use crate::outcome::classify::Stage;

/// The TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(30);

/// Everything from the name to the log-in: the five minutes that RFC 5321 gives the greeting alone.
pub const OPENING: Duration = Duration::from_secs(300);

/// MAIL, every RCPT and DATA: twice the five minutes that each of them has.
pub const ENVELOPE: Duration = Duration::from_secs(600);

/// One piece of the message (RFC 5321 §4.5.3.2.5).
pub const BLOCK: Duration = Duration::from_secs(180);

/// Slowest transfer that is waited for, octets a second: 150 MiB then take 80 minutes.
const SLOWEST: u64 = 32 * 1024;

/// The content of a message of `octets`, whatever its pieces take.
pub const fn content(octets: u64) -> Duration {
    Duration::from_secs(BLOCK.as_secs() + octets / SLOWEST)
}

/// Longest wait for a reply.
pub const fn reply(stage: Stage) -> Duration {
    Duration::from_secs(match stage {
        // RFC 5321 §4.5.3.2.1; the others have no limit of their own.
        Stage::Greeting | Stage::Ehlo | Stage::StartTls | Stage::Auth => 300,
        // §4.5.3.2.2, .3
        Stage::Mail | Stage::Rcpt => 300,
        // §4.5.3.2.4
        Stage::Data => 120,
        // §4.5.3.2.6
        Stage::Message => 600,
        // A courtesy.
        Stage::Quit => 5,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_has_time_and_a_small_one_is_not_waited_for_all_day() {
        assert_eq!(content(4096), Duration::from_secs(180));
        assert_eq!(content(150 * 1024 * 1024), Duration::from_secs(180 + 4800));
    }
}

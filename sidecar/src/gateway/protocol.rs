//! What is said to a gateway: SMTP with one private extension (RFC 5321 §2.2.2), which moves a message as the spool has it.
//!
//! ```text
//! S: 220 mailroute gateway ESMTP
//! C: EHLO mailroute                                S: 250-mailroute gateway
//!                                                  S: 250 XSPOOL
//! C: XSPOOL <queue id> Queue 412 171 20480
//!    at once, so many octets: head and progress as in the two files of the spool, and the message
//!                                                  S: 250, when all of it is synced
//! C: XSTATE <queue id> 180, and so many octets     S: 250, when the progress is replaced
//! C: QUIT
//! ```
//!
//! A message that the gateway has, or has had, is answered with 250 and not stored again. 4yz: not now; 5yz: never.
//!
//! Pure. Owns the commands and their bounds; refuses to know connections and what is done with a message.

use std::fmt;

use crate::message::envelope::QueueId;
use crate::spool::Shelf;
use crate::spool::frame::MAX_JSON_BYTES;

/// The extension, as EHLO lists it and as the command is called.
pub const XSPOOL: &str = "XSPOOL";

/// The command that replaces the progress of a message.
const XSTATE: &str = "XSTATE";

/// Longest command line, octets with its line end (RFC 5321 §4.5.3.1.4).
pub const MAX_LINE_BYTES: usize = 512;

/// Most octets of a head, and of a progress: the largest JSON with the line in front of it and two line ends.
pub const MAX_PART_BYTES: usize = MAX_JSON_BYTES + 128;

/// Most octets of a message: what Exchange takes at most (150 MiB), and what a `Received` line and the like add. Not the route's own limit,
/// which may have been higher when the message was accepted.
pub const MAX_MESSAGE_BYTES: u64 = 160 * 1024 * 1024;

/// The name that clients of ours give themselves.
const NAME: &str = "mailroute";

/// Longest name that a client gives itself.
const MAX_NAME_BYTES: usize = 255;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// EHLO. Who the client is, its certificate says; its name for itself means nothing.
    Hello,
    /// Take a message over.
    Spool(Transfer),
    /// Replace the progress of a message.
    State(Update),
    /// Nothing.
    Noop,
    /// The end.
    Quit,
}

/// A message, and how many octets of it follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which message.
    pub id: QueueId,
    /// Whether it waits or was given up.
    pub shelf: Shelf,
    /// Octets of its head.
    pub head: usize,
    /// Octets of its progress.
    pub state: usize,
    /// Octets of the message.
    pub message: u64,
}

/// A progress, and how many octets of it follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Of which message.
    pub id: QueueId,
    /// Octets of the progress.
    pub state: usize,
}

/// Why a line is no command. What follows it cannot be told from commands, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No command of that name.
    #[error("unknown command")]
    Unknown,
    /// A command with other arguments than it has.
    #[error("the arguments are not valid")]
    Arguments,
    /// More octets than are taken.
    #[error("the message, its head or its progress is too large")]
    TooLarge,
}

impl Command {
    /// Reads a line, without its line end.
    ///
    /// # Errors
    /// When it is no command, or announces more than is taken.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = std::str::from_utf8(line).map_err(|_| CommandError::Unknown)?;
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let arguments: Vec<&str> = words.take(6).collect();
        match (verb.as_str(), arguments.as_slice()) {
            ("EHLO", [name]) if is_name(name) => Ok(Self::Hello),
            (XSPOOL, [id, shelf, head, state, message]) => Ok(Self::Spool(Transfer {
                id: QueueId::parse(id).ok_or(CommandError::Arguments)?,
                shelf: shelf_named(shelf).ok_or(CommandError::Arguments)?,
                head: part(head)?,
                state: part(state)?,
                message: number(message, MAX_MESSAGE_BYTES)?,
            })),
            (XSTATE, [id, state]) => {
                let id = QueueId::parse(id).ok_or(CommandError::Arguments)?;
                Ok(Self::State(Update { id, state: part(state)? }))
            }
            ("NOOP", []) => Ok(Self::Noop),
            ("QUIT", []) => Ok(Self::Quit),
            ("EHLO" | XSPOOL | XSTATE | "NOOP" | "QUIT", _) => Err(CommandError::Arguments),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// The line, without its line end.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => write!(f, "EHLO {NAME}"),
            Self::Spool(Transfer { id, shelf, head, state, message }) => {
                write!(f, "{XSPOOL} {id} {} {head} {state} {message}", shelf_name(*shelf))
            }
            Self::State(Update { id, state }) => write!(f, "{XSTATE} {id} {state}"),
            Self::Noop => f.write_str("NOOP"),
            Self::Quit => f.write_str("QUIT"),
        }
    }
}

const fn shelf_name(shelf: Shelf) -> &'static str {
    match shelf {
        Shelf::Queue => "Queue",
        Shelf::Dead => "Dead",
    }
}

fn shelf_named(name: &str) -> Option<Shelf> {
    [Shelf::Queue, Shelf::Dead].into_iter().find(|shelf| shelf_name(*shelf) == name)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(|octet| octet.is_ascii_graphic())
}

/// The length of a head or a progress, which is never empty.
fn part(text: &str) -> Result<usize, CommandError> {
    let len = number(text, MAX_PART_BYTES as u64)?;
    usize::try_from(len).ok().filter(|&len| len > 0).ok_or(CommandError::Arguments)
}

/// Digits without a zero in front, as they are printed.
fn number(text: &str, most: u64) -> Result<u64, CommandError> {
    let is_number =
        text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_number || text.is_empty() {
        return Err(CommandError::Arguments);
    }
    // What does not fit into the type does not fit the bound either.
    text.parse().ok().filter(|&number| number <= most).ok_or(CommandError::TooLarge)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn id() -> QueueId {
        QueueId::new(Timestamp::UNIX_EPOCH, 7)
    }

    #[test]
    fn what_is_printed_is_read_the_same() {
        let transfer = |shelf, message| Transfer { id: id(), shelf, head: 412, state: 1, message };
        for command in [
            Command::Hello,
            Command::Spool(transfer(Shelf::Queue, 20_480)),
            Command::Spool(transfer(Shelf::Dead, MAX_MESSAGE_BYTES)),
            Command::Spool(Transfer { head: MAX_PART_BYTES, ..transfer(Shelf::Queue, 0) }),
            Command::State(Update { id: id(), state: 171 }),
            Command::Noop,
            Command::Quit,
        ] {
            let line = command.to_string();
            assert!(line.len() + 2 <= MAX_LINE_BYTES, "{line}");
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_more_than_is_taken_is_told_apart() {
        let spool = |head: &str, message: &str| {
            Command::parse(format!("XSPOOL {} Queue {head} 1 {message}", id()).as_bytes()).unwrap_err()
        };
        assert_eq!(spool("1", &(MAX_MESSAGE_BYTES + 1).to_string()), CommandError::TooLarge);
        assert_eq!(spool(&(MAX_PART_BYTES + 1).to_string(), "1"), CommandError::TooLarge);
        assert_eq!(spool("1", "99999999999999999999999999"), CommandError::TooLarge);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let id = id();
        for (line, error) in [
            (String::new(), CommandError::Unknown),
            ("MAIL FROM:<a@b>".into(), CommandError::Unknown),
            ("EHLO".into(), CommandError::Arguments),
            ("EHLO a b".into(), CommandError::Arguments),
            ("QUIT now".into(), CommandError::Arguments),
            (format!("XSPOOL {id} queue 1 1 1"), CommandError::Arguments),
            (format!("XSPOOL {id} Queue 1 1"), CommandError::Arguments),
            (format!("XSPOOL {id} Queue 1 1 1 1"), CommandError::Arguments),
            (format!("XSPOOL {id} Queue 0 1 1"), CommandError::Arguments),
            (format!("XSPOOL {id} Queue +1 1 1"), CommandError::Arguments),
            (format!("XSPOOL {id} Queue 1  1 1"), CommandError::Arguments),
            ("XSPOOL ../../etc/passwd Queue 1 1 1".into(), CommandError::Arguments),
            (format!("XSTATE {id} -1"), CommandError::Arguments),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(error), "{line:?}");
        }
        assert_eq!(Command::parse(b"quit"), Ok(Command::Quit), "verbs have no case");
        assert_eq!(Command::parse(b"EHLO web-0"), Ok(Command::Hello), "whatever the name is");
    }
}

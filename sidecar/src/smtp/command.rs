//! One command line, read and printed.
//!
//! Owns the grammar of RFC 5321 §4.1; what MAIL and AUTH add to it is `mail`'s and [`super::auth`]'s. Refuses to know what may follow what. The line comes without its CR LF and without control
//! characters: [`super::session`] has seen to both.
//!
//! Liberties, all harmless and all met in practice: spaces after the colon of MAIL and RCPT, and at the end; an address there
//! without its angle brackets, as most servers accept it.

mod mail;
mod path;

use std::fmt;

pub use mail::Mail;

use super::auth;
use crate::message::envelope::{Address, AddressError};

/// A command, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Command {
    /// The client's name, whatever it is.
    Ehlo(String),
    /// The client's name, whatever it is.
    Helo(String),
    Mail(Mail),
    Rcpt(Address),
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    StartTls,
    /// What follows the mechanism is a secret, and is not kept.
    Auth(auth::Request),
    Bdat,
    /// The first line of a request in HTTP.
    Http,
}

/// Why a line is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such verb.
    #[error("command not recognised")]
    Unrecognised,
    /// The argument does not fit the verb.
    #[error("syntax error in the argument")]
    Argument,
    /// The sender is unusable.
    #[error("sender: {0}")]
    Sender(AddressError),
    /// The recipient is unusable.
    #[error("recipient: {0}")]
    Recipient(AddressError),
    /// An address is neither ASCII nor allowed, or able, to be UTF-8.
    #[error("address is not ASCII")]
    NonAscii,
    /// A parameter that was not offered.
    #[error("parameter not recognised")]
    UnknownParameter,
    /// A parameter that was offered, with a wrong value or twice.
    #[error("syntax error in a parameter")]
    Parameter,
}

impl Command {
    /// Parses a line, without its CR LF.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing of the line is kept.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii_end();
        let verb_len = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let (verb, argument) = (&line[..verb_len], line[verb_len..].trim_ascii_start());
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" => client_name(argument).map(Self::Ehlo),
            b"HELO" => client_name(argument).map(Self::Helo),
            b"MAIL" => Mail::parse(argument).map(Self::Mail),
            b"RCPT" => recipient(argument).map(Self::Rcpt),
            b"DATA" => bare(Self::Data, argument),
            b"RSET" => bare(Self::Rset, argument),
            b"QUIT" => bare(Self::Quit, argument),
            b"STARTTLS" => bare(Self::StartTls, argument),
            b"NOOP" => Ok(Self::Noop),
            b"VRFY" => Ok(Self::Vrfy),
            b"EXPN" => Ok(Self::Expn),
            b"HELP" => Ok(Self::Help),
            b"AUTH" => auth::Request::parse(argument).map(Self::Auth).ok_or(CommandError::Argument),
            b"BDAT" => Ok(Self::Bdat),
            b"GET" | b"HEAD" | b"POST" | b"PUT" | b"DELETE" | b"CONNECT" | b"OPTIONS" | b"TRACE"
            | b"PATCH" | b"PRI" => Ok(Self::Http),
            _ => Err(CommandError::Unrecognised),
        }
    }
}

/// A verb that takes no argument.
fn bare(command: Command, argument: &[u8]) -> Result<Command, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Argument) }
}

/// Anything but nothing: pods and laptops have names of all shapes, and ours is the only one that Microsoft sees.
fn client_name(argument: &[u8]) -> Result<String, CommandError> {
    if argument.is_empty() {
        Err(CommandError::Argument)
    } else {
        Ok(String::from_utf8_lossy(argument).into_owned())
    }
}

fn recipient(argument: &[u8]) -> Result<Address, CommandError> {
    let malformed = CommandError::Recipient(AddressError::Syntax);
    let (path, parameters) = path::split(argument, b"TO:").ok_or(malformed)?;
    if !parameters.is_empty() {
        return Err(CommandError::UnknownParameter);
    }
    path::address(path, CommandError::Recipient)
}

/// As on the wire, without CR LF.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ehlo(name) => write!(f, "EHLO {name}"),
            Self::Helo(name) => write!(f, "HELO {name}"),
            Self::Mail(mail) => mail.fmt(f),
            Self::Rcpt(address) => write!(f, "RCPT TO:<{address}>"),
            Self::Data => f.write_str("DATA"),
            Self::Rset => f.write_str("RSET"),
            Self::Noop => f.write_str("NOOP"),
            Self::Quit => f.write_str("QUIT"),
            Self::Vrfy => f.write_str("VRFY"),
            Self::Expn => f.write_str("EXPN"),
            Self::Help => f.write_str("HELP"),
            Self::StartTls => f.write_str("STARTTLS"),
            Self::Auth(request) => request.fmt(f),
            Self::Bdat => f.write_str("BDAT"),
            Self::Http => f.write_str("GET"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::auth::{Initial, Mechanism};
    use super::*;

    /// The arguments of a line with MAIL.
    pub(super) fn mail(line: &str) -> Result<Mail, CommandError> {
        match Command::parse(line.as_bytes())? {
            Command::Mail(mail) => Ok(mail),
            other => panic!("{line:?} is {other:?}"),
        }
    }

    #[test]
    fn verbs_have_no_case_and_tolerate_spaces_behind() {
        for (line, command) in [
            ("data", Command::Data),
            ("Rset  ", Command::Rset),
            ("NOOP whatever", Command::Noop),
            ("vrfy a@b", Command::Vrfy),
            (
                "auth plain AGEAYg==",
                Command::Auth(auth::Request { mechanism: Some(Mechanism::Plain), initial: Initial::Given }),
            ),
            ("GET / HTTP/1.1", Command::Http),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line:?}");
        }
    }

    #[test]
    fn other_words_are_not_recognised() {
        for line in ["", " ", "HELLO", "DATAX", "MAILFROM:<a@b>", " DATA", "XCLIENT", "Subject: x", "é"] {
            assert_eq!(Command::parse(line.as_bytes()), Err(CommandError::Unrecognised), "{line:?}");
        }
    }

    #[test]
    fn a_client_may_have_any_name_but_none() {
        assert_eq!(Command::parse(b"EHLO my host_1"), Ok(Command::Ehlo("my host_1".into())));
        assert_eq!(Command::parse(b"HELO b\xfcro"), Ok(Command::Helo("b\u{fffd}ro".into())));
        assert_eq!(Command::parse(b"EHLO "), Err(CommandError::Argument));
    }

    #[test]
    fn nothing_of_a_password_is_kept() {
        let command = Command::parse(b"AUTH PLAIN AHVzZXIAcGFzcw==").unwrap();
        assert_eq!(command.to_string(), "AUTH PLAIN =");
        assert!(!format!("{command:?}").contains("AHVz"));
        assert_eq!(Command::parse(b"AUTH"), Err(CommandError::Argument));
    }

    #[test]
    fn data_takes_no_argument() {
        assert_eq!(Command::parse(b"DATA now"), Err(CommandError::Argument));
    }
}

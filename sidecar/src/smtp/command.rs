//! One command line, read and printed.
//!
//! Owns the grammar of RFC 5321 §4.1 with the parameters of RFC 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8) and 4954
//! (AUTH, and AUTH= on MAIL). Refuses to know what may follow what. The line comes without its CR LF and without control
//! characters: [`super::session`] has seen to both.
//!
//! Two liberties, both harmless and both met in practice: spaces after the colon of MAIL and RCPT, and at the end.

use std::fmt;

use super::auth::{self, Initial, Mechanism};
use crate::envelope::{Address, AddressError, BodyType, ReversePath};

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

/// The arguments of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Where failures are to be reported.
    pub reverse_path: ReversePath,
    /// Announced size in octets. Zero, by which RFC 1870 §5 means "unknown", counts as absent.
    pub size: Option<u64>,
    /// Declared content.
    pub body: BodyType,
    /// RFC 6531 is asked for.
    pub smtp_utf8: bool,
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
            b"MAIL" => parse_mail(argument).map(Self::Mail),
            b"RCPT" => parse_rcpt(argument).map(Self::Rcpt),
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

fn parse_mail(argument: &[u8]) -> Result<Mail, CommandError> {
    let malformed = CommandError::Sender(AddressError::Syntax);
    let (path, parameters) = split_path(argument, b"FROM:").ok_or(malformed)?;
    let mut mail = parse_mail_parameters(parameters)?;
    mail.reverse_path = match path {
        b"" => ReversePath::Null,
        path => ReversePath::Address(parse_address(path, CommandError::Sender)?),
    };
    if mail.reverse_path.address().is_some_and(|address| !address.is_ascii()) && !mail.smtp_utf8 {
        return Err(CommandError::NonAscii);
    }
    Ok(mail)
}

fn parse_rcpt(argument: &[u8]) -> Result<Address, CommandError> {
    let malformed = CommandError::Recipient(AddressError::Syntax);
    let (path, parameters) = split_path(argument, b"TO:").ok_or(malformed)?;
    if !parameters.is_empty() {
        return Err(CommandError::UnknownParameter);
    }
    parse_address(path, CommandError::Recipient)
}

fn parse_address(path: &[u8], wrap: fn(AddressError) -> CommandError) -> Result<Address, CommandError> {
    let text = std::str::from_utf8(path).map_err(|_| CommandError::NonAscii)?;
    Address::parse(without_source_route(text)).map_err(wrap)
}

/// RFC 5321 §4.1.1.3: source routes are recognised and ignored.
fn without_source_route(path: &str) -> &str {
    match path.strip_prefix('@').and_then(|rest| rest.split_once(':')) {
        Some((_, address)) => address,
        None => path,
    }
}

/// Splits `KEYWORD <path> parameters` into what is between the brackets and what is behind them.
fn split_path<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (found, rest) = argument.split_at_checked(keyword.len())?;
    let path = rest.trim_ascii_start().strip_prefix(b"<").filter(|_| found.eq_ignore_ascii_case(keyword))?;
    let len = closing_bracket(path)?;
    let behind = &path[len + 1..];
    let parameters = behind.trim_ascii_start();
    (behind.len() != parameters.len() || behind.is_empty()).then_some((&path[..len], parameters))
}

/// Where the path ends: at the first `>` that is not quoted.
fn closing_bracket(path: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.iter().position(|&b| {
        let ends = b == b'>' && !quoted;
        quoted ^= b == b'"' && !escaped;
        escaped = b == b'\\' && quoted && !escaped;
        ends
    })
}

fn parse_mail_parameters(text: &[u8]) -> Result<Mail, CommandError> {
    let (mut size, mut body, mut smtp_utf8, mut auth) = (None, None, None, None);
    for parameter in text.split(|&b| b == b' ').filter(|parameter| !parameter.is_empty()) {
        let at = parameter.iter().position(|&b| b == b'=');
        let (keyword, value) =
            at.map_or((parameter, None), |at| (&parameter[..at], Some(&parameter[at + 1..])));
        match (keyword.to_ascii_uppercase().as_slice(), value) {
            (b"SIZE", Some(value)) => once(&mut size, parse_size(value)?)?,
            (b"BODY", Some(value)) => once(&mut body, parse_body(value)?)?,
            (b"SMTPUTF8", None) => once(&mut smtp_utf8, true)?,
            // Names who the client says submitted the message (RFC 4954 §5). Nobody is authenticated here, so it
            // means nothing, and is not passed on.
            (b"AUTH", Some(_)) => once(&mut auth, ())?,
            (b"SIZE" | b"BODY" | b"SMTPUTF8" | b"AUTH", _) => return Err(CommandError::Parameter),
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    Ok(Mail {
        reverse_path: ReversePath::Null,
        size: size.filter(|&size| size > 0),
        body: body.unwrap_or_default(),
        smtp_utf8: smtp_utf8.unwrap_or_default(),
    })
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), CommandError> {
    if slot.replace(value).is_some() { Err(CommandError::Parameter) } else { Ok(()) }
}

/// One to twenty digits (RFC 1870 §4). A number that no `u64` holds is larger than any limit all the same.
fn parse_size(value: &[u8]) -> Result<u64, CommandError> {
    if value.is_empty() || value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::Parameter);
    }
    Ok(value
        .iter()
        .fold(0_u64, |size, digit| size.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn parse_body(value: &[u8]) -> Result<BodyType, CommandError> {
    match value.to_ascii_uppercase().as_slice() {
        b"7BIT" => Ok(BodyType::SevenBit),
        b"8BITMIME" => Ok(BodyType::EightBitMime),
        _ => Err(CommandError::Parameter),
    }
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

/// The initial response is not known any more; a placeholder of the same kind stands for it.
impl fmt::Display for auth::Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mechanism {
            Some(Mechanism::Plain) => "AUTH PLAIN",
            Some(Mechanism::Login) => "AUTH LOGIN",
            None => "AUTH OTHER",
        })?;
        f.write_str(match self.initial {
            Initial::Absent => "",
            Initial::Given => " =",
            Initial::Malformed => " *",
        })
    }
}

impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:{}", self.reverse_path)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if self.body == BodyType::EightBitMime {
            f.write_str(" BODY=8BITMIME")?;
        }
        if self.smtp_utf8 {
            f.write_str(" SMTPUTF8")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(line: &str) -> Result<Mail, CommandError> {
        match Command::parse(line.as_bytes())? {
            Command::Mail(mail) => Ok(mail),
            other => panic!("{line:?} is {other:?}"),
        }
    }

    fn path(line: &str) -> Result<String, CommandError> {
        mail(line).map(|mail| mail.reverse_path.to_string())
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

    #[test]
    fn paths_are_read_as_written() {
        for (line, expected) in [
            ("MAIL FROM:<>", "<>"),
            ("mail from:<A@B.example>", "<A@B.example>"),
            ("MAIL FROM: <a@b> ", "<a@b>"),
            ("MAIL FROM:<@x,@y:a@b>", "<a@b>"),
            ("MAIL FROM:<\"a > b\"@c>", "<\"a > b\"@c>"),
            ("MAIL FROM:<\"a\\\" > b\"@c> SIZE=3", "<\"a\\\" > b\"@c>"),
        ] {
            assert_eq!(path(line), Ok(expected.into()), "{line:?}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        for line in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL FROM:a@b",
            "MAIL FROM:<a@b",
            "MAIL TO:<a@b>",
            "MAIL FROM:<a@b>SIZE=1",
            "MAIL FROM:<a@b>>",
            "MAIL FROM:<a b@c>",
            "MAIL FROM:<\"a@b>",
            "MAIL FROM:< >",
            "MAIL FROM :<a@b>",
        ] {
            assert_eq!(path(line), Err(CommandError::Sender(AddressError::Syntax)), "{line:?}");
        }
        assert_eq!(Command::parse(b"RCPT TO:<>"), Err(CommandError::Recipient(AddressError::Syntax)));
        assert_eq!(Command::parse(b"RCPT TO:<root>"), Err(CommandError::Recipient(AddressError::NoDomain)));
    }

    #[test]
    fn parameters_are_read_in_any_order_and_case() {
        let mail = mail("MAIL FROM:<a@b> smtputf8  body=8bitmime AUTH=<> Size=1024").unwrap();
        assert_eq!((mail.size, mail.body, mail.smtp_utf8), (Some(1024), BodyType::EightBitMime, true));
    }

    #[test]
    fn a_size_beyond_all_numbers_is_still_large() {
        assert_eq!(mail("MAIL FROM:<> SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<> SIZE=0").unwrap().size, None);
    }

    #[test]
    fn wrong_parameters_are_told_apart_from_unknown_ones() {
        for parameters in
            ["SIZE=", "SIZE=-1", "SIZE=1x", "SIZE", "SIZE=1 SIZE=1", "BODY=BINARYMIME", "SMTPUTF8=1"]
        {
            assert_eq!(
                mail(&format!("MAIL FROM:<> {parameters}")),
                Err(CommandError::Parameter),
                "{parameters}"
            );
        }
        for parameters in ["RET=FULL", "=", "X", "SIZES=1"] {
            assert_eq!(
                mail(&format!("MAIL FROM:<> {parameters}")),
                Err(CommandError::UnknownParameter),
                "{parameters}"
            );
        }
        assert_eq!(Command::parse(b"RCPT TO:<a@b> NOTIFY=NEVER"), Err(CommandError::UnknownParameter));
    }

    #[test]
    fn addresses_beyond_ascii_need_smtputf8() {
        assert_eq!(path("MAIL FROM:<ü@b>"), Err(CommandError::NonAscii));
        assert_eq!(path("MAIL FROM:<ü@b> SMTPUTF8"), Ok("<ü@b>".into()));
        assert_eq!(Command::parse(b"MAIL FROM:<\xfc@b> SMTPUTF8"), Err(CommandError::NonAscii));
    }
}

//! Who sends what to whom: the envelope of one message, as the application gave it.
//!
//! Owns the syntax of addresses. Keeps them as they were received: no case is folded, no quote removed, no domain
//! converted, since what an address means is for the receiving side to say (RFC 5321 §2.3.11). Refuses to know how
//! the envelope came in or goes out.
//!
//! Invariant: an [`Address`] holds no control character, no space outside a quoted local part and no angle bracket
//! outside one, so printing it between `<` and `>` cannot start another command or parameter.

use std::fmt;

use jiff::Timestamp;
use mailroute_route::address::ATEXT_SYMBOLS;

/// One message's envelope, complete: what [`crate::listener::Accept`] is asked to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Our name for the message, in the `Received` line and in every log line about it.
    pub id: QueueId,
    /// Value of the `Message-ID` header, the application's own or the one added; the same in every attempt.
    pub message_id: String,
    /// What the application called itself in EHLO or HELO. Not verified; may hold any printable text.
    pub client_name: String,
    /// Where failures are to be reported.
    pub reverse_path: ReversePath,
    /// At least one, in the order given, repeated ones included; behind them the archive.
    pub recipients: Vec<Address>,
    /// The recipient that the route adds to each message for an archive copy. What becomes of the copy is no concern of the
    /// application's.
    pub archive: Option<Address>,
    /// The mailbox that sends it, where the route has several. It stays with the message over restarts and hand-overs.
    pub mailbox: Option<Address>,
    /// What the content is made of: as declared, or 8-bit when it was found to be.
    pub body: BodyType,
    /// The application asked for RFC 6531 handling (`SMTPUTF8`).
    pub smtp_utf8: bool,
    /// Octets the application announced (`SIZE=`); the true size is [`crate::message::body::Body::len`].
    pub size: Option<u64>,
}

/// The argument of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: a notification, to which nobody may answer with another.
    Null,
    /// An address.
    Address(Address),
}

/// What the content is made of (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// Only octets below 128.
    #[default]
    SevenBit,
    /// Any octet but NUL.
    EightBitMime,
}

/// A mailbox address: `local-part@domain`, or the bare `postmaster` (RFC 5321 §4.5.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Box<str>);

/// Why a text is not an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form `local-part@domain`.
    #[error("not of the form local-part@domain")]
    Syntax,
    /// A local part alone.
    #[error("the address has no domain")]
    NoDomain,
    /// More octets than RFC 5321 §4.5.3.1 has room for.
    #[error("the address has more than {MAX_ADDRESS_BYTES} octets")]
    TooLong,
}

/// Octets of local part (64), `@` and domain (255): RFC 5321 §4.5.3.1.1 and .2. Local parts above 64 are met (VERP)
/// and let through as long as the whole fits.
pub const MAX_ADDRESS_BYTES: usize = 320;

impl Address {
    /// Parses an address, without its angle brackets. Dots at odd places in the local part are let through, since
    /// real mailboxes have them; the receiving side is the judge.
    ///
    /// # Errors
    /// When the text could not be a mailbox anywhere.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(AddressError::TooLong);
        }
        let local = local_part_len(text).ok_or(AddressError::Syntax)?;
        match text[local..].strip_prefix('@') {
            Some(domain) if is_domain(domain) || is_literal(domain) => Ok(Self(text.into())),
            None if local == text.len() && text.eq_ignore_ascii_case("postmaster") => Ok(Self(text.into())),
            None if local == text.len() => Err(AddressError::NoDomain),
            _ => Err(AddressError::Syntax),
        }
    }

    /// The address as received.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last `@`; empty for the bare `postmaster`.
    pub fn domain(&self) -> &str {
        // A domain holds no `@`, a quoted local part may.
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Whether the address can be used without `SMTPUTF8`.
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }
}

impl Envelope {
    /// Where the archive is among the recipients, if its copy is still to be sent.
    pub fn archive_position(&self) -> Option<usize> {
        let archive = self.archive.as_ref()?;
        self.recipients.iter().rposition(|to| to == archive)
    }

    /// The recipients whom the application has named; those of the archive copy alone where nothing else is to be sent.
    pub fn own_recipients(&self) -> &[Address] {
        match self.archive_position() {
            Some(last) if last > 0 => &self.recipients[..last],
            _ => &self.recipients,
        }
    }
}

impl ReversePath {
    /// The address, if there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// With its angle brackets, as in a command.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

/// Octets of the local part that `text` begins with: a quoted string, or atoms and dots. `None` when there is none.
fn local_part_len(text: &str) -> Option<usize> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_len(quoted).map(|len| len + 1);
    }
    let len = text.find(|c: char| !is_atom_char(c) && c != '.').unwrap_or(text.len());
    (len > 0).then_some(len)
}

/// Octets up to and including the closing quote. Inside, a backslash takes the next character along.
fn quoted_len(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if c.is_control() => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `atext` of RFC 5322 §3.2.3, and anything beyond ASCII that is not a control character or a space (RFC 6531 §3.3).
fn is_atom_char(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || ATEXT_SYMBOLS.contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

/// Labels of letters, digits, hyphens and (met in practice) underscores, or beyond ASCII, none of them empty.
fn is_domain(text: &str) -> bool {
    let is_label_char =
        |c: char| c.is_ascii_alphanumeric() || "-_".contains(c) || (!c.is_ascii() && is_atom_char(c));
    text.split('.').all(|label| !label.is_empty() && label.chars().all(is_label_char))
}

/// An address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn is_literal(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| {
        !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric() || "-:.".contains(c))
    })
}

/// Our name for one message: unique among all sidecars, sorts by time, safe in a file name, a header and a log line.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(Box<str>);

impl QueueId {
    /// An id of `at` (microseconds, eleven digits, enough for a thousand years) and 40 of the bits of `random` (eight
    /// digits), in base 32.
    pub fn new(at: Timestamp, random: u64) -> Self {
        let micros = u64::try_from(at.as_microsecond()).unwrap_or(0);
        let mut text = String::with_capacity(19);
        push_base32(&mut text, micros, 11);
        push_base32(&mut text, random, 8);
        Self(text.into_boxed_str())
    }

    /// Reads an id as it is printed; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 19 && text.bytes().all(|digit| DIGITS.contains(&digit));
        is_id.then(|| Self(text.into()))
    }

    /// The id as text: 19 letters and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits that sort like the numbers and leave out the letters that are taken for others (i, l, o, u).
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The low `5 * digits` bits of `value`, most significant first.
fn push_base32(text: &mut String, value: u64, digits: u32) {
    for digit in (0..digits).rev() {
        text.push(char::from(DIGITS[(value >> (5 * digit)) as usize & 31]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_as_received() {
        for text in [
            "a@b.example",
            "John.O'Neil+tag@Example.COM",
            "odd..dots.@example.com",
            "\"a b\"@example.com",
            "\"quoted \\\" > @ inside\"@example.com",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "user@under_score.example",
            "пример@пример.example",
            "Postmaster",
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_a_mailbox_is_refused() {
        for text in [
            "",
            "@example.com",
            "a@",
            "a@.example",
            "a@example..com",
            "a@example.com.",
            "a b@example.com",
            "a@b c",
            "a>b@c",
            "a@b>",
            "a\r@b",
            "a\0@b",
            "a@b@c",
            "\"open@example.com",
            "\"a\"b@example.com",
            "\"a\tb\"@c",
            "a@[",
            "a@[]",
            "a@[1.2.3.4",
            "a(c)@b",
            "a,b@c",
            "a\u{a0}b@c",
            "a\u{85}@c",
        ] {
            assert_eq!(Address::parse(text), Err(AddressError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn a_name_without_domain_is_told_apart() {
        assert_eq!(Address::parse("root"), Err(AddressError::NoDomain));
    }

    #[test]
    fn an_endless_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(MAX_ADDRESS_BYTES));
        assert_eq!(Address::parse(&long), Err(AddressError::TooLong));
    }

    #[test]
    fn the_domain_follows_the_last_at_sign() {
        assert_eq!(Address::parse("\"a@b\"@example.com").unwrap().domain(), "example.com");
        assert_eq!(Address::parse("postmaster").unwrap().domain(), "");
    }

    #[test]
    fn queue_ids_sort_by_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (early, late) = (QueueId::new(at(1_000_000_000), u64::MAX), QueueId::new(at(4_000_000_000), 0));
        assert!(early < late, "{early} {late}");
        assert_eq!(early.as_str().len(), 19);
    }

    #[test]
    fn only_what_is_printed_is_read_as_a_queue_id() {
        let id = QueueId::new(Timestamp::UNIX_EPOCH, 12345);
        assert_eq!(QueueId::parse(id.as_str()), Some(id));
        for text in
            ["", "00000000000000000", "../../../etc/passwd", "0000000000000000000.", "000000000000000000I"]
        {
            assert_eq!(QueueId::parse(text), None, "{text:?}");
        }
    }
}

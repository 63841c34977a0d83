//! AUTH for applications that insist on a log-in: PLAIN and LOGIN, asked for as RFC 4954 has it, and never looked at.
//!
//! Owns what is asked next. Who may use the port is decided by where it listens, so every well-formed answer is right.
//! What the client says is checked for being base64 and nothing else: it is not decoded, kept, counted or printed.

use std::fmt;

use super::answer::Answer;

/// The mechanisms that are offered, as EHLO lists them.
pub const OFFERED: &str = "AUTH PLAIN LOGIN";

/// What AUTH asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `None`: one that is not offered.
    pub mechanism: Option<Mechanism>,
    /// What came along with it.
    pub initial: Initial,
}

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: one response.
    Plain,
    /// User name, then password. Never a standard, and what most libraries try first.
    Login,
}

/// The initial response of RFC 4954 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// There is none: a challenge is to be sent.
    Absent,
    /// There is one, possibly empty (`=`).
    Given,
    /// There is something that is not base64.
    Malformed,
}

/// A response that the client owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// All of PLAIN.
    Plain,
    /// The user name of LOGIN.
    User,
    /// The password of LOGIN.
    Password,
}

/// How an exchange goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send [`Awaited::challenge`] and wait.
    Ask(Awaited),
    /// It is over, well or not.
    Over(Answer),
}

impl Request {
    /// Reads what follows the verb. `None`: nothing does.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        let mut words = argument.split(|&b| b == b' ').filter(|word| !word.is_empty());
        let mechanism = match words.next()?.to_ascii_uppercase().as_slice() {
            b"PLAIN" => Some(Mechanism::Plain),
            b"LOGIN" => Some(Mechanism::Login),
            _ => None,
        };
        let initial = match (words.next(), words.next()) {
            (None, _) => Initial::Absent,
            (Some(b"="), None) => Initial::Given,
            (Some(response), None) if is_base64(response) => Initial::Given,
            _ => Initial::Malformed,
        };
        Some(Self { mechanism, initial })
    }

    /// The first move of the server.
    pub const fn begin(self) -> Next {
        match (self.mechanism, self.initial) {
            (None, _) => Next::Over(Answer::UnknownMechanism),
            (_, Initial::Malformed) => Next::Over(Answer::NotBase64),
            (Some(Mechanism::Plain), Initial::Absent) => Next::Ask(Awaited::Plain),
            (Some(Mechanism::Plain), Initial::Given) => Next::Over(Answer::LoggedIn),
            (Some(Mechanism::Login), Initial::Absent) => Next::Ask(Awaited::User),
            (Some(Mechanism::Login), Initial::Given) => Next::Ask(Awaited::Password),
        }
    }
}

/// The initial response is not known any more; a placeholder of the same kind stands for it.
impl fmt::Display for Request {
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

impl Awaited {
    /// What to ask with.
    pub const fn challenge(self) -> Answer {
        match self {
            Self::Plain => Answer::AskPlain,
            Self::User => Answer::AskUser,
            Self::Password => Answer::AskPassword,
        }
    }

    /// What follows from the client's line. A `*` takes the whole request back.
    pub fn take(self, line: &[u8]) -> Next {
        match line.trim_ascii_end() {
            b"*" => Next::Over(Answer::AuthCancelled),
            line if !is_base64(line) => Next::Over(Answer::NotBase64),
            _ if self == Self::User => Next::Ask(Self::Password),
            _ => Next::Over(Answer::LoggedIn),
        }
    }
}

/// Base64 of RFC 4648 §4 with its padding; nothing at all is the empty response.
fn is_base64(text: &[u8]) -> bool {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    text.len().is_multiple_of(4)
        && digits.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(argument: &str) -> Next {
        Request::parse(argument.as_bytes()).unwrap().begin()
    }

    #[test]
    fn plain_takes_its_response_at_once_or_when_asked() {
        assert_eq!(begin("PLAIN AGEAYg=="), Next::Over(Answer::LoggedIn));
        assert_eq!(begin("plain"), Next::Ask(Awaited::Plain));
        assert_eq!(Awaited::Plain.take(b"AGEAYg=="), Next::Over(Answer::LoggedIn));
    }

    #[test]
    fn login_asks_for_user_and_password() {
        assert_eq!(begin("LOGIN"), Next::Ask(Awaited::User));
        assert_eq!(begin("LOGIN dXNlcg=="), Next::Ask(Awaited::Password));
        assert_eq!(Awaited::User.take(b"dXNlcg== "), Next::Ask(Awaited::Password));
        assert_eq!(Awaited::Password.take(b"cGFzcw=="), Next::Over(Answer::LoggedIn));
    }

    #[test]
    fn empty_responses_are_responses() {
        assert_eq!(begin("PLAIN ="), Next::Over(Answer::LoggedIn));
        assert_eq!(Awaited::User.take(b""), Next::Ask(Awaited::Password));
    }

    #[test]
    fn a_star_takes_it_back() {
        for awaited in [Awaited::Plain, Awaited::User, Awaited::Password] {
            assert_eq!(awaited.take(b"*"), Next::Over(Answer::AuthCancelled));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for response in ["a", "abc", "a===", "ab=c", "====", "ab d", "abc\u{fc}", "!AAA", "ab==ab=="] {
            assert_eq!(
                Awaited::Plain.take(response.as_bytes()),
                Next::Over(Answer::NotBase64),
                "{response:?}"
            );
            assert_eq!(begin(&format!("PLAIN {response}")), Next::Over(Answer::NotBase64), "{response:?}");
        }
    }

    #[test]
    fn other_mechanisms_are_not_known() {
        for argument in ["XOAUTH2 dXNlcg==", "CRAM-MD5", "PLAINER", "="] {
            assert_eq!(begin(argument), Next::Over(Answer::UnknownMechanism), "{argument:?}");
        }
        assert_eq!(Request::parse(b""), None);
    }
}

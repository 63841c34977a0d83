//! AUTH PLAIN and LOGIN (RFC 4954, RFC 4616): what is asked next, and what the client's responses say.
//!
//! Owns the exchange. On localhost it is for applications that insist on a login: who may use the port is decided by where it listens,
//! so every well-formed response is right. It is checked for being base64 and nothing else, and is not decoded, kept, counted or
//! printed. For the network, [`Gathering`] decodes responses to [`Credentials`]. Refuses to know whose they are.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::Answer;
use crate::secret::Secret;

/// The mechanisms that are offered, as EHLO lists them.
pub const OFFERED: &str = "AUTH PLAIN LOGIN";

/// Whether clients log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// AUTH is not offered.
    #[default]
    Off,
    /// AUTH is offered, and whatever the client says is right.
    Ignored,
    /// AUTH is offered under TLS, and credentials are verified.
    Verified {
        /// Whether no mail is taken without it.
        required: bool,
    },
}

/// What a client logs in with. `Debug` shows the mechanism alone: people mistake one field for the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// How they came.
    pub mechanism: Mechanism,
    /// The user name.
    pub user: String,
    /// The password, or the token in its place.
    pub password: Secret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginResult {
    /// The credentials are right.
    Accepted,
    /// They are not.
    Refused,
    /// Nobody can say now.
    Unavailable,
}

impl LoginResult {
    /// Every result, for the registration of metrics.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Refused, Self::Unavailable];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send [`Awaited::challenge`] and wait.
    Ask(Awaited),
    /// It is over, well or not.
    Over(Answer),
    /// Everything is said, and has to be verified.
    Verify(Credentials),
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

impl Mechanism {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }
}

/// The initial response in a line with AUTH, in base64; empty when there is none.
pub fn initial_response(line: &[u8]) -> &[u8] {
    let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty()).skip(2);
    words.next().filter(|&response| response != b"=").unwrap_or_default()
}

/// Decodes the responses of an exchange.
#[derive(Default)]
pub struct Gathering {
    /// The user name of LOGIN, once it was said.
    user: Option<Secret>,
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gathering")
    }
}

impl Gathering {
    /// What follows from a `response` in base64, where an exchange that is not verified would go on with `next`.
    pub fn gather(&mut self, next: Next, response: &[u8]) -> Next {
        let credentials = match next {
            Next::Ask(Awaited::Password) => match text(response) {
                Some(user) => {
                    self.user = Some(user);
                    return next;
                }
                None => None,
            },
            Next::Over(Answer::LoggedIn) => match self.user.take() {
                Some(user) => login(&user, response),
                None => plain(response),
            },
            Next::Ask(Awaited::Plain | Awaited::User) | Next::Over(_) | Next::Verify(_) => return next,
        };
        credentials.map_or(Next::Over(Answer::NoCredentials), Next::Verify)
    }
}

fn text(response: &[u8]) -> Option<Secret> {
    let octets = STANDARD.decode(response.trim_ascii_end()).ok()?;
    String::from_utf8(octets).ok().map(Secret::new)
}

fn login(user: &Secret, response: &[u8]) -> Option<Credentials> {
    let password = text(response).filter(|password| !password.expose().is_empty())?;
    Some(Credentials { mechanism: Mechanism::Login, user: user.expose().to_owned(), password })
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2). Nobody acts for another one, so the first is empty or the second.
fn plain(response: &[u8]) -> Option<Credentials> {
    let message = text(response)?;
    let mut parts = message.expose().split('\0');
    let (acts_for, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || password.is_empty() || !(acts_for.is_empty() || acts_for == user) {
        return None;
    }
    let password = Secret::new(password.to_owned());
    Some(Credentials { mechanism: Mechanism::Plain, user: user.to_owned(), password })
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

    /// What the lines of an exchange come to, the first one with AUTH.
    fn gathered(lines: &[&str]) -> Next {
        let mut gathering = Gathering::default();
        let request = Request::parse(lines[0].strip_prefix("AUTH ").unwrap().as_bytes()).unwrap();
        let mut next = gathering.gather(request.begin(), initial_response(lines[0].as_bytes()));
        for line in &lines[1..] {
            let Next::Ask(awaited) = next else { panic!("{line:?} is not asked for: {next:?}") };
            next = gathering.gather(awaited.take(line.as_bytes()), line.as_bytes());
        }
        next
    }

    #[test]
    fn credentials_are_gathered_from_every_form_of_an_exchange() {
        for (mechanism, lines) in [
            (Mechanism::Plain, &["AUTH PLAIN AGFubgBzZWNyZXQ="][..]),
            (Mechanism::Plain, &["AUTH PLAIN", "AGFubgBzZWNyZXQ="]),
            (Mechanism::Plain, &["AUTH PLAIN YW5uAGFubgBzZWNyZXQ="]),
            (Mechanism::Login, &["AUTH LOGIN", "YW5u", "c2VjcmV0"]),
            (Mechanism::Login, &["AUTH LOGIN YW5u", "c2VjcmV0 "]),
        ] {
            let (user, password) = ("ann".to_owned(), Secret::new("secret".into()));
            let next = gathered(lines);
            assert!(!format!("{next:?}").contains("ann") && !format!("{next:?}").contains("secret"));
            assert_eq!(next, Next::Verify(Credentials { mechanism, user, password }), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_user_name_and_password_is_refused_before_anybody_verifies_it() {
        let plain = |text: &str| format!("AUTH PLAIN {}", STANDARD.encode(text));
        for line in ["ann", "\0ann", "\0ann\0", "\0ann\0a\0b", "bob\0ann\0secret", "a\0\0secret"] {
            assert_eq!(gathered(&[&plain(line)]), Next::Over(Answer::NoCredentials), "{line:?}");
        }
        assert_eq!(gathered(&["AUTH PLAIN ="]), Next::Over(Answer::NoCredentials));
        assert_eq!(gathered(&["AUTH LOGIN YW5u", ""]), Next::Over(Answer::NoCredentials));
        assert_eq!(gathered(&["AUTH LOGIN", "/w=="]), Next::Over(Answer::NoCredentials));
        assert_eq!(gathered(&["AUTH LOGIN", "*"]), Next::Over(Answer::AuthCancelled));
        assert_eq!(gathered(&["AUTH PLAIN !"]), Next::Over(Answer::NotBase64));
    }

    #[test]
    fn other_mechanisms_are_not_known() {
        for argument in ["XOAUTH2 dXNlcg==", "CRAM-MD5", "PLAINER", "="] {
            assert_eq!(begin(argument), Next::Over(Answer::UnknownMechanism), "{argument:?}");
        }
        assert_eq!(Request::parse(b""), None);
    }
}

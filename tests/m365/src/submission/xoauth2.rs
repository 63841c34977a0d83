//! The XOAUTH2 payload. Pure. The token is in no `Debug` and no error.
//!
//! Source: Exchange, "Authenticate an IMAP, POP or SMTP connection using OAuth".

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

/// Who wants to log in with what.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The mailbox.
    pub user: String,
    /// The access token.
    pub token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not base64.
    #[error("the payload is not base64")]
    Base64,
    /// Not UTF-8.
    #[error("the payload is not text")]
    Text,
    /// Parts missing, in another order, or not separated and ended by ^A.
    #[error("the payload is not user=<mailbox>^Aauth=Bearer <token>^A^A")]
    Parts,
}

/// Reads `user=<mailbox>^Aauth=Bearer <token>^A^A` in base64.
///
/// # Errors
/// See [`Malformed`].
pub fn parse(payload: &str) -> Result<Credentials, Malformed> {
    let decoded = STANDARD.decode(payload.trim_ascii()).map_err(|_| Malformed::Base64)?;
    let text = String::from_utf8(decoded).map_err(|_| Malformed::Text)?;
    let rest = text.strip_prefix("user=").ok_or(Malformed::Parts)?;
    let (user, rest) = rest.split_once('\u{1}').ok_or(Malformed::Parts)?;
    let token = rest.strip_prefix("auth=Bearer ").ok_or(Malformed::Parts)?;
    let token = token.strip_suffix("\u{1}\u{1}").ok_or(Malformed::Parts)?;
    if user.is_empty() || token.is_empty() || token.contains('\u{1}') {
        return Err(Malformed::Parts);
    }
    Ok(Credentials { user: user.to_owned(), token: token.to_owned() })
}

/// Writes what [`parse`] reads.
#[must_use]
pub fn render(user: &str, token: &str) -> String {
    STANDARD.encode(format!("user={user}\u{1}auth=Bearer {token}\u{1}\u{1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let credentials = parse(&render("noreply@contoso.com", "abc.def")).unwrap();
        assert_eq!(
            (credentials.user.as_str(), credentials.token.as_str()),
            ("noreply@contoso.com", "abc.def")
        );
        assert!(!format!("{credentials:?}").contains("abc.def"));
    }

    #[test]
    fn malformed_payloads_are_told_apart() {
        assert_eq!(parse("%%%"), Err(Malformed::Base64));
        assert_eq!(parse(&STANDARD.encode([0xff, 0xfe])), Err(Malformed::Text));
        for text in [
            "",
            "user=a@b",
            "user=a@b\u{1}auth=Bearer t",
            "user=a@b\u{1}auth=Bearer t\u{1}",
            "auth=Bearer t\u{1}user=a@b\u{1}\u{1}",
            "user=\u{1}auth=Bearer t\u{1}\u{1}",
            "user=a@b\u{1}auth=bearer t\u{1}\u{1}",
        ] {
            assert_eq!(parse(&STANDARD.encode(text)), Err(Malformed::Parts), "{text:?}");
        }
    }
}

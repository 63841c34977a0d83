//! Values that must never be seen: access tokens, assertions, client secrets, passwords, keys.
//!
//! Owns the one type that carries a secret and the one function that takes what looks like a secret out of foreign
//! text. Refuses to know what the secrets are for.
//!
//! Invariant: `Debug` prints a placeholder and there is no `Display`; the only way out is [`Secret::expose`], so a
//! search for that word finds every place that handles a secret in the clear.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A secret text. Clones share one allocation, which is overwritten when the last of them goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Bytes>);

#[derive(PartialEq, Eq)]
struct Bytes(String);

impl Drop for Bytes {
    fn drop(&mut self) {
        // Without `unsafe` the text can only be overwritten as bytes of its own vector; `black_box` keeps the
        // compiler from removing writes to memory that is about to be freed.
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        std::hint::black_box(&bytes);
    }
}

impl Secret {
    /// Takes charge of a secret.
    pub fn new(text: String) -> Self {
        Self(Arc::new(Bytes(text)))
    }

    /// The secret itself. For the wire only: never for a log, an error, a metric or a file.
    pub fn expose(&self) -> &str {
        &self.0.0
    }
}

/// Largest file that is read as a secret, bytes. Projected tokens have one to two kilobytes.
const MAX_FILE: u64 = 64 * 1024;

/// Reads a secret that the kubelet keeps in a file, without the white space around it.
///
/// # Errors
/// When the file cannot be read, is empty, or is larger than any token or key.
pub async fn read_file(path: &Path) -> io::Result<Secret> {
    if tokio::fs::metadata(path).await?.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    // Taken over by `Secret` before anything can fail, so that it is overwritten in any case.
    let whole = Secret::new(tokio::fs::read_to_string(path).await?);
    match whole.expose().trim() {
        "" => Err(io::Error::other("it is empty")),
        text => Ok(Secret::new(text.to_owned())),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Shortest run of base64 characters that [`scrub`] takes for a secret. Message-IDs, session ids and GUIDs are shorter,
/// tokens longer.
const SECRET_RUN: usize = 80;

/// Removes what looks like a token from text that another program wrote, such as a server that echoes the command it
/// did not like.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut rest = text;
    while let Some(run) = secret_run(rest) {
        clean.push_str(&rest[..run.start]);
        clean.push_str("[removed]");
        rest = &rest[run.end..];
    }
    if clean.is_empty() {
        return Cow::Borrowed(text);
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// The first suspicious run, as byte offsets. A run holds ASCII only, so both ends are character boundaries.
fn secret_run(text: &str) -> Option<Range<usize>> {
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate().chain([(text.len(), b' ')]) {
        if is_token_byte(byte) {
            continue;
        }
        if at - start >= SECRET_RUN {
            return Some(start..at);
        }
        start = at + 1;
    }
    None
}

/// Base64 in both alphabets, and the dots of a JWT.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[secret]");
    }

    #[test]
    fn an_echoed_token_is_removed_and_the_rest_stays() {
        let echoed = format!("501 5.5.2 Syntax: AUTH XOAUTH2 {} [HOST]", "dXNlcj1u".repeat(20));
        assert_eq!(scrub(&echoed), "501 5.5.2 Syntax: AUTH XOAUTH2 [removed] [HOST]");
    }

    #[test]
    fn several_tokens_are_all_removed() {
        let token = "eyJhbGciOi".repeat(9);
        assert_eq!(scrub(&format!("{token} and {token}")), "[removed] and [removed]");
    }

    #[test]
    fn ordinary_replies_are_untouched() {
        let reply = "535 5.7.3 Authentication unsuccessful [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM 2026-08-13T07:00:00.000Z 08DD84B323498C1A]";
        assert!(matches!(scrub(reply), Cow::Borrowed(_)));
    }

    #[test]
    fn long_exchange_diagnostics_are_untouched() {
        let reply = "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed";
        assert_eq!(scrub(reply), reply);
    }
}

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

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

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

/// What stands in a secret's place.
const PLACEHOLDER: &str = "[removed]";

impl Secret {
    /// Takes this secret out of text that another program wrote, as it is and as a peer would echo it: in base64, or
    /// in a form's encoding. For secrets that are too short for [`scrub`] to notice.
    pub fn redact(&self, text: &str) -> String {
        let secret = self.expose();
        let form = form(secret);
        // Some leave the tilde, which client secrets often have, as it is.
        let tilde = form.replace("%7E", "~");
        let mut clean = text.to_owned();
        let (base64, url_safe) = (STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret));
        for echo in [secret, base64.as_str(), &url_safe, &form, &tilde] {
            if !echo.is_empty() && clean.contains(echo) {
                clean = clean.replace(echo, PLACEHOLDER);
            }
        }
        clean
    }
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> String {
    let mut form = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => form.push('+'),
            b'*' | b'-' | b'.' | b'_' => form.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => form.push(char::from(byte)),
            _ => form.push_str(&format!("%{byte:02X}")),
        }
    }
    form
}

/// Largest file that is read as a secret, bytes. Projected tokens have one to two kilobytes, chains some more.
const MAX_FILE: u64 = 64 * 1024;

/// Reads a password that the kubelet keeps in a file: all of it but the line end that an editor may have put behind it.
///
/// # Errors
/// As [`read_file`].
pub async fn read_password(path: &Path) -> io::Result<Secret> {
    read(path, |whole| whole.trim_end_matches(['\r', '\n'])).await
}

/// Reads a secret that the kubelet keeps in a file, without the white space around it.
///
/// # Errors
/// When the file cannot be read, is empty, or is larger than any token or key.
pub async fn read_file(path: &Path) -> io::Result<Secret> {
    read(path, str::trim).await
}

async fn read(path: &Path, strip: fn(&str) -> &str) -> io::Result<Secret> {
    if tokio::fs::metadata(path).await?.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    // Taken over by `Secret` before anything can fail, so that it is overwritten in any case.
    let whole = Secret::new(tokio::fs::read_to_string(path).await?);
    match strip(whole.expose()) {
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
        clean.push_str(PLACEHOLDER);
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
    fn a_short_secret_is_removed_in_every_form_that_a_peer_may_echo() {
        let secret = Secret::new("h~8Q & p\u{e4}ss?".into());
        let echoes = [secret.expose().to_owned(), STANDARD.encode(secret.expose()), form(secret.expose())];
        assert_eq!(echoes[2], "h%7E8Q+%26+p%C3%A4ss%3F");
        for echo in echoes {
            assert_eq!(secret.redact(&format!("what is {echo}, please")), "what is [removed], please");
        }
        assert_eq!(secret.redact("nothing of it"), "nothing of it");
    }

    #[tokio::test]
    async fn a_password_keeps_its_spaces_and_loses_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " a b \r\n").unwrap();
        assert_eq!(read_password(file.path()).await.unwrap().expose(), " a b ");
        assert_eq!(read_file(file.path()).await.unwrap().expose(), "a b");
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

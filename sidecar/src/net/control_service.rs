//! One exchange with the operator's control service: HTTPS under the operator's own CA, with the pod's own token.
//!
//! Refuses to know what is said: callers bring the path and the body, and read the answer.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use mailroute_route::control::{MAX_MESSAGE_BYTES, ServiceRefusal};
use mailroute_route::file::ControlService;
use mailroute_route::jwt::Claims;

use crate::net::https::{self, Answer, HttpsError, Post};
use crate::net::tls::Trust;
use crate::secret::{self, scrub};

/// Why the service cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The pod's token for it cannot be read.
    #[error("cannot read the token for the control service: {0}")]
    Token(std::io::Error),
    /// The route file names no usable address.
    #[error("the control service's address {0:?} is not host:port")]
    Address(String),
    /// There is no answer.
    #[error(transparent)]
    Https(#[from] HttpsError),
}

/// Posts JSON to the service, or to the replica at `replica` under the service's name.
///
/// # Errors
/// When there is no complete answer; an answer of any status is one.
pub async fn post(
    service: &ControlService,
    replica: Option<&str>,
    path: &str,
    body: Bytes,
) -> Result<Answer, ServiceError> {
    let (server_name, _) = split(&service.address)?;
    let (dial, port) = split(replica.unwrap_or(&service.address))?;
    let bearer = secret::read_file(&service.token_file).await.map_err(ServiceError::Token)?;
    let content_type = "application/json";
    let bearer = Some(&bearer);
    let post = Post { dial, port, proxy: None, server_name, path, content_type, bearer, body };
    Ok(https::post(post, &Trust::Pem(service.ca_pem.clone())).await?)
}

/// What the service said instead of doing what it was asked for, and how long it asks not to be asked again.
pub fn refusal(answer: &Answer) -> (String, Option<Duration>) {
    let status = answer.status;
    match serde_json::from_slice::<ServiceRefusal>(&answer.body) {
        Ok(ServiceRefusal { message, retry_after_seconds }) => (
            format!("the operator answered HTTP {status}: {}", plain(&message)),
            retry_after_seconds.map(Duration::from_secs),
        ),
        Err(_) => (format!("the operator answered HTTP {status}"), answer.retry_after),
    }
}

/// Text of the service that can be shown: bounded, on one line, without what looks like a token.
pub fn plain(text: &str) -> String {
    let text = scrub(&text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)]).into_owned();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The uid of this pod, as the token names it. Blocks on the disk.
pub fn pod_uid(token_file: &Path) -> Option<String> {
    let token = std::fs::read_to_string(token_file).ok()?;
    Some(Claims::of(token.trim())?.bound.pod?.uid)
}

/// Name, in the spool directory, of the file with the address of the control service.
const ADDRESS_FILE: &str = "control-service";

/// Notes in the spool `directory` which control service this sidecar talks to, if it was started with one, for the command
/// `check`, which is a program of its own. Others cannot write there. A disk that refuses it keeps no mail back.
pub async fn note_address(directory: &Path, address: Option<&str>) {
    let (file, new) = (directory.join(ADDRESS_FILE), directory.join(format!("{ADDRESS_FILE}.new")));
    let noted = match address {
        Some(address) => match tokio::fs::write(&new, address).await {
            Ok(()) => tokio::fs::rename(&new, &file).await,
            Err(error) => Err(error),
        },
        None if tokio::fs::try_exists(&file).await.unwrap_or(false) => tokio::fs::remove_file(&file).await,
        None => Ok(()),
    };
    if let Err(error) = noted {
        tracing::warn!(path = %file.display(), %error, "cannot record the address of the control service");
    }
}

/// The control service that the sidecar with this spool talks to, whatever its route names; none when nothing is noted.
///
/// # Errors
/// When there is a note that cannot be read.
pub async fn noted_address(directory: &Path) -> std::io::Result<Option<String>> {
    match tokio::fs::read_to_string(directory.join(ADDRESS_FILE)).await {
        Ok(address) => Ok(Some(address)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `host:port`; the host of an IPv6 address without its brackets.
fn split(address: &str) -> Result<(&str, u16), ServiceError> {
    let wrong = || ServiceError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split("mailroute.mailroute.svc:8444").unwrap(), ("mailroute.mailroute.svc", 8444));
        assert_eq!(split("[fd00::1]:8444").unwrap(), ("fd00::1", 8444));
        assert!(split("mailroute").is_err() && split("mailroute:x").is_err());
    }

    #[test]
    fn a_refusal_is_shown_on_one_line_and_without_what_it_echoes() {
        let answer = |status, body: &str| Answer {
            status,
            retry_after: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        let echo = "eyJhbGci".repeat(40);
        let body = format!(r#"{{"message":"no\n{echo}","retryAfterSeconds":7}}"#);
        assert_eq!(
            refusal(&answer(429, &body)),
            ("the operator answered HTTP 429: no [removed]".to_owned(), Some(Duration::from_secs(7)))
        );
        assert_eq!(refusal(&answer(502, "<html>")), ("the operator answered HTTP 502".to_owned(), None));
    }

    #[tokio::test]
    async fn the_address_that_a_sidecar_was_started_with_is_noted_for_its_commands() {
        let directory = tempfile::tempdir().unwrap();
        for address in [None, Some("a.svc:8444"), Some("b.svc:8444"), None] {
            note_address(directory.path(), address).await;
            assert_eq!(noted_address(directory.path()).await.unwrap().as_deref(), address);
        }
        std::fs::create_dir(directory.path().join(ADDRESS_FILE)).unwrap();
        assert!(noted_address(directory.path()).await.is_err(), "it is there, and nobody knows what it says");
    }

    #[test]
    fn the_token_names_the_pod() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let claims = r#"{"aud":["mailroute.dev"],"kubernetes.io":{"namespace":"shop","pod":{"name":"web","uid":"u-1"}}}"#;
        let token = format!("e30.{}.c2lnbmVk\n", URL_SAFE_NO_PAD.encode(claims));
        std::fs::write(file.path(), token).unwrap();
        assert_eq!(pod_uid(file.path()).as_deref(), Some("u-1"));
        for other in ["", "7", "e30.e30.e30", "e30.!.e30"] {
            std::fs::write(file.path(), other).unwrap();
            assert_eq!(pod_uid(file.path()), None, "{other:?}");
        }
    }
}

//! One exchange with the operator's control service: HTTPS under the operator's own CA, with the pod's own token.
//!
//! Refuses to know what is said: callers bring the path and the body, and read the answer.

use bytes::Bytes;
use mailroute_route::file::ControlService;

use crate::net::https::{self, Answer, HttpsError, Post};
use crate::net::tls::Trust;
use crate::secret;

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
    let post = Post { dial, port, server_name, path, content_type, bearer: Some(&bearer), body };
    Ok(https::post(post, &Trust::Pem(service.ca_pem.clone())).await?)
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
    use super::*;

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split("mailroute.mailroute.svc:8444").unwrap(), ("mailroute.mailroute.svc", 8444));
        assert_eq!(split("[fd00::1]:8444").unwrap(), ("fd00::1", 8444));
        assert!(split("mailroute").is_err() && split("mailroute:x").is_err());
    }
}

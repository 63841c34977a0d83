//! From a name to a connection that EHLO was said on, over TLS as the route wants it.
//!
//! ```text
//! dial ─► greeting ─► EHLO ─► STARTTLS ─► [nothing may be buffered] ─► TLS, name and chain verified ─► EHLO
//!                       │        └────────── any failure, Opportunistic ─► dial again ─┐
//!                       └── not offered, Opportunistic ────────────────────────────────┴─► goes on in plaintext
//! ```
//!
//! Owns the order of these steps, and the rule that nothing of the plaintext part is believed after the handshake.
//! Refuses to know what the connection is for.
//!
//! Invariants: with [`TlsMode::Required`] nothing but EHLO and STARTTLS is sent before verified TLS. Words put into the
//! upstream's mouth behind its answer to STARTTLS end the attempt in either mode: whoever does that is no upstream to
//! hand mail to.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mailroute_route::file::TlsMode;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Protection};
use super::error::ConnectionError;
use super::starttls::PlaintextConnection;
use super::timeouts;
use crate::net::dial;
use crate::outcome::classify::Stage;

/// Where to connect, and how.
pub struct Target<'a> {
    /// DNS name; also the name that the certificate must carry.
    pub host: &'a str,
    /// Its addresses, if they are known; else the system resolves the name.
    pub addresses: &'a [IpAddr],
    /// TCP port.
    pub port: u16,
    /// Our name in EHLO.
    pub ehlo_name: &'a str,
    /// Whether it may go without TLS.
    pub tls: TlsMode,
    /// Whom to trust, and what to present.
    pub config: Arc<ClientConfig>,
}

impl Target<'_> {
    /// Connects and says EHLO.
    ///
    /// # Errors
    /// When any step fails, or all of them take too long.
    pub async fn connect(&self) -> Result<Connection, ConnectionError> {
        let opened = timeout(timeouts::OPENING, self.connect_as_wanted()).await;
        opened.unwrap_or_else(|_| Err(ConnectionError::Opening { host: self.host.to_owned() }))
    }

    async fn connect_as_wanted(&self) -> Result<Connection, ConnectionError> {
        let plain = self.greet().await?;
        if self.tls == TlsMode::Required {
            return self.protect(plain).await;
        }
        if !plain.offers_tls() {
            return expose(plain, "STARTTLS is not offered".into());
        }
        match self.protect(plain).await {
            Err(error) if is_about_tls(&error) => expose(self.greet().await?, error.to_string()),
            outcome => outcome,
        }
    }

    async fn greet(&self) -> Result<PlaintextConnection<TcpStream>, ConnectionError> {
        let stream = match self.addresses {
            [] => dial::connect(self.host, self.port).await?,
            known => {
                let known: Vec<_> = known.iter().map(|&ip| SocketAddr::new(ip, self.port)).collect();
                dial::connect_to(self.host, &known).await?
            }
        };
        PlaintextConnection::greet(stream, self.ehlo_name).await
    }

    /// Goes on over TLS.
    async fn protect(&self, plain: PlaintextConnection<TcpStream>) -> Result<Connection, ConnectionError> {
        let name = server_name(self.host)?;
        let stream = plain.start_tls(self.host).await?;
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        let stream = timeout(timeouts::HANDSHAKE, handshake)
            .await
            .unwrap_or_else(|_| Err(Error::from(ErrorKind::TimedOut)))
            .map_err(|source| ConnectionError::Tls { host: self.host.to_owned(), source })?;
        let protection = Protection::of(stream.get_ref().1);
        Connection::over_tls(stream, protection, self.ehlo_name).await
    }
}

/// Goes on in plaintext, for the reason `why`.
fn expose(plain: PlaintextConnection<TcpStream>, why: String) -> Result<Connection, ConnectionError> {
    tracing::info!(why, "mail is sent to the upstream without TLS");
    let (stream, ehlo) = plain.stay()?;
    Ok(Connection::over_plaintext(stream, &ehlo, why))
}

/// Whether the upstream may work all the same when TLS is left out.
fn is_about_tls(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::Tls { .. }
            | ConnectionError::NotDnsName(_)
            | ConnectionError::Refused { stage: Stage::StartTls, .. }
    )
}

fn server_name(host: &str) -> Result<ServerName<'static>, ConnectionError> {
    match ServerName::try_from(host.trim_end_matches('.').to_owned()) {
        Ok(name @ ServerName::DnsName(_)) => Ok(name),
        _ => Err(ConnectionError::NotDnsName(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_a_name_to_verify() {
        assert!(matches!(server_name("203.0.113.7"), Err(ConnectionError::NotDnsName(_))));
        assert!(server_name("smtp.office365.com.").is_ok());
    }

    #[test]
    fn an_attack_is_not_answered_with_plaintext() {
        assert!(!is_about_tls(&ConnectionError::StartTlsInjection("x".into())));
        assert!(is_about_tls(&ConnectionError::Tls { host: "x".into(), source: ErrorKind::TimedOut.into() }));
    }
}

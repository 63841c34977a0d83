//! Client submission: log in as the mailbox with an access token.
//!
//! Owns the order token → connect → TLS → log-in, and the one answer to a refused token: a new token, a new connection,
//! one more try. Refuses to know how tokens are made and what is sent after the log-in.
//!
//! Invariant: TLS is required and verified, whatever else the route says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::{ClientSubmission, TlsMode};

use super::classify::{Stage, classify};
use super::connection::{Connection, ConnectionError};
use super::opening::Target;
use super::outcome::{Met, Outcome, Verdict};
use super::way::{Open, connected, lost, noted};
use crate::clock::{self, Instant};
use crate::net::tls::{self, Trust};
use crate::token::store::Store;
use crate::token::{Failure, Token};

/// For so long after a new token was refused too, no further new one is tried. Permissions take effect with new tokens,
/// so it has to be tried again at some time; each refusal counts against the mailbox, so not at every message.
const REFUSED_TOKEN: Duration = Duration::from_secs(5 * 60);

/// Makes connections that are logged in.
pub struct Submission {
    settings: ClientSubmission,
    ehlo_name: String,
    tokens: Arc<Store>,
    /// When a new token was refused last.
    refused: Mutex<Option<Instant>>,
}

impl Submission {
    /// Log-ins as `settings` say, with tokens from `tokens`.
    pub fn new(settings: ClientSubmission, ehlo_name: String, tokens: Arc<Store>) -> Self {
        Self { settings, ehlo_name, tokens, refused: Mutex::default() }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, outcome: Result<Token, Failure>, met: &mut Vec<Met>) -> Result<Token, Verdict> {
        match outcome {
            Ok(token) => {
                let left = token.expires.saturating_duration_since(clock::now());
                met.push(Met::new(
                    Reason::TokenAcquired,
                    format!("a token with {} minutes left", left.as_secs() / 60),
                ));
                Ok(token)
            }
            Err(failure) => Err(noted(no_token(failure), met)),
        }
    }

    /// One connection and one log-in. The outer error ends the way; the inner one is the upstream's answer to AUTH.
    async fn log_in_with(
        &self,
        token: &Token,
        met: &mut Vec<Met>,
    ) -> Result<Result<Connection, Verdict>, Verdict> {
        let mut connection = self.connect().await.map_err(|error| noted(lost(error), met))?;
        met.push(connected(&connection, "answered"));
        let reply = connection.log_in(&self.settings.mailbox, &token.secret).await;
        let reply = reply.map_err(|error| noted(lost(error), met))?;
        if reply.code == 235 {
            *self.refused() = None;
            met.push(Met::new(Reason::LoggedIn, format!("logged in at {}", connection.host)));
            return Ok(Ok(connection));
        }
        // Not `quit`: Exchange delays its answers to a client that failed.
        Ok(Err(Verdict::of_reply(classify(Stage::Auth, &reply), reply)))
    }

    async fn connect(&self) -> Result<Connection, ConnectionError> {
        let endpoint = &self.settings.endpoint;
        let target = Target {
            host: &endpoint.host,
            addresses: &[],
            port: endpoint.port,
            ehlo_name: &self.ehlo_name,
            tls: TlsMode::Required,
            config: tls::client_config(&Trust::from_file(endpoint.ca_file.as_ref())).await?,
        };
        target.open().await
    }
}

#[async_trait]
impl Open for Submission {
    async fn open(&self, met: &mut Vec<Met>) -> Result<Connection, Verdict> {
        let mut token = self.token(self.tokens.token().await, met)?;
        let mut verdict = match self.log_in_with(&token, met).await? {
            Ok(connection) => return Ok(connection),
            Err(verdict) => verdict,
        };
        let worth = self.refused().is_none_or(|at| at.elapsed() >= REFUSED_TOKEN);
        if verdict.outcome == Outcome::RefreshToken && worth {
            token = self.token(self.tokens.renewed(&token).await, met)?;
            verdict = match self.log_in_with(&token, met).await? {
                Ok(connection) => return Ok(connection),
                Err(verdict) => verdict,
            };
            *self.refused() = Some(clock::now());
        }
        if verdict.outcome == Outcome::RefreshToken {
            verdict.outcome = Outcome::RouteFault(Reason::ExchangeRejectedToken);
        }
        Err(noted(verdict, met))
    }

    /// The log-in proved it before.
    fn recognised(&self, _: &Connection) -> Option<Met> {
        None
    }
}

/// The verdict when there is no token. Trouble of the service passes; anything else waits for a person.
fn no_token(failure: Failure) -> Verdict {
    let outcome = match failure.reason {
        Reason::TokenServiceUnavailable | Reason::TokenServiceThrottled | Reason::WaitingForPropagation => {
            Outcome::Transient(Some(failure.reason))
        }
        reason => Outcome::RouteFault(reason),
    };
    Verdict::without_reply(outcome, failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_token_service_is_waited_for_and_a_wrong_tenant_is_a_fault() {
        let outcome = |reason| no_token(Failure::new(reason, "")).outcome;
        assert_eq!(
            outcome(Reason::TokenServiceThrottled),
            Outcome::Transient(Some(Reason::TokenServiceThrottled))
        );
        assert_eq!(outcome(Reason::TenantNotFound), Outcome::RouteFault(Reason::TenantNotFound));
    }
}

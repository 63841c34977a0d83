//! Client submission: log in as the mailbox.
//!
//! Owns the order proof → connect → TLS → log-in, and the one answer to a refused proof: another proof, where there is
//! one, a new connection, one more try. Refuses to know where proofs come from and what is sent after the log-in.
//!
//! Invariant: TLS is required and verified, whatever else the route says.

use std::sync::Arc;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::{Chunking, ClientSubmission, SubmissionService, TlsMode};

use super::auth;
use super::connect::Target;
use super::connection::Connection;
use super::error::ConnectionError;
use super::login::{LogIn, Proof};
use super::transport::{Connect, connected, lost, noted};
use crate::net::tls::{self, Trust};
use crate::outcome::{DeliveryOutcome, Observation, Verdict};

/// Makes connections that are logged in.
pub struct SubmissionConnector {
    settings: ClientSubmission,
    ehlo_name: String,
    log_in: Arc<LogIn>,
}

impl SubmissionConnector {
    /// Log-ins as `settings` say, with what `log_in` presents.
    pub fn new(settings: ClientSubmission, ehlo_name: String, log_in: Arc<LogIn>) -> Self {
        Self { settings, ehlo_name, log_in }
    }

    /// One connection and one log-in. The outer error ends the way; the inner one is the upstream's answer to AUTH.
    async fn log_in_with(
        &self,
        proof: &Proof,
        observations: &mut Vec<Observation>,
    ) -> Result<Result<Connection, Verdict>, Verdict> {
        let mut connection = self.to_endpoint().await.map_err(|error| noted(lost(error), observations))?;
        observations.push(connected(&connection, "answered"));
        let answer = auth::log_in(&mut connection, self.settings.username(), proof).await;
        match answer.map_err(|error| noted(lost(error), observations))? {
            Ok(()) => {
                self.log_in.accepted();
                observations
                    .push(Observation::new(Reason::LoggedIn, format!("logged in at {}", connection.host)));
                Ok(Ok(connection))
            }
            // Not `quit`: Exchange delays its answers to a client that failed.
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn to_endpoint(&self) -> Result<Connection, ConnectionError> {
        let endpoint = &self.settings.endpoint;
        let target = Target {
            host: &endpoint.host,
            addresses: &[],
            port: endpoint.port,
            ehlo_name: &self.ehlo_name,
            tls: TlsMode::Required,
            config: tls::client_config(&Trust::of(endpoint)).await?,
        };
        target.connect().await
    }

    /// Another proof, where the refusal of `proof` makes one worth a try.
    async fn other(
        &self,
        refusal: DeliveryOutcome,
        proof: &Proof,
        observations: &mut Vec<Observation>,
    ) -> Option<Result<Proof, Verdict>> {
        let is_about_proof = matches!(
            refusal,
            DeliveryOutcome::RefreshToken | DeliveryOutcome::RouteFault(Reason::PasswordRejected)
        );
        if is_about_proof { self.log_in.other(proof, observations).await } else { None }
    }
}

/// What it means that two tokens were refused.
const fn rejected_by(service: SubmissionService) -> Reason {
    match service {
        SubmissionService::ExchangeOnline | SubmissionService::HighVolumeEmail => {
            Reason::ExchangeRejectedToken
        }
        SubmissionService::CommunicationServices => Reason::SmtpUsernameRejected,
    }
}

#[async_trait]
impl Connect for SubmissionConnector {
    async fn connect(&self, observations: &mut Vec<Observation>) -> Result<Connection, Verdict> {
        let mut proof = self.log_in.proof(observations).await?;
        let mut refusal = match self.log_in_with(&proof, observations).await? {
            Ok(connection) => return Ok(connection),
            Err(refusal) => refusal,
        };
        if let Some(other) = self.other(refusal.outcome, &proof, observations).await {
            proof = other?;
            refusal = match self.log_in_with(&proof, observations).await? {
                Ok(connection) => return Ok(connection),
                Err(refusal) => refusal,
            };
            self.log_in.refused_again();
        }
        match refusal.outcome {
            DeliveryOutcome::RefreshToken => {
                refusal.outcome = DeliveryOutcome::RouteFault(rejected_by(self.settings.service));
            }
            DeliveryOutcome::RouteFault(Reason::PasswordRejected) => self.log_in.rejected(&proof),
            _ => {}
        }
        Err(noted(refusal, observations))
    }

    /// The log-in proved it before.
    fn recognised(&self, _: &Connection) -> Option<Observation> {
        None
    }

    fn chunking(&self) -> Chunking {
        self.settings.endpoint.chunking
    }
}

//! Client submission: log in as the mailbox with an access token, and keep the connection for the next message.
//!
//! Owns the order token → connect → TLS → log-in → transaction, the one connection that is kept, and the one answer to a
//! refused token: a new token, a new connection, one more try. Refuses to know how tokens are made and what happens to a
//! message that could not be sent.
//!
//! Invariants: one submitting connection at a time, since Exchange counts three for a mailbox however many pods share
//! it; a connection on which anything went wrong is never used again; a message is sent again on another connection only
//! while nothing of its content has left.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::ClientSubmission;
use tokio::sync::{Mutex, watch};

use super::Deliver;
use super::classify::{Stage, classify};
use super::connection::{Connection, ConnectionError};
use super::outcome::{Attempt, Met, Outcome, Partial, Probe, Verdict};
use super::transaction::{self, Ended, Interrupted};
use crate::body::Body;
use crate::clock::{self, Instant};
use crate::envelope::Envelope;
use crate::token::store::Store;
use crate::token::{Failure, Token};

/// A connection without a message for so long is ended: the service cuts idle ones after some minutes, and then the
/// next message would find out.
const IDLE: Duration = Duration::from_secs(45);

/// A connection this old is replaced: long-lived ones have been seen cut after twenty minutes.
const AGE: Duration = Duration::from_secs(9 * 60);

/// How often kept connections are looked at.
const TEND: Duration = Duration::from_secs(5);

/// For so long after a new token was refused too, no further new one is tried. Permissions take effect with new tokens,
/// so it has to be tried again at some time; each refusal counts against the mailbox, so not at every message.
const REFUSED_TOKEN: Duration = Duration::from_secs(5 * 60);

/// The way out by client submission.
pub struct Submission {
    settings: ClientSubmission,
    ehlo_name: String,
    tokens: Arc<Store>,
    kept: Mutex<Kept>,
}

/// What stays between messages.
#[derive(Default)]
struct Kept {
    connection: Option<Connection>,
    /// When a new token was refused last.
    refused: Option<Instant>,
}

/// Why the way ends before the message: the verdict is about every message.
type Stop = Verdict;

impl Submission {
    /// The way out as `settings` say, with tokens from `tokens`.
    pub fn new(settings: ClientSubmission, ehlo_name: String, tokens: Arc<Store>) -> Self {
        Self { settings, ehlo_name, tokens, kept: Mutex::default() }
    }

    /// The token store, for the next configuration that wants the same tokens.
    pub fn tokens(&self) -> &Arc<Store> {
        &self.tokens
    }

    /// Connects and logs in. The conditions met are added to `met`, the failed one last.
    async fn log_in(&self, kept: &mut Kept, met: &mut Vec<Met>) -> Result<Connection, Stop> {
        let mut token = self.token(self.tokens.token().await, met)?;
        let mut verdict = match self.log_in_with(&token, met).await? {
            Ok(connection) => return Ok(accepted(kept, connection, met)),
            Err(verdict) => verdict,
        };
        let worth = kept.refused.is_none_or(|at| at.elapsed() >= REFUSED_TOKEN);
        if verdict.outcome == Outcome::RefreshToken && worth {
            token = self.token(self.tokens.renewed(&token).await, met)?;
            verdict = match self.log_in_with(&token, met).await? {
                Ok(connection) => return Ok(accepted(kept, connection, met)),
                Err(verdict) => verdict,
            };
            kept.refused = Some(clock::now());
        }
        if verdict.outcome == Outcome::RefreshToken {
            verdict.outcome = Outcome::RouteFault(Reason::ExchangeRejectedToken);
        }
        Err(noted(verdict, met))
    }

    fn token(&self, outcome: Result<Token, Failure>, met: &mut Vec<Met>) -> Result<Token, Stop> {
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
    ) -> Result<Result<Connection, Verdict>, Stop> {
        let opened = Connection::open(&self.settings.endpoint, &self.ehlo_name).await;
        let mut connection = opened.map_err(|error| noted(lost(error), met))?;
        met.push(Met::new(Reason::Connected, format!("{} over {}", connection.host, connection.tls)));
        let reply = connection.log_in(&self.settings.mailbox, &token.secret).await;
        let reply = reply.map_err(|error| noted(lost(error), met))?;
        if reply.code == 235 {
            return Ok(Ok(connection));
        }
        // Not `quit`: Exchange delays its answers to a client that failed.
        Ok(Err(Verdict::of_reply(classify(Stage::Auth, &reply), reply)))
    }

    /// A connection to use, the kept one if it is fresh. Says whether it was kept.
    async fn ready(&self, kept: &mut Kept, met: &mut Vec<Met>) -> Result<(Connection, bool), Stop> {
        match kept.connection.take() {
            Some(connection) if is_fresh(&connection) => return Ok((connection, true)),
            Some(connection) => connection.quit().await,
            None => {}
        }
        Ok((self.log_in(kept, met).await?, false))
    }

    /// One message over a ready connection; over a new one if the kept one turns out to be gone.
    async fn send(
        &self,
        kept: &mut Kept,
        envelope: &Envelope,
        body: &Body,
        partial: Partial,
        met: &mut Vec<Met>,
    ) -> (Ended, Option<String>) {
        loop {
            let (mut connection, reused) = match self.ready(kept, met).await {
                Ok(ready) => ready,
                Err(verdict) => return (Ended { verdict, refused: vec![], clean: false }, None),
            };
            let host = Some(connection.host.clone());
            match transaction::send(&mut connection, envelope, body, partial).await {
                Ok(ended) if reused && is_farewell(&ended) => {}
                Ok(ended) => {
                    if ended.clean {
                        connection.used = clock::now();
                        kept.connection = Some(connection);
                    }
                    return (ended, host);
                }
                Err(Interrupted { before_data: true, .. }) if reused => {}
                Err(interrupted) => {
                    let verdict = interrupted.verdict();
                    return (Ended { verdict, refused: vec![], clean: false }, host);
                }
            }
            tracing::debug!("the kept connection was closed by the upstream; connecting again");
        }
    }
}

/// Whether the upstream only took leave of a connection it no longer wants, before any content.
fn is_farewell(ended: &Ended) -> bool {
    let reply = ended.verdict.reply.as_ref();
    !ended.clean
        && ended.verdict.outcome == Outcome::Transient(Some(Reason::UpstreamUnavailable))
        && reply.is_some_and(|reply| reply.code == 421 && reply.enhanced.is_none_or(|code| code.subject == 4))
}

fn is_fresh(connection: &Connection) -> bool {
    connection.used.elapsed() < IDLE && connection.opened.elapsed() < AGE
}

fn accepted(kept: &mut Kept, connection: Connection, met: &mut Vec<Met>) -> Connection {
    kept.refused = None;
    met.push(Met::new(Reason::LoggedIn, format!("logged in at {}", connection.host)));
    connection
}

/// Adds what a verdict says about the route to what was met.
fn noted(verdict: Verdict, met: &mut Vec<Met>) -> Verdict {
    if let Some(reason) = verdict.outcome.reason() {
        met.push(Met::new(reason, verdict.text.clone()));
    }
    verdict
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

/// The verdict when there is no connection, or none any more, before the log-in.
fn lost(error: ConnectionError) -> Verdict {
    let text = error.to_string();
    match (error.reason(), error) {
        (_, ConnectionError::Refused { stage, reply }) => Verdict::of_reply(classify(stage, &reply), reply),
        (Some(reason @ (Reason::StartTlsMissing | Reason::TlsFailed | Reason::LoginFailed)), _) => {
            Verdict::without_reply(Outcome::RouteFault(reason), text)
        }
        (reason, _) => Verdict::without_reply(Outcome::Transient(reason), text),
    }
}

#[async_trait]
impl Deliver for Submission {
    async fn deliver(&self, envelope: &Envelope, body: &Body, partial: Partial) -> Attempt {
        let mut met = Vec::new();
        let mut kept = self.kept.lock().await;
        let (ended, host) = self.send(&mut kept, envelope, body, partial, &mut met).await;
        let Ended { verdict, refused, .. } = ended;
        if verdict.outcome == Outcome::Delivered {
            // A message taken also clears what an earlier one met.
            let host = host.as_deref().unwrap_or_default();
            met.push(Met::new(Reason::Connected, format!("{host} took a message")));
            met.push(Met::new(Reason::MailAccepted, verdict.text.clone()));
        } else if met.last().is_none_or(|last| Some(last.reason) != verdict.outcome.reason()) {
            noted(verdict.clone(), &mut met);
        }
        Attempt { verdict, refused, met, host }
    }

    async fn probe(&self) -> Probe {
        let mut met = Vec::new();
        let mut kept = self.kept.lock().await;
        if let Ok(connection) = self.log_in(&mut kept, &mut met).await {
            connection.quit().await;
        }
        Probe { met }
    }

    async fn tend(&self, mut stop: watch::Receiver<bool>) {
        let mut rounds = tokio::time::interval(TEND);
        loop {
            let stopping = tokio::select! {
                _ = stop.wait_for(|&stop| stop) => true,
                _ = rounds.tick() => false,
            };
            let mut kept = self.kept.lock().await;
            if let Some(stale) = kept.connection.take_if(|connection| stopping || !is_fresh(connection)) {
                stale.quit().await;
            }
            if stopping {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Reply;

    #[test]
    fn a_busy_token_service_is_waited_for_and_a_wrong_tenant_is_a_fault() {
        let outcome = |reason| no_token(Failure::new(reason, "")).outcome;
        assert_eq!(
            outcome(Reason::TokenServiceThrottled),
            Outcome::Transient(Some(Reason::TokenServiceThrottled))
        );
        assert_eq!(outcome(Reason::TenantNotFound), Outcome::RouteFault(Reason::TenantNotFound));
    }

    #[test]
    fn a_missing_starttls_is_a_fault_and_a_lost_connection_is_not() {
        let fault = lost(ConnectionError::StartTlsMissing("smtp.office365.com".into()));
        assert_eq!(fault.outcome, Outcome::RouteFault(Reason::StartTlsMissing));
        let broken = lost(ConnectionError::Broken { stage: Stage::Ehlo, what: "reset".into() });
        assert_eq!(broken.outcome, Outcome::Transient(Some(Reason::UpstreamProtocolError)));
    }

    #[test]
    fn only_a_plain_goodbye_is_answered_by_connecting_again() {
        let ended = |line: &str| {
            let reply = Reply::parse(line.as_bytes()).unwrap().unwrap().0;
            let verdict = Verdict::of_reply(classify(Stage::Mail, &reply), reply);
            Ended { verdict, refused: vec![], clean: false }
        };
        assert!(is_farewell(&ended("421 4.4.2 Connection timed out\r\n")));
        assert!(!is_farewell(&ended("421 4.4.2 Message submission rate for this client has exceeded\r\n")));
        assert!(!is_farewell(&ended("421 4.3.2 Service not available\r\n")));
        assert!(!is_farewell(&ended("451 4.7.0 Temporary server error\r\n")));
    }
}

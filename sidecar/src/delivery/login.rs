//! What the mailbox is logged in with: an access token from the store, or the password from its file.
//!
//! Owns the choice by the route's credential, what a person is told of the credential on the way, and whether a refused
//! proof is worth another. Refuses to know how it is said to the upstream (that is [`super::auth`]) and how tokens are
//! had.
//!
//! Invariant: files are read at each log-in or exchange, so what the kubelet replaces is used from then on, and
//! connections that are logged in stay.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::file::{Authority, CertificateFiles, Credential};

use crate::clock::{self, Instant};
use crate::lock;
use crate::net::certificate;
use crate::outcome::{DeliveryOutcome, Observation, Verdict};
use crate::secret::{self, Secret};
use crate::token::store::{self, Store};
use crate::token::{Failure, Sources, Token};

/// For so long a rejected password is not presented again, unless another one is in its place: a few wrong ones lock the
/// account for everybody who uses it, and every pod of a route has the same.
const REJECTED: Duration = Duration::from_secs(10 * 60);

/// For so long after another token was refused too, no further one is tried. Permissions take effect with new tokens, so
/// it has to be tried again at some time; each refusal counts against the mailbox, so not at every message.
const REFUSED_TWICE: Duration = Duration::from_secs(5 * 60);

/// What is presented.
#[derive(Clone, Debug)]
pub enum Proof {
    /// An access token, by XOAUTH2.
    Token(Token),
    /// The mailbox's password, by LOGIN.
    Password(Secret),
}

impl Proof {
    /// The secret in it.
    pub const fn secret(&self) -> &Secret {
        match self {
            Self::Token(token) => &token.secret,
            Self::Password(password) => password,
        }
    }
}

/// Told of tokens and certificates, for metrics and logs.
pub trait LogInObserver: store::Observe + certificate::CertificateObserver {}

impl<T: store::Observe + certificate::CertificateObserver> LogInObserver for T {}

/// Where proofs come from.
pub struct LogIn {
    source: Source,
    observer: Arc<dyn LogInObserver>,
    /// When a second proof was refused last.
    refused: Mutex<Option<Instant>>,
}

enum Source {
    /// Tokens, and the certificate that they are had with, if it is one.
    Tokens(Arc<Store>, Option<CertificateFiles>),
    /// The password's file, and what was rejected last.
    Password(PathBuf, Mutex<Option<Rejected>>),
}

/// A password that the upstream did not take.
struct Rejected {
    password: Secret,
    at: Instant,
}

impl LogIn {
    /// The log-in with `credential`, with tokens of whom `sources` has for it. A new conversation waits for another token when
    /// one has less than `margin` left.
    pub fn new(
        credential: &Credential,
        authority: &Authority,
        margin: Duration,
        sources: &Sources,
        observer: Arc<dyn LogInObserver>,
    ) -> Self {
        let source = match credential {
            Credential::Password { password_file } => {
                tracing::warn!(
                    reason = Reason::PasswordMounted.as_str(),
                    "the route logs in with a password, and Microsoft is phasing out passwords; change to WorkloadIdentity"
                );
                Source::Password(password_file.clone(), Mutex::default())
            }
            credential => {
                let certificate = match credential {
                    Credential::ClientCertificate { files, .. } => Some(files.clone()),
                    _ => None,
                };
                // Every other credential is had a token with.
                let source = sources
                    .of(credential, authority)
                    .expect("a credential that is no password has a token source");
                Source::Tokens(Store::with_margin(source, Arc::clone(&observer) as _, margin), certificate)
            }
        };
        Self { source, observer, refused: Mutex::default() }
    }

    /// A proof for a new log-in. What was met on the way is added to `met`, the trouble last.
    ///
    /// # Errors
    /// When there is none.
    pub async fn proof(&self, observations: &mut Vec<Observation>) -> Result<Proof, Verdict> {
        match &self.source {
            Source::Tokens(store, certificate) => {
                let trouble = self.certificate(certificate.as_ref(), observations).await;
                let token = store.token().await;
                token
                    .map(|token| acquired(token, store.trouble(), trouble, observations))
                    .map_err(|f| failed(f, observations))
            }
            Source::Password(file, rejected) => {
                let password = read(file, observations).await?;
                let wait = wait(lock(rejected).as_ref(), &password, clock::now());
                wait.map_or(Ok(()), |wait| Err(held_back(wait, observations)))?;
                Ok(Proof::Password(password))
            }
        }
    }

    /// The upstream took a proof.
    pub fn accepted(&self) {
        *lock(&self.refused) = None;
    }

    /// The upstream took neither a proof nor the other one that was tried for it.
    pub fn refused_again(&self) {
        *lock(&self.refused) = Some(clock::now());
    }

    /// The upstream did not take `proof`, and there is no other.
    pub fn rejected(&self, proof: &Proof) {
        if let (Source::Password(_, rejected), Proof::Password(password)) = (&self.source, proof) {
            *lock(rejected) = Some(Rejected { password: password.clone(), at: clock::now() });
        }
    }

    /// Another proof than `rejected`, where that may be answered differently: a new token, or the password that has been
    /// put into the place of the old one. None for a while after that was refused, too.
    pub async fn other(
        &self,
        rejected: &Proof,
        observations: &mut Vec<Observation>,
    ) -> Option<Result<Proof, Verdict>> {
        if lock(&self.refused).is_some_and(|at| at.elapsed() < REFUSED_TWICE) {
            return None;
        }
        match (&self.source, rejected) {
            (Source::Tokens(store, _), Proof::Token(rejected)) => {
                let token = store.renewed(rejected).await;
                Some(
                    token
                        .map(|token| acquired(token, None, None, observations))
                        .map_err(|f| failed(f, observations)),
                )
            }
            (Source::Password(file, _), Proof::Password(rejected)) => match read(file, observations).await {
                Ok(password) if password == *rejected => None,
                outcome => Some(outcome.map(Proof::Password)),
            },
            _ => None,
        }
    }

    /// The files that the proof comes from.
    pub fn files(credential: &Credential) -> Vec<PathBuf> {
        match credential {
            Credential::WorkloadIdentity { token_file: file, .. }
            | Credential::ClientSecret { secret_file: file, .. }
            | Credential::Password { password_file: file } => vec![file.clone()],
            Credential::ClientCertificate { files, .. } => {
                vec![files.certificate_file.clone(), files.key_file.clone()]
            }
            Credential::Operator { .. } => vec![],
        }
    }

    /// The files have new content: what was refused is worth asking again at once.
    pub fn replaced(&self) {
        if let Source::Tokens(store, _) = &self.source {
            store.ask_again();
        }
    }

    /// Notes the client certificate's standing while it is good, and gives what will be wrong with it at the next
    /// exchange. Only when that fails, too, is it the way's trouble.
    async fn certificate(
        &self,
        files: Option<&CertificateFiles>,
        observations: &mut Vec<Observation>,
    ) -> Option<String> {
        let certificate = match certificate::read(files?).await {
            Ok(certificate) => certificate,
            Err(error) => return Some(error.to_string()),
        };
        self.observer.certificate(certificate.leaf.not_after);
        let (standing, text) =
            (certificate.leaf.standing(clock::unix_seconds()), certificate.leaf.to_string());
        if !standing.holds() {
            return Some(text);
        }
        observations.push(Observation::new(standing, text));
        None
    }
}

fn acquired(
    token: Token,
    renewal: Option<Failure>,
    certificate: Option<String>,
    observations: &mut Vec<Observation>,
) -> Proof {
    let left = token.expires.saturating_duration_since(clock::now());
    let mut text = format!("a token with {} minutes left", left.as_secs() / 60);
    if let Some(trouble) = renewal.map(|failure| failure.to_string()).or(certificate) {
        text.push_str(&format!("; cannot get another one now: {trouble}"));
    }
    observations.push(Observation::new(Reason::TokenAcquired, text));
    Proof::Token(token)
}

async fn read(file: &Path, observations: &mut Vec<Observation>) -> Result<Secret, Verdict> {
    match secret::read_password(file).await {
        Ok(password) => {
            observations.push(Observation::new(Reason::PasswordMounted, "the route logs in with a password"));
            Ok(password)
        }
        Err(error) => {
            let what = format!("cannot read the password {}: {error}", file.display());
            Err(failed(Failure::new(Reason::SecretMissing, what), observations))
        }
    }
}

/// How long `password` is not to be presented yet.
fn wait(rejected: Option<&Rejected>, password: &Secret, now: Instant) -> Option<Duration> {
    let same = rejected.filter(|rejected| rejected.password == *password)?;
    let wait = (same.at + REJECTED).saturating_duration_since(now);
    (!wait.is_zero()).then_some(wait)
}

fn held_back(wait: Duration, observations: &mut Vec<Observation>) -> Verdict {
    let minutes = wait.as_secs().div_ceil(60);
    let text = format!(
        "the password was rejected before and has not been replaced; it is tried again in {minutes} minutes, so that the \
         account is not locked"
    );
    observations.push(Observation::new(Reason::PasswordRejected, text.clone()));
    Verdict::without_reply(DeliveryOutcome::RouteFault(Reason::PasswordRejected), text)
}

fn failed(failure: Failure, observations: &mut Vec<Observation>) -> Verdict {
    observations.push(Observation::new(failure.reason, failure.message.clone()));
    verdict(failure)
}

/// The verdict without a proof. Trouble of the service passes; anything else waits for a person.
fn verdict(failure: Failure) -> Verdict {
    let outcome = match failure.reason {
        Reason::TokenServiceUnavailable
        | Reason::TokenServiceThrottled
        | Reason::OperatorUnavailable
        | Reason::IssuerUnreachable
        | Reason::WaitingForPropagation => DeliveryOutcome::Transient(Some(failure.reason)),
        reason => DeliveryOutcome::RouteFault(reason),
    };
    Verdict::without_reply(outcome, failure.message)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;
    use crate::token::proxy::Variables;

    fn log_in(credential: Credential) -> LogIn {
        let authority = Authority {
            host: "127.0.0.1:1".into(),
            tenant: "contoso.com".into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
            proxy: None,
        };
        let (_, config) = watch::channel(Config::default());
        let sources = Sources::new(config, &Variables::default());
        LogIn::new(&credential, &authority, store::MIN_LEFT, &sources, Arc::new(Metrics::new().unwrap()))
    }

    fn reasons(observations: &[Observation]) -> Vec<Reason> {
        observations.iter().map(|observations| observations.reason).collect()
    }

    #[test]
    fn a_busy_token_service_is_waited_for_and_a_wrong_tenant_is_a_fault() {
        let outcome = |reason| verdict(Failure::new(reason, "")).outcome;
        let throttled = Reason::TokenServiceThrottled;
        assert_eq!(outcome(throttled), DeliveryOutcome::Transient(Some(throttled)));
        let away = Reason::OperatorUnavailable;
        assert_eq!(outcome(away), DeliveryOutcome::Transient(Some(away)));
        assert_eq!(outcome(Reason::TenantNotFound), DeliveryOutcome::RouteFault(Reason::TenantNotFound));
        assert_eq!(outcome(Reason::SecretExpired), DeliveryOutcome::RouteFault(Reason::SecretExpired));
    }

    #[tokio::test]
    async fn a_password_is_read_at_each_log_in_and_warned_about() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log_in = log_in(Credential::Password { password_file: file.path().into() });
        for password in ["one", "two"] {
            std::fs::write(file.path(), password).unwrap();
            let mut observations = Vec::new();
            let proof = log_in.proof(&mut observations).await.unwrap();
            assert_eq!(proof.secret().expose(), password);
            assert_eq!(reasons(&observations), [Reason::PasswordMounted]);
            assert!(observations[0].reason.holds());
        }
    }

    #[tokio::test]
    async fn a_rejected_password_is_presented_again_only_when_it_has_been_replaced() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log_in = log_in(Credential::Password { password_file: file.path().into() });
        std::fs::write(file.path(), "old").unwrap();
        let rejected = log_in.proof(&mut vec![]).await.unwrap();
        assert!(log_in.other(&rejected, &mut vec![]).await.is_none());
        std::fs::write(file.path(), "new").unwrap();
        let other = log_in.other(&rejected, &mut vec![]).await.unwrap().unwrap();
        assert_eq!(other.secret().expose(), "new");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_password_rests_so_that_the_account_is_not_locked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log_in = log_in(Credential::Password { password_file: file.path().into() });
        std::fs::write(file.path(), "old").unwrap();
        let proof = log_in.proof(&mut vec![]).await.unwrap();
        log_in.rejected(&proof);
        let mut observations = Vec::new();
        let verdict = log_in.proof(&mut observations).await.unwrap_err();
        assert_eq!(verdict.outcome, DeliveryOutcome::RouteFault(Reason::PasswordRejected));
        assert_eq!(reasons(&observations), [Reason::PasswordMounted, Reason::PasswordRejected]);
        assert!(verdict.text.contains("again in 10 minutes"), "{}", verdict.text);
        std::fs::write(file.path(), "new").unwrap();
        assert!(log_in.proof(&mut vec![]).await.is_ok(), "another one is tried at once");
        std::fs::write(file.path(), "old").unwrap();
        tokio::time::advance(REJECTED).await;
        assert!(log_in.proof(&mut vec![]).await.is_ok(), "what is right now may have changed at Microsoft");
    }

    #[tokio::test]
    async fn a_missing_password_or_secret_is_a_fault_that_names_the_file() {
        for credential in [
            Credential::Password { password_file: "/nonexistent/x".into() },
            Credential::ClientSecret { client_id: "1b2c".into(), secret_file: "/nonexistent/x".into() },
        ] {
            let mut observations = Vec::new();
            let verdict = log_in(credential).proof(&mut observations).await.unwrap_err();
            assert_eq!(verdict.outcome, DeliveryOutcome::RouteFault(Reason::SecretMissing));
            assert_eq!(reasons(&observations), [Reason::SecretMissing]);
            assert!(verdict.text.contains("/nonexistent/x"), "{}", verdict.text);
        }
    }

    #[tokio::test]
    async fn a_missing_certificate_is_told_once() {
        let files =
            CertificateFiles { certificate_file: "/nonexistent/c".into(), key_file: "/nonexistent/k".into() };
        let mut observations = Vec::new();
        let log_in = log_in(Credential::ClientCertificate { client_id: "1b2c".into(), files });
        let verdict = log_in.proof(&mut observations).await.unwrap_err();
        assert_eq!(verdict.outcome, DeliveryOutcome::RouteFault(Reason::CertificateMissing));
        assert_eq!(reasons(&observations), [Reason::CertificateMissing]);
    }

    #[tokio::test]
    async fn a_token_whose_successor_cannot_be_had_is_good_and_says_so() {
        let now = clock::now();
        let token =
            Token { secret: Secret::new("t".into()), obtained: now, expires: now + Duration::from_secs(630) };
        let mut observations = Vec::new();
        acquired(token, Some(Failure::new(Reason::SecretExpired, "HTTP 401")), None, &mut observations);
        assert_eq!(reasons(&observations), [Reason::TokenAcquired]);
        assert_eq!(
            observations[0].text,
            "a token with 10 minutes left; cannot get another one now: SecretExpired: HTTP 401"
        );
    }
}

//! Keeps this pod's certificate valid: asks the operator for one while the route has a gateway, and for the next one in time, each with
//! a new key.
//!
//! While the operator is away the certificate stays in use until it ends. One that others trust under the bundle of the route file is
//! not given up for one that they do not trust yet. A program that starts uses the one that the program before it has stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use mailroute_route::control::{CERTIFICATE_PATH, CertificateReply, CertificateRequest};
use mailroute_route::file::ControlService;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, sleep_until};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::stored::{self, certified};
use super::{Identity, IdentityError};
use crate::clock;
use crate::config::Config;
use crate::net::control_service::{self, ServiceError};
use crate::net::tls::roots_from_pem;

/// Pause after a request that brought no certificate, and the least of them; doubles up to the longest, unless somebody needs one.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(120);

/// Longest pause that the operator can ask for.
const RETRY_ASKED: Duration = Duration::from_secs(600);

/// Shortest pause after a certificate, as a CA that is about to end issues short ones.
const LEAST: Duration = Duration::from_secs(1);

/// A clock that was set is noticed within this time.
const LOOK: Duration = Duration::from_secs(60);

/// A certificate, and when it is renewed. Times in seconds since the epoch.
#[derive(Clone)]
pub(super) struct Held {
    certified: Arc<CertifiedKey>,
    renew: i64,
    ends: i64,
}

impl Held {
    /// Issued at `begins`. `chance` spreads the pods of a deployment.
    pub(super) fn new(certified: Arc<CertifiedKey>, begins: i64, chance: f64) -> Self {
        let ends = certified.cert.first().and_then(life).map_or(begins, |(_, ends)| ends);
        Self { renew: renewal(begins, ends, chance), certified, ends }
    }

    /// When it ends.
    pub(super) const fn ends(&self) -> i64 {
        self.ends
    }

    /// The certificate, while it has not ended.
    pub(super) fn at(self, now: i64) -> Result<Arc<CertifiedKey>, IdentityError> {
        if now < self.ends {
            return Ok(self.certified);
        }
        Err(IdentityError::Expired(time(self.renew)))
    }

    /// How long it needs no renewal, as long as these are the CAs.
    fn rest(&self, ca_pem: &str, now: i64) -> Duration {
        match trusted(&self.certified.cert, ca_pem) {
            Ok(()) => seconds(self.renew - now),
            Err(_) => Duration::ZERO,
        }
    }
}

/// Between 60 % of its life and two thirds.
fn renewal(begins: i64, ends: i64, chance: f64) -> i64 {
    let passed = seconds(ends.saturating_sub(begins)).mul_f64(0.6 + (2.0 / 3.0 - 0.6) * chance);
    begins.saturating_add(i64::try_from(passed.as_secs()).unwrap_or_default())
}

/// What is past is no time at all.
fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// When a certificate begins and ends.
fn life(leaf: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Whether others that have these CAs accept the chain now. A bundle that cannot be used says nothing of it.
fn trusted(chain: &[CertificateDer<'_>], ca_pem: &str) -> Result<(), rustls::Error> {
    let Ok(roots) = roots_from_pem(ca_pem.as_bytes()) else { return Ok(()) };
    let (leaf, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_client_cert(leaf, between, UnixTime::since_unix_epoch(clock::since_epoch())).map(drop)
}

/// Whom to ask for which route, and what the certificate has to chain to.
struct Source {
    route: String,
    service: ControlService,
    ca_pem: String,
}

impl Source {
    /// None while the route has no gateway, or the operator no CA.
    fn of(config: &Config) -> Option<Self> {
        let route = config.route.as_ref()?;
        let ca_pem = route.gateway.as_ref()?.ca_pem.clone();
        let service = route.control.clone()?;
        (!ca_pem.is_empty()).then(|| Self { route: route.name.clone(), service, ca_pem })
    }
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("{0}")]
    Refused(String, Option<Duration>),
    #[error("the operator's answer is not understood")]
    Answer,
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the certificate that the operator has issued cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
    #[error("the operator has issued a certificate for another route or role than this pod's")]
    NotOurs,
    #[error("the CA of the certificate that the operator has issued is not in the route file yet: {0}")]
    NotTrusted(rustls::Error),
}

impl RenewalError {
    /// How long not to ask again, at least.
    fn least(&self) -> Duration {
        match self {
            Self::Refused(_, Some(asked)) => (*asked).clamp(RETRY_FIRST, RETRY_ASKED),
            _ => RETRY_FIRST,
        }
    }
}

/// When to look again.
struct Pause {
    /// If nothing happens.
    longest: Duration,
    /// If somebody needs a certificate; none while there is one.
    needed: Option<Duration>,
}

impl Identity {
    /// Keeps the certificate valid until `stop`.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep_valid() => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn keep_valid(&self) {
        let mut config = self.config.clone();
        let mut failures = 0;
        loop {
            let source = Source::of(&config.borrow_and_update());
            if source.is_some() && self.held().is_none() {
                self.restore().await;
            }
            let pause = match &source {
                Some(source) => Some(self.next(source, &mut failures).await),
                None => {
                    failures = 0;
                    self.failed(None);
                    None
                }
            };
            let (longest, needed) = (pause.as_ref().map(|it| it.longest), pause.and_then(|it| it.needed));
            let least = clock::now() + needed.unwrap_or_default();
            let asked = async {
                self.wanted.notified().await;
                sleep_until(least).await;
            };
            tokio::select! {
                changed = config.changed() => if changed.is_err() { return },
                () = sleep(longest.unwrap_or_default()), if longest.is_some() => {}
                () = asked, if needed.is_some() => {}
            }
        }
    }

    /// Renews the certificate if that is due.
    async fn next(&self, source: &Source, failures: &mut u32) -> Pause {
        let rest = self.rest(source);
        if !rest.is_zero() {
            return Pause { longest: rest.min(LOOK), needed: None };
        }
        let Err(error) = self.renew(source).await else {
            *failures = 0;
            self.failed(None);
            return Pause { longest: self.rest(source).clamp(LEAST, LOOK), needed: None };
        };
        *failures += 1;
        // Once in full, and again when it is another one; a longer absence is told by the metric.
        if self.failed(Some(error.to_string())) {
            tracing::warn!(%error, "no certificate issued for connections to the route's gateway");
        }
        let least = error.least();
        Pause { longest: retry_pause(*failures, clock::chance()).max(least), needed: Some(least) }
    }

    /// Why the operator has issued no certificate this time; none when it has. Says whether that is new.
    fn failed(&self, failure: Option<String>) -> bool {
        self.failure.send_if_modified(|known| {
            let is_news = *known != failure;
            *known = failure;
            is_news
        })
    }

    /// How long the certificate needs no renewal.
    fn rest(&self, source: &Source) -> Duration {
        self.held().map_or(Duration::ZERO, |held| held.rest(&source.ca_pem, clock::unix_seconds()))
    }

    async fn renew(&self, source: &Source) -> Result<(), RenewalError> {
        let (key, csr_pem) = request()?;
        let request = CertificateRequest { route: source.route.clone(), csr_pem };
        let body = Bytes::from(serde_json::to_vec(&request).map_err(|_| RenewalError::Answer)?);
        let answer = control_service::post(&source.service, None, CERTIFICATE_PATH, body).await?;
        if answer.status != 200 {
            let (message, asked) = control_service::refusal(&answer);
            return Err(RenewalError::Refused(message, asked));
        }
        let reply: CertificateReply =
            serde_json::from_slice(&answer.body).map_err(|_| RenewalError::Answer)?;
        let pem = format!("{}\n{}", reply.chain_pem, key.serialize_pem());
        let certified = certified(&reply.chain_pem, PrivateKeyDer::from(key))?;
        if !self.is_ours(&certified) {
            return Err(RenewalError::NotOurs);
        }
        let trust = trusted(&certified.cert, &source.ca_pem);
        // Route files follow a CA that was replaced by force within minutes; until then the one before may still be of use.
        let present = self.held().map(|held| trusted(&held.certified.cert, &source.ca_pem));
        if trust.is_ok() || !matches!(present, Some(Ok(()))) {
            self.set(Arc::new(certified));
            self.store(pem).await;
            let until = time(self.held().map_or(0, |held| held.ends));
            tracing::info!(%until, "certificate issued for connections to the route's gateway");
        }
        trust.map_err(RenewalError::NotTrusted)
    }

    /// Whether a certificate is for a pod of this route and role.
    fn is_ours(&self, certified: &CertifiedKey) -> bool {
        self.peer(Some(&certified.cert[..])).is_ok_and(|own| own.role == self.role)
    }

    /// Takes the certificate into use that the program before this one has stored, if it is still valid and for this route and role.
    async fn restore(&self) {
        let Some(path) = self.file.get().cloned() else { return };
        let certified = match spawn_blocking(move || stored::read(&path)).await {
            Ok(Ok(Some(certified))) => certified,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => return tracing::warn!(%error, "the stored certificate cannot be used"),
        };
        let (begins, ends) = certified.cert.first().and_then(life).unwrap_or_default();
        let now = clock::unix_seconds();
        if self.is_ours(&certified) && now < ends {
            tracing::info!(until = %time(ends), "the stored certificate is used");
            // As if the program had not started again, but for the few minutes that it is dated back.
            self.hold(Arc::new(certified), begins.min(now));
        }
    }

    /// Stores certificate and key for the program after this one.
    async fn store(&self, pem: String) {
        let Some(path) = self.file.get().cloned() else { return };
        if let Ok(Err(error)) = spawn_blocking(move || stored::write(&path, &pem)).await {
            tracing::warn!(%error, "the certificate cannot be stored: after a restart of the container the operator has to issue another");
        }
    }
}

/// A new key, and a request for a certificate of it. The operator takes the names from what it knows of the pod.
fn request() -> Result<(KeyPair, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((key, csr))
}

/// The pause after so many failures in a row.
fn retry_pause(failures: u32, chance: f64) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY_LONGEST).mul_f64(0.75 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::Gateway;
    use mailroute_route::identity::Role;

    use super::*;

    #[test]
    fn a_days_certificate_is_renewed_after_some_fifteen_hours() {
        let day = 24 * 3600;
        let renewed = [renewal(1000, 1000 + day, 0.0), renewal(1000, 1000 + day, 1.0)];
        assert_eq!(renewed, [1000 + day * 6 / 10, 1000 + day * 2 / 3]);
        assert_eq!(renewal(1000, 900, 0.5), 1000, "one that has ended is renewed at once");
    }

    #[test]
    fn one_that_has_ended_is_dropped_and_says_since_when_it_was_not_renewed() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2026, 12, 2);
        let der = params.self_signed(&key).unwrap().der().clone();
        let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from(key)).unwrap();
        let begin: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let held = Held::new(Arc::new(CertifiedKey::new(vec![der], key)), begin.as_second(), 0.0);
        assert!(held.clone().at(held.ends() - 1).is_ok());
        assert_eq!(
            held.clone().at(held.ends()).unwrap_err().to_string(),
            "this pod's certificate has expired, the operator has not renewed it since 2026-12-01T14:24:00Z"
        );
    }

    /// A pod of the route, with an operator that is away, and with a certificate of this name that ends then in its file.
    async fn restarted(name: &str, year: i32) -> Result<(), IdentityError> {
        identity_restarted(name, year).await.1
    }

    async fn identity_restarted(name: &str, year: i32) -> (Arc<Identity>, Result<(), IdentityError>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(super::super::IDENTITY_FILE);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let mut route = crate::config::parse(crate::config::tests::SAMPLE.as_bytes()).unwrap();
        route.gateway = Some(Gateway { host: "mail-gateway".into(), ca_pem: certificate.pem() });
        route.control = Some(ControlService {
            // Discard (RFC 863).
            address: "localhost:9".into(),
            ca_pem: certificate.pem(),
            token_file: folder.path().join("token"),
            leases: false,
        });
        let config = Config { route: Some(Arc::new(route)), ..Config::default() };
        let (_keep, config) = watch::channel(config);
        let before = Identity::new(config.clone(), Role::Gateway);
        before.keep_in(file.clone());
        before.store(format!("{}{}", certificate.pem(), key.serialize_pem())).await;

        let identity = Identity::new(config, Role::Gateway);
        identity.keep_in(file);
        let (_stop, stopped) = watch::channel(false);
        let mut failures = identity.failure.subscribe();
        let running = tokio::spawn(Arc::clone(&identity).run(stopped));
        let issued = identity.certified_by(clock::now() + RETRY_FIRST);
        let issued = tokio::select! {
            issued = issued => issued,
            // It has looked into its file before it asked.
            _ = failures.wait_for(Option::is_some) => identity.ready(),
        };
        running.abort();
        (identity, issued)
    }

    #[tokio::test]
    async fn a_restart_does_not_put_the_renewal_off() {
        let route = crate::config::parse(crate::config::tests::SAMPLE.as_bytes()).unwrap();
        let name = mailroute_route::identity::dns_name(Role::Gateway, &route.namespace, &route.name);
        let (identity, issued) = identity_restarted(&name, 2096).await;
        issued.unwrap();
        let held = identity.held().unwrap();
        // From the first of 1975, when certificates of the test begin, to the first of 2096.
        let renew = time(held.renew).to_string();
        assert!(("2047-08".."2055-10").contains(&&renew[..]), "{renew}");
    }

    #[tokio::test]
    async fn after_a_restart_of_the_container_the_operator_is_not_needed() {
        let route = crate::config::parse(crate::config::tests::SAMPLE.as_bytes()).unwrap();
        let name = |role| mailroute_route::identity::dns_name(role, &route.namespace, &route.name);
        restarted(&name(Role::Gateway), 2096).await.unwrap();
        for (name, year) in [
            (name(Role::Gateway), 2026),
            (name(Role::Sidecar), 2096),
            ("other.shop.gateway.mailroute.internal".into(), 2096),
        ] {
            let error = restarted(&name, year).await.unwrap_err();
            assert!(matches!(error, IdentityError::NoCertificate), "{name}: {error}");
        }
    }

    #[test]
    fn the_pause_doubles_up_to_a_bound() {
        let pauses: Vec<_> = [1, 2, 3, 6, 100].map(|failures| retry_pause(failures, 0.5).as_secs()).into();
        assert_eq!(pauses, [5, 10, 20, 120, 120]);
    }
}

//! A server certificate that somebody else keeps in a Secret, cert-manager for example, and which of two is served.
//!
//! ```text
//! tls.crt  tls.key    chain, leaf first, and its key (type kubernetes.io/tls)
//! ca.crt              what to trust: for API servers in the caBundle, for sidecars in their route file
//! ```
//! Values only, with time passed in. When the authority changes, the one before stays trusted for [`OVERLAP`], and a
//! certificate that is trusted is not given up for one that is not trusted yet.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::anchors::{self, Anchors, Distrust};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";

/// How long a replaced authority stays trusted: until every replica serves the new certificate, and kubelets have brought
/// the new bundle to the sidecars.
pub const OVERLAP: Duration = Duration::from_secs(10 * 60);

/// Replaced authorities that are remembered at most.
const REMEMBERED: usize = 4;

/// Why a Secret cannot be served from. No text holds anything of the key.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ContentError {
    /// A key of the Secret is missing or empty.
    #[error("{0} is missing; the Secret needs {CERTIFICATE}, {KEY} and {AUTHORITIES}")]
    Missing(&'static str),
    /// A value is not PEM of the kind that belongs there.
    #[error("{0} contains no valid PEM of the expected type")]
    Pem(&'static str),
    /// The certificate is not X.509.
    #[error("{0} is not an X.509 certificate")]
    NotX509(&'static str),
    /// Key and certificate cannot be used together.
    #[error("{CERTIFICATE} and {KEY} cannot be used: {0}")]
    Pair(rustls::Error),
}

/// What a Secret holds.
#[derive(Clone, Debug)]
pub struct ExternalCertificate {
    certified: Arc<CertifiedKey>,
    authorities: Anchors,
    not_after: Timestamp,
    authority_not_after: Timestamp,
}

impl ExternalCertificate {
    /// Reads the Secret. `None` while it holds no certificate at all, as one that its keeper has yet to fill.
    ///
    /// # Errors
    /// When something is there that cannot be served.
    pub fn read(secret: &Secret) -> Result<Option<Self>, ContentError> {
        let value = |key| {
            let value = secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
            value.filter(|value| !value.is_empty())
        };
        let Some(certificate) = value(CERTIFICATE) else { return Ok(None) };
        let text = |key| value(key).ok_or(ContentError::Missing(key));
        let chain = chain(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(text(KEY)?).map_err(|_| ContentError::Pem(KEY))?;
        let authorities = std::str::from_utf8(text(AUTHORITIES)?).map(Anchors::from_pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(ContentError::Pem(AUTHORITIES));
        }
        let ends: Result<Vec<_>, _> = authorities.iter().map(|it| not_after(it, AUTHORITIES)).collect();
        let not_after = not_after(chain.first().ok_or(ContentError::Pem(CERTIFICATE))?, CERTIFICATE)?;
        let authority_not_after = ends?.into_iter().min().unwrap_or(not_after);
        let certified =
            CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(ContentError::Pair)?;
        Ok(Some(Self { certified: Arc::new(certified), authorities, not_after, authority_not_after }))
    }

    /// What to serve.
    pub const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// End of the server certificate.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// End of the first authority to end.
    pub const fn authority_not_after(&self) -> Timestamp {
        self.authority_not_after
    }

    /// Whether API servers that trust `live` accept it for `name`.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, live: &Anchors, name: &str, now: Timestamp) -> Result<(), Distrust> {
        live.admit(&self.certified.cert, name, now)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert && self.authorities == other.authorities
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ContentError> {
    let blocks: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    blocks.map_err(|_| ContentError::Pem(CERTIFICATE))
}

fn not_after(der: &CertificateDer<'_>, file: &'static str) -> Result<Timestamp, ContentError> {
    anchors::end(der).ok_or(ContentError::NotX509(file))
}

/// The certificates of one replica over time: what is served, what waits to be, what is trusted.
#[derive(Debug, Default)]
pub struct Succession {
    newest: Option<ExternalCertificate>,
    served: Option<ExternalCertificate>,
    /// Replaced authorities, and until when they stay trusted.
    replaced: Vec<(Anchors, Timestamp)>,
}

impl Succession {
    /// The Secret holds this now. Says whether it is something new.
    pub fn put(&mut self, given: ExternalCertificate, now: Timestamp) -> bool {
        if self.newest.as_ref().is_some_and(|newest| newest.is_same(&given)) {
            return false;
        }
        if let Some(old) = self.newest.replace(given) {
            self.replaced.push((old.authorities, now + OVERLAP));
            let surplus = self.replaced.len().saturating_sub(REMEMBERED);
            self.replaced.drain(..surplus);
        }
        true
    }

    /// Serves the newest one if it is time, and then returns it.
    pub fn succeed(&mut self, live: &Anchors, name: &str, now: Timestamp) -> Option<&ExternalCertificate> {
        let newest = self.newest.as_ref()?;
        let is_time = match &self.served {
            None => true,
            Some(served) if served.is_same(newest) => false,
            Some(served) => newest.check(live, name, now).is_ok() || served.check(live, name, now).is_err(),
        };
        if !is_time {
            return None;
        }
        self.served = Some(newest.clone());
        self.served.as_ref()
    }

    /// What is served.
    pub const fn served(&self) -> Option<&ExternalCertificate> {
        self.served.as_ref()
    }

    /// Everything to trust at `now`: the newest authorities first. Empty while there are none.
    pub fn trusted(&self, now: Timestamp) -> Anchors {
        let replaced = self.replaced.iter().filter(|(_, until)| now < *until).map(|(anchors, _)| anchors);
        let held = self.newest.iter().chain(&self.served).map(|given| &given.authorities);
        held.chain(replaced).flat_map(Anchors::iter).cloned().collect()
    }

    /// When [`Self::trusted`] changes by time alone.
    pub fn look_again(&self, now: Timestamp) -> Option<Timestamp> {
        self.replaced.iter().map(|(_, until)| *until).filter(|until| now < *until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::super::authority::Authority;
    use super::super::bundle::pem_block;
    use super::*;

    const NAME: &str = "mailroute.mail.svc";
    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn authority() -> Authority {
        Authority::mint(now(), 1000 * HOUR).unwrap()
    }

    fn anchors(of: &[&Authority]) -> Anchors {
        of.iter().map(|authority| authority.certificate().der().clone()).collect()
    }

    fn secret(authority: &Authority) -> Secret {
        let signed = authority.sign(&[NAME.to_owned()], now(), 90 * HOUR).unwrap();
        let certificate = pem_block("CERTIFICATE", &signed.chain[0]);
        let key = pem_block("PRIVATE KEY", signed.key.secret_der());
        let values = [(CERTIFICATE, certificate), (KEY, key), (AUTHORITIES, anchors(&[authority]).to_pem())];
        let data: BTreeMap<_, _> =
            values.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn given(authority: &Authority) -> ExternalCertificate {
        ExternalCertificate::read(&secret(authority)).unwrap().unwrap()
    }

    fn with(
        mut secret: Secret,
        key: &str,
        value: Option<&str>,
    ) -> Result<Option<ExternalCertificate>, ContentError> {
        let data = secret.data.as_mut().unwrap();
        match value {
            Some(value) => data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec())),
            None => data.remove(key),
        };
        ExternalCertificate::read(&secret)
    }

    #[test]
    fn a_secret_is_read_with_its_ends() {
        let given = given(&authority());
        assert_eq!(given.not_after(), now() + 90 * HOUR);
        assert_eq!(given.authority_not_after(), now() + 1000 * HOUR);
    }

    #[test]
    fn an_empty_secret_is_awaited_and_a_half_one_is_an_error() {
        let whole = secret(&authority());
        assert!(ExternalCertificate::read(&Secret::default()).unwrap().is_none());
        assert!(with(whole.clone(), CERTIFICATE, Some("")).unwrap().is_none());
        assert_eq!(with(whole.clone(), KEY, None).unwrap_err(), ContentError::Missing(KEY));
        assert_eq!(with(whole.clone(), AUTHORITIES, None).unwrap_err(), ContentError::Missing(AUTHORITIES));
        assert_eq!(with(whole, AUTHORITIES, Some("x")).unwrap_err(), ContentError::Pem(AUTHORITIES));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_without_a_word_of_it() {
        let other = authority().key_pem().to_owned();
        let error = with(secret(&authority()), KEY, Some(&other)).unwrap_err();
        assert!(matches!(error, ContentError::Pair(_)));
        assert!(!format!("{error} {error:?}").contains(other.lines().nth(1).unwrap()));
    }

    #[test]
    fn a_certificate_waits_until_its_authority_is_trusted() {
        let (old, new) = (authority(), authority());
        let mut succession = Succession::default();
        assert!(succession.put(given(&old), now()));
        assert!(
            succession.succeed(&Anchors::default(), NAME, now()).is_some(),
            "the first is served at once"
        );
        assert!(succession.put(given(&new), now()));
        assert!(succession.succeed(&anchors(&[&old]), NAME, now()).is_none(), "nobody trusts it yet");
        assert!(succession.succeed(&anchors(&[&new, &old]), NAME, now()).is_some());
        assert!(succession.succeed(&anchors(&[&new, &old]), NAME, now()).is_none(), "it is served already");
    }

    #[test]
    fn a_certificate_that_nobody_trusts_any_more_is_given_up() {
        let (old, new) = (authority(), authority());
        let mut succession = Succession::default();
        succession.put(given(&old), now());
        succession.succeed(&anchors(&[&old]), NAME, now());
        succession.put(given(&new), now());
        assert!(succession.succeed(&Anchors::default(), NAME, now()).is_some());
    }

    #[test]
    fn a_replaced_authority_stays_trusted_for_a_while() {
        let (old, new) = (authority(), authority());
        let mut succession = Succession::default();
        succession.put(given(&old), now());
        succession.put(given(&new), now());
        assert_eq!(succession.trusted(now()), anchors(&[&new, &old]));
        assert_eq!(succession.look_again(now()), Some(now() + OVERLAP));
        assert_eq!(succession.trusted(now() + OVERLAP), anchors(&[&new]));
        assert_eq!(succession.look_again(now() + OVERLAP), None);
    }

    #[test]
    fn what_is_served_stays_trusted_however_long_it_is() {
        let (old, new) = (authority(), authority());
        let mut succession = Succession::default();
        succession.put(given(&old), now());
        succession.succeed(&anchors(&[&old]), NAME, now());
        succession.put(given(&new), now());
        assert_eq!(succession.trusted(now() + 2 * OVERLAP), anchors(&[&new, &old]));
    }

    #[test]
    fn the_same_again_is_nothing_new_and_memory_is_bounded() {
        let one = given(&authority());
        let mut succession = Succession::default();
        assert!(succession.put(one.clone(), now()));
        assert!(!succession.put(one, now()));
        for _ in 0..3 * REMEMBERED {
            succession.put(given(&authority()), now());
        }
        assert_eq!(succession.trusted(now()).iter().count(), 1 + REMEMBERED);
    }
}

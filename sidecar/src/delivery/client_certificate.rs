//! The certificate that a relay presents to its connector, read anew for each connection.
//!
//! Owns what happens while a renewed Secret arrives: a pair that cannot be used changes nothing but the condition, the
//! last good one stays. Refuses to know what is sent.

use std::sync::{Arc, Mutex};

use mailroute_route::condition::Reason;
use mailroute_route::file::CertificateFiles;

use crate::clock;
use crate::lock;
use crate::net::certificate::{self, Certificate, CertificateError, CertificateObserver, Leaf};
use crate::outcome::Observation;

/// A certificate in files, for a tenant's domains.
pub struct ClientCertificate {
    files: CertificateFiles,
    domains: Vec<String>,
    observe: Arc<dyn CertificateObserver>,
    good: Mutex<Option<Certificate>>,
}

/// What there is to present.
pub struct CurrentCertificate {
    /// The certificate, if there is one at all.
    pub certificate: Option<Certificate>,
    /// What to think of it.
    pub observation: Observation,
}

impl ClientCertificate {
    /// The certificate in `files`, which has to be for one of `domains`. Nothing is read yet.
    pub fn new(files: CertificateFiles, domains: Vec<String>, observe: Arc<dyn CertificateObserver>) -> Self {
        Self { files, domains, observe, good: Mutex::default() }
    }

    /// The certificate of now.
    pub async fn current(&self) -> CurrentCertificate {
        let read = certificate::read(&self.files).await;
        let mut good = lock(&self.good);
        if let Ok(certificate) = &read
            && good.as_ref().is_none_or(|known| known.signer.cert != certificate.signer.cert)
        {
            tracing::info!(certificate = %certificate.leaf, "certificate in use");
            self.observe.certificate(certificate.leaf.not_after);
        }
        let error = match read {
            Ok(certificate) => {
                *good = Some(certificate);
                None
            }
            Err(error) => Some(error),
        };
        let observation =
            judge(good.as_ref().map(|known| &known.leaf), error, &self.domains, clock::unix_seconds());
        CurrentCertificate { certificate: good.clone(), observation }
    }
}

/// What to think of the certificate `leaf`, when the newest files gave `error`.
fn judge(leaf: Option<&Leaf>, error: Option<CertificateError>, domains: &[String], now: i64) -> Observation {
    let Some(leaf) = leaf else {
        let (reason, text) = match error {
            Some(error) => (error.reason(), error.to_string()),
            None => (Reason::CertificateMissing, "nothing was read".into()),
        };
        return Observation::new(reason, text);
    };
    let standing = leaf.standing(now);
    let own = if leaf.self_issued { "; it vouches for itself, which no connector takes" } else { "" };
    match error {
        _ if standing == Reason::CertificateExpired => Observation::new(standing, format!("the {leaf}{own}")),
        Some(error) => Observation::new(error.reason(), format!("{error}; still in use: the {leaf}")),
        None if !fits(leaf, domains) => {
            let text = format!("the {leaf}, while the accepted domains are {}", domains.join(", "));
            Observation::new(Reason::CertificateNameMismatch, text)
        }
        None => Observation::new(standing, format!("the {leaf}{own}")),
    }
}

/// Whether a name is one of `domains` or under one.
fn fits(leaf: &Leaf, domains: &[String]) -> bool {
    let under = |name: &str, domain: &str| {
        let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
        name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    leaf.names.iter().any(|name| domains.iter().any(|domain| under(name, domain)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::net::certificate::tests::{files, pair};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl CertificateObserver for Count {
        fn certificate(&self, _: i64) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn leaf() -> Leaf {
        Leaf {
            subject: "CN=mail.contoso.com".into(),
            names: vec!["mail.contoso.com".into(), "*.alerts.contoso.com".into()],
            not_before: 0,
            not_after: 100_000_000,
            self_issued: false,
        }
    }

    fn reason(domains: &[&str], error: Option<CertificateError>, now: i64) -> Reason {
        let domains: Vec<String> = domains.iter().map(ToString::to_string).collect();
        judge(Some(&leaf()), error, &domains, now).reason
    }

    fn unusable() -> CertificateError {
        CertificateError::NoKey("/tls.key".into())
    }

    #[test]
    fn a_name_has_to_be_in_an_accepted_domain() {
        for fitting in ["contoso.com", "Mail.Contoso.com", "alerts.contoso.com"] {
            assert_eq!(reason(&["fabrikam.com", fitting], None, 1), Reason::CertificateValid, "{fitting}");
        }
        for other in ["fabrikam.com", "oso.com", "www.mail.contoso.com"] {
            assert_eq!(reason(&[other], None, 1), Reason::CertificateNameMismatch, "{other}");
        }
    }

    #[test]
    fn the_end_is_told_before_anything_else() {
        assert_eq!(reason(&["contoso.com"], None, 99_999_999), Reason::CertificateExpiring);
        assert_eq!(reason(&["fabrikam.com"], Some(unusable()), 100_000_000), Reason::CertificateExpired);
    }

    #[test]
    fn what_cannot_be_used_is_told_while_the_old_one_is() {
        assert_eq!(reason(&["contoso.com"], Some(unusable()), 1), Reason::CertificateInvalid);
        assert_eq!(judge(None, Some(unusable()), &[], 1).reason, Reason::CertificateInvalid);
    }

    #[tokio::test]
    async fn half_a_renewal_keeps_the_old_pair_and_the_whole_is_used() {
        let (directory, count) = (tempfile::tempdir().unwrap(), Arc::<Count>::default());
        let files = files(directory.path());
        let presented =
            ClientCertificate::new(files.clone(), vec!["contoso.com".into()], Arc::clone(&count) as _);
        assert_eq!(presented.current().await.observation.reason, Reason::CertificateMissing);
        let ((chain, key), (new_chain, new_key)) = (pair(&["a.contoso.com"]), pair(&["b.contoso.com"]));
        std::fs::write(&files.certificate_file, &chain).unwrap();
        std::fs::write(&files.key_file, &key).unwrap();
        let in_use = async || presented.current().await.certificate.map(|it| it.leaf.names[0].clone());
        assert_eq!(in_use().await.as_deref(), Some("a.contoso.com"));
        std::fs::write(&files.certificate_file, &new_chain).unwrap();
        assert_eq!(presented.current().await.observation.reason, Reason::CertificateInvalid);
        assert_eq!(in_use().await.as_deref(), Some("a.contoso.com"));
        std::fs::write(&files.key_file, &new_key).unwrap();
        assert_eq!(in_use().await.as_deref(), Some("b.contoso.com"));
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "one for each certificate");
    }
}

//! How a route proves who it is: the references of its credential or certificate, as the files that they are mounted as.

use std::path::{Path, PathBuf};

use mailroute_route::file::{self, CertificateFiles};
use mailroute_route::paths;

use super::invalid::Invalid;
use crate::crd::MailRouteSpec;
use crate::crd::method::{Credential, CredentialType, SecretRef, Subject};

/// The credential of a mailbox's application, in a block of the spec.
///
/// # Errors
/// When something is missing that its type needs.
pub(super) fn credential(block: &'static str, credential: &Credential) -> Result<file::Credential, Invalid> {
    let client_id = || credential.client_id.clone().ok_or(Invalid::ClientIdMissing(block, credential.type_));
    let secret = || credential.secret_ref.as_ref().ok_or(Invalid::SecretMissing(block, credential.type_));
    let value_file = || match secret()? {
        SecretRef { key: Some(_), .. } => Ok(mounted(paths::SECRET_FILE)),
        SecretRef { key: None, .. } => Err(Invalid::SecretKeyMissing(block, credential.type_)),
    };
    Ok(match credential.type_ {
        CredentialType::WorkloadIdentity if credential.subject == Subject::Operator => {
            file::Credential::Operator { client_id: client_id()? }
        }
        CredentialType::WorkloadIdentity => file::Credential::WorkloadIdentity {
            client_id: client_id()?,
            token_file: Path::new(paths::TOKENS_DIR).join(paths::ENTRA_TOKEN_FILE),
        },
        CredentialType::ClientSecret => {
            file::Credential::ClientSecret { client_id: client_id()?, secret_file: value_file()? }
        }
        CredentialType::ClientCertificate => file::Credential::ClientCertificate {
            client_id: client_id()?,
            files: certificate_files(secret()?),
        },
        CredentialType::Password => file::Credential::Password { password_file: value_file()? },
    })
}

/// Chain and key, from the two keys of a `kubernetes.io/tls` Secret or from the one that the reference names.
fn certificate_files(secret: &SecretRef) -> CertificateFiles {
    match secret.key {
        None => pair(),
        Some(_) => CertificateFiles {
            certificate_file: mounted(paths::CERTIFICATE_FILE),
            key_file: mounted(paths::CERTIFICATE_FILE),
        },
    }
}

/// Chain and key of a `kubernetes.io/tls` Secret.
pub(super) fn pair() -> CertificateFiles {
    CertificateFiles {
        certificate_file: mounted(paths::CERTIFICATE_FILE),
        key_file: mounted(paths::KEY_FILE),
    }
}

fn mounted(file: &str) -> PathBuf {
    Path::new(paths::CREDENTIAL_DIR).join(file)
}

/// A Secret as the sidecar gets it: under our own file names, whatever its keys are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedSecret {
    /// Name of the Secret.
    pub name: String,
    /// The one key of it that the route names; none where it is the pair of a `kubernetes.io/tls` Secret.
    pub key: Option<String>,
    /// Keys, and the files that they become in [`paths::CREDENTIAL_DIR`].
    pub files: Vec<(String, &'static str)>,
}

/// The Secret with the credential or the certificate.
pub(super) fn secret(spec: &MailRouteSpec) -> Option<MountedSecret> {
    let certificate = spec.smtp_relay.as_ref().and_then(|relay| relay.certificate_secret_ref.as_ref());
    let of_credential = spec.credential().and_then(|credential| {
        let SecretRef { name, key } = credential.secret_ref.clone()?;
        let is_certificate = credential.type_ == CredentialType::ClientCertificate;
        let files = match &key {
            // Chain and key in one file.
            Some(key) if is_certificate => vec![(key.clone(), paths::CERTIFICATE_FILE)],
            Some(key) => vec![(key.clone(), paths::SECRET_FILE)],
            None => pair_of_files(),
        };
        Some(MountedSecret { name, key, files })
    });
    of_credential.or_else(|| {
        certificate.map(|secret| MountedSecret {
            name: secret.name.clone(),
            key: None,
            files: pair_of_files(),
        })
    })
}

fn pair_of_files() -> Vec<(String, &'static str)> {
    vec![("tls.crt".to_owned(), paths::CERTIFICATE_FILE), ("tls.key".to_owned(), paths::KEY_FILE)]
}

/// Audience of the pod's token that Entra is shown; none where the pod's own ServiceAccount is not what Entra trusts.
pub(super) fn entra_token_audience(spec: &MailRouteSpec) -> Option<String> {
    let credential = spec.credential()?;
    if credential.type_ != CredentialType::WorkloadIdentity || credential.subject != Subject::Pod {
        return None;
    }
    let named = spec.tenant.authority.as_ref().and_then(|authority| authority.audience.clone());
    Some(named.unwrap_or_else(|| paths::ENTRA_AUDIENCE.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::method::tests::submitted;
    use crate::samples;

    #[test]
    fn a_secret_becomes_the_files_that_it_is_mounted_as() {
        let dir = "/var/run/secrets/mailroute/credential";
        let of = |type_, key: Option<&str>| {
            let spec = samples::with_secret(type_, key).spec;
            (submitted(&spec).credential, secret(&spec).map(|secret| secret.name))
        };
        let client_id = || samples::CLIENT_ID.to_owned();
        let secret_file = PathBuf::from(format!("{dir}/secret"));
        let name = Some("m365".to_owned());
        assert_eq!(
            of(CredentialType::ClientSecret, Some("client-secret")),
            (
                file::Credential::ClientSecret { client_id: client_id(), secret_file: secret_file.clone() },
                name.clone()
            )
        );
        assert_eq!(
            of(CredentialType::Password, Some("password")),
            (file::Credential::Password { password_file: secret_file }, name.clone())
        );
        for (key, key_file) in [(None, "tls.key"), (Some("both.pem"), "tls.crt")] {
            let files = CertificateFiles {
                certificate_file: format!("{dir}/tls.crt").into(),
                key_file: format!("{dir}/{key_file}").into(),
            };
            assert_eq!(
                of(CredentialType::ClientCertificate, key),
                (file::Credential::ClientCertificate { client_id: client_id(), files }, name.clone())
            );
        }
    }
}

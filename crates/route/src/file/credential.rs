//! Who the sidecar is to Entra and Exchange, and where it proves that. Names files that are mounted, never holds what is
//! in them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the sidecar proves who it is. Names files, never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Credential {
    /// The pod's service-account token, exchanged under a federated credential of the application.
    WorkloadIdentity {
        /// Application (client) id.
        client_id: String,
        /// File with the projected service-account token. Re-read at every exchange, as the kubelet renews it.
        token_file: PathBuf,
    },
    /// A client secret of the application.
    ClientSecret {
        /// Application (client) id.
        client_id: String,
        /// File with the secret. Re-read at every exchange.
        secret_file: PathBuf,
    },
    /// A client certificate of the application: a signed assertion (PS256, `x5t#S256`).
    ClientCertificate {
        /// Application (client) id.
        client_id: String,
        /// Certificate and key. Re-read at every exchange.
        #[serde(flatten)]
        files: CertificateFiles,
    },
    /// The operator's own identity: access tokens come from the [`super::ControlService`], which exchanges the operator's
    /// service-account token under a federated credential of the application. The pod holds nothing to ask Entra with.
    Operator {
        /// Application (client) id, for people: which one is used is the operator's to say.
        client_id: String,
    },
    /// The mailbox's password, by AUTH LOGIN. Microsoft is switching this off.
    Password {
        /// File with the password. Re-read at every log-in.
        password_file: PathBuf,
    },
}

impl Credential {
    /// The Entra application; none with a password.
    pub fn client_id(&self) -> Option<&str> {
        match self {
            Self::WorkloadIdentity { client_id, .. }
            | Self::ClientSecret { client_id, .. }
            | Self::ClientCertificate { client_id, .. }
            | Self::Operator { client_id } => Some(client_id),
            Self::Password { .. } => None,
        }
    }
}

/// A certificate with its key, as two PEM files that may be the same one. Watched: a new pair is used as soon as both
/// belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate_file: PathBuf,
    /// The private key of the leaf.
    pub key_file: PathBuf,
}

/// An Entra token authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// `host` or `host:port`, always spoken to over HTTPS.
    pub host: String,
    /// Tenant: a GUID or a verified domain.
    pub tenant: String,
    /// Scope to ask for, such as `https://outlook.office365.com/.default`.
    pub scope: String,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// URL of the HTTP proxy to the authority, instead of the one that the container's variables name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

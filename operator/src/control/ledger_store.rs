//! Where ledgers are written down: a `MailboxUsage` for each mailbox, in the operator's own namespace.
//!
//! Knows texts and versions, and not what they mean. One object for each mailbox, so that what goes wrong with one (a write that
//! fails or was overtaken, a record that is damaged or too large) is no other mailbox's concern. Every write carries the
//! resourceVersion that this replica knows: when another leader has written since, nothing is written.

use async_trait::async_trait;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api_error::ApiError;
use crate::budget::Namespace;
use crate::budget::mailboxes::Key;
use crate::crd::mailbox_usage::OPENED_BY_LABEL;
use crate::crd::{MailboxUsage, MailboxUsageSpec};

/// Objects in one answer to a list. Only their metadata are read.
const PAGE: u32 = 500;

/// Why a record is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica wrote since this one has read.
    #[error("another replica has written the MailboxUsage {0} since it was read")]
    Overtaken(String),
    /// The kind is not known.
    #[error(
        "the kind MailboxUsage is not defined: install the chart mailroute-crds in the operator's version"
    )]
    NotInstalled,
    /// The API server refuses.
    #[error("cannot read or write the MailboxUsage {name}: {source}")]
    Api {
        /// Its name.
        name: String,
        /// The API server's answer.
        source: ApiError,
    },
    /// It does not answer.
    #[error("the API server did not answer in time for the MailboxUsage {0}")]
    Late(String),
}

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of this text; nothing when the object cannot be read at all.
    pub record: Option<String>,
    /// Which write it was.
    pub version: String,
}

/// Where ledgers are written down.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// What is stored of a mailbox; nothing when nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn read(&self, key: &Key) -> Result<Option<Stored>, Error>;

    /// Writes in place of this version, or for the first time. Gives the version that it is now.
    ///
    /// # Errors
    /// When it is not known to be written. Then it may or may not be, and has to be read again.
    async fn write(
        &self,
        key: &Key,
        version: Option<&str>,
        opened_by: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error>;

    /// Removes this version.
    ///
    /// # Errors
    /// When it is not known to be removed.
    async fn remove(&self, key: &Key, version: &str) -> Result<(), Error>;

    /// Every mailbox of which something is stored, and the namespace that was the first to send as it.
    ///
    /// # Errors
    /// When they cannot be listed.
    async fn list(&self) -> Result<Vec<(Key, Namespace)>, Error>;
}

/// Records in `MailboxUsage`s.
pub struct MailboxUsages {
    api: Api<MailboxUsage>,
}

impl MailboxUsages {
    /// Those in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }
}

#[async_trait]
impl LedgerStore for MailboxUsages {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, Error> {
        match self.api.get_opt(key.as_str()).await {
            Ok(found) => Ok(found.map(|usage| Stored {
                version: usage.resource_version().unwrap_or_default(),
                record: Some(usage.spec.record),
            })),
            // Somebody has written it who knows another form of it.
            Err(kube::Error::SerdeError(_)) => {
                let found = self.api.get_metadata_opt(key.as_str()).await.map_err(|it| failed(key, it))?;
                let version = found.and_then(|it| it.metadata.resource_version);
                Ok(version.map(|version| Stored { record: None, version }))
            }
            Err(error) => Err(failed(key, error)),
        }
    }

    async fn write(
        &self,
        key: &Key,
        version: Option<&str>,
        opened_by: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error> {
        let written = match version {
            Some(version) => {
                let patch = json!({"metadata": {"resourceVersion": version}, "spec": usage});
                self.api.patch(key.as_str(), &PatchParams::default(), &Patch::Merge(patch)).await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(key.as_str().to_owned()),
                    labels: Some([(OPENED_BY_LABEL.to_owned(), opened_by.to_string())].into()),
                    ..ObjectMeta::default()
                };
                let made = MailboxUsage { metadata, spec: usage.clone() };
                match self.api.create(&PostParams::default(), &made).await {
                    Err(error) if code(&error) == Some(404) => return Err(Error::NotInstalled),
                    made => made,
                }
            }
        };
        let written = written.map_err(|error| failed(key, error))?;
        Ok(written.resource_version().unwrap_or_default())
    }

    async fn remove(&self, key: &Key, version: &str) -> Result<(), Error> {
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(key.as_str(), &parameters).await {
            Err(error) if code(&error) != Some(404) => Err(failed(key, error)),
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<(Key, Namespace)>, Error> {
        let mut parameters = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.api.list_metadata(&parameters).await;
            let page = page.map_err(|source| Error::Api { name: "*".to_owned(), source: source.into() })?;
            all.extend(page.items.iter().filter_map(|it| {
                let opened_by = it.labels().get(OPENED_BY_LABEL).map_or("", String::as_str);
                Some((Key::parse(&it.name_any())?, Namespace::from(opened_by)))
            }));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters = parameters.continue_token(&next),
                None => return Ok(all),
            }
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn failed(key: &Key, error: kube::Error) -> Error {
    let name = key.as_str().to_owned();
    match code(&error) {
        // Gone since it was read, or made by another replica.
        Some(404 | 409) => Error::Overtaken(name),
        _ => Error::Api { name, source: error.into() },
    }
}

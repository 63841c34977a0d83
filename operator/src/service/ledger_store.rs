//! Where ledgers are stored: a `MailboxUsage` for each mailbox, in the operator's own namespace; in memory for tests.
//!
//! Knows texts and versions, and not what they mean. Each mailbox has an object of its own, so that a failure of one (a write that
//! fails or comes second, a record that is damaged or too large) concerns no other. Every write carries the
//! resourceVersion that this replica knows: when another leader has written since, nothing is written.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use mailroute_operator_core::crd::mailbox_usage::OPENED_BY_LABEL;
use mailroute_operator_core::crd::{MailboxUsage, MailboxUsageSpec};
use mailroute_quota::server::limits::Namespace;
use serde_json::json;

use super::ids::MailboxKey;
use crate::api_error::ApiError;
use crate::lock;

/// Objects in one answer to a list. Only their metadata are read.
const PAGE: u32 = 500;

/// Why a record was not read or written.
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

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its text; nothing if the object cannot be read at all.
    pub record: Option<String>,
    /// Its version.
    pub version: String,
}

/// Where ledgers are stored.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// What is stored of a mailbox, if anything.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn read(&self, key: &MailboxKey) -> Result<Option<Stored>, Error>;

    /// Replaces this version, or writes for the first time. Returns the new version.
    ///
    /// # Errors
    /// When it is not known to be written. Then it may or may not be; read it again.
    async fn write(
        &self,
        key: &MailboxKey,
        version: Option<&str>,
        opened_by: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error>;

    /// Removes this version.
    ///
    /// # Errors
    /// When it is not known to be removed.
    async fn remove(&self, key: &MailboxKey, version: &str) -> Result<(), Error>;

    /// Every mailbox of which something is stored, with the namespace whose pod was the first to send as it.
    ///
    /// # Errors
    /// When they cannot be listed.
    async fn list(&self) -> Result<Vec<(MailboxKey, Namespace)>, Error>;
}

/// Stores records in `MailboxUsage` objects.
pub struct MailboxUsages {
    api: Api<MailboxUsage>,
}

impl MailboxUsages {
    /// Objects in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }
}

#[async_trait]
impl LedgerStore for MailboxUsages {
    async fn read(&self, key: &MailboxKey) -> Result<Option<Stored>, Error> {
        match self.api.get_opt(key.as_str()).await {
            Ok(found) => Ok(found.map(|usage| Stored {
                version: usage.resource_version().unwrap_or_default(),
                record: Some(usage.spec.record),
            })),
            // A program with another form of the object has written it.
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
        key: &MailboxKey,
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

    async fn remove(&self, key: &MailboxKey, version: &str) -> Result<(), Error> {
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api.delete(key.as_str(), &parameters).await {
            Err(error) if code(&error) != Some(404) => Err(failed(key, error)),
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<(MailboxKey, Namespace)>, Error> {
        let mut parameters = ListParams::default().limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.api.list_metadata(&parameters).await;
            let page = page.map_err(|source| Error::Api { name: "*".to_owned(), source: source.into() })?;
            all.extend(page.items.iter().filter_map(|it| {
                let opened_by = it.labels().get(OPENED_BY_LABEL).map_or("", String::as_str);
                Some((MailboxKey::parse(&it.name_any())?, Namespace::from(opened_by)))
            }));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters = parameters.continue_token(&next),
                None => return Ok(all),
            }
        }
    }
}

/// Stores records in memory, for tests of what uses a store.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<HashMap<MailboxKey, MemoryRecord>>,
    writes: Mutex<u32>,
}

#[derive(Debug)]
struct MemoryRecord {
    version: u64,
    opened_by: Namespace,
    text: String,
}

impl MemoryStore {
    /// How many times a record was written.
    pub fn writes(&self) -> u32 {
        *lock(&self.writes)
    }

    /// Puts a text in place of a mailbox's record, as another replica would.
    pub fn overwrite(&self, key: &MailboxKey, text: &str) {
        let mut records = lock(&self.records);
        let version = records.get(key).map_or(0, |record| record.version + 1);
        let record = MemoryRecord { version, opened_by: "".into(), text: text.to_owned() };
        records.insert(key.clone(), record);
    }
}

#[async_trait]
impl LedgerStore for MemoryStore {
    async fn read(&self, key: &MailboxKey) -> Result<Option<Stored>, Error> {
        let stored = |record: &MemoryRecord| Stored {
            record: Some(record.text.clone()),
            version: record.version.to_string(),
        };
        Ok(lock(&self.records).get(key).map(stored))
    }

    async fn write(
        &self,
        key: &MailboxKey,
        version: Option<&str>,
        opened_by: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error> {
        *lock(&self.writes) += 1;
        let mut records = lock(&self.records);
        let stored = records.get(key).map(|record| record.version);
        if stored.map(|stored| stored.to_string()).as_deref() != version {
            return Err(Error::Overtaken(key.as_str().to_owned()));
        }
        let version = stored.map_or(0, |stored| stored + 1);
        let record = MemoryRecord { version, opened_by: opened_by.clone(), text: usage.record.clone() };
        records.insert(key.clone(), record);
        Ok(version.to_string())
    }

    async fn remove(&self, key: &MailboxKey, _: &str) -> Result<(), Error> {
        lock(&self.records).remove(key);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(MailboxKey, Namespace)>, Error> {
        let records = lock(&self.records);
        Ok(records.iter().map(|(key, record)| (key.clone(), record.opened_by.clone())).collect())
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn failed(key: &MailboxKey, error: kube::Error) -> Error {
    let name = key.as_str().to_owned();
    match code(&error) {
        // Gone since it was read, or created by another replica.
        Some(404 | 409) => Error::Overtaken(name),
        _ => Error::Api { name, source: error.into() },
    }
}

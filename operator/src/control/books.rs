//! Where ledgers are written down: ConfigMaps of the release's namespace, a key for each mailbox.
//!
//! The chart renders them empty, so that they go when the release goes. A few with many keys, and not one for each mailbox, so
//! that the right to write them can be limited by name. Every write carries the resourceVersion that this replica knows: when
//! another leader has written since, nothing is written and everything has to be read again.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Mutex;

use crate::budget::mailboxes::Key;
use crate::budget::record::Record;

/// How many ConfigMaps there are. One holds up to 1 MiB: some hundred mailboxes, or thousands of sidecars.
pub const BOOKS: u32 = 8;

/// Key under which it is written when a ConfigMap was made anew, in place of a lost one.
const SINCE: &str = "since";

/// Why a ledger is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica wrote since this one has read.
    #[error("another replica has written the ConfigMap {0} since it was read")]
    Overtaken(String),
    /// The API server refuses, or does not answer.
    #[error("cannot read or write the ConfigMap {name}")]
    Api {
        /// Its name.
        name: String,
        /// The API server's answer.
        source: kube::Error,
    },
}

/// What is written of a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    /// This.
    Written(Box<Record>),
    /// Nothing, and nothing was ever given out.
    Blank,
    /// What there was is lost; it may have been written until this time since the Unix epoch, or until now.
    Lost(Option<Duration>),
}

/// Where ledgers are written down.
#[async_trait]
pub trait Books: Send + Sync {
    /// What is written of a mailbox.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn read(&self, key: &Key) -> Result<Page, Error>;

    /// Writes a mailbox's record in place of the one before.
    ///
    /// # Errors
    /// When it is not known to be written. Then it may or may not be, and has to be read again.
    async fn write(&self, key: &Key, record: &Record) -> Result<(), Error>;
}

/// Books in ConfigMaps.
pub struct ConfigMaps {
    api: Api<ConfigMap>,
    prefix: String,
    /// The resourceVersion of each as this replica knows it.
    versions: Vec<Mutex<Option<String>>>,
}

impl ConfigMaps {
    /// `<prefix>-budgets-0` and so on in `namespace`.
    pub fn new(client: Client, namespace: &str, prefix: &str) -> Self {
        let versions = (0..BOOKS).map(|_| Mutex::default()).collect();
        Self { api: Api::namespaced(client, namespace), prefix: prefix.to_owned(), versions }
    }

    fn book(&self, key: &Key) -> (String, &Mutex<Option<String>>) {
        let number = key.place(BOOKS);
        (format!("{}-budgets-{number}", self.prefix), &self.versions[number as usize])
    }

    async fn make(&self, name: &str) -> Result<ConfigMap, Error> {
        tracing::warn!(
            name,
            "the ConfigMap with what mailboxes have sent is gone; it is made again, and nothing is sent for two minutes"
        );
        let since = jiff::Timestamp::now().as_millisecond().to_string();
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let data = Some([(SINCE.to_owned(), since)].into());
        let made = ConfigMap { metadata, data, ..ConfigMap::default() };
        self.api.create(&PostParams::default(), &made).await.map_err(|source| failed(name, source))
    }
}

#[async_trait]
impl Books for ConfigMaps {
    async fn read(&self, key: &Key) -> Result<Page, Error> {
        let (name, version) = self.book(key);
        let mut version = version.lock().await;
        let found = self.api.get_opt(&name).await.map_err(|source| failed(&name, source))?;
        let book = match found {
            Some(book) => book,
            None => self.make(&name).await?,
        };
        *version = book.resource_version();
        let data = book.data.unwrap_or_default();
        Ok(page(data.get(key.as_str()).map(String::as_str), data.get(SINCE).map(String::as_str)))
    }

    async fn write(&self, key: &Key, record: &Record) -> Result<(), Error> {
        let (name, known) = self.book(key);
        let mut known = known.lock().await;
        // Unknown while it is written: who is cut off in between has to read again.
        let version = known.take().ok_or_else(|| Error::Overtaken(name.clone()))?;
        let patch = json!({
            "metadata": {"resourceVersion": version},
            "data": {key.as_str(): record.print()},
        });
        let written = self.api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        *known = written.map_err(|source| failed(&name, source))?.resource_version();
        Ok(())
    }
}

fn page(text: Option<&str>, since: Option<&str>) -> Page {
    let since = since.map(|since| since.parse().ok().map(Duration::from_millis));
    match (text, since) {
        (Some(text), _) => Record::parse(text).map_or(Page::Lost(None), |it| Page::Written(Box::new(it))),
        (None, None) => Page::Blank,
        (None, Some(since)) => Page::Lost(since),
    }
}

fn failed(name: &str, source: kube::Error) -> Error {
    match source {
        kube::Error::Api(status) if status.code == 409 => Error::Overtaken(name.to_owned()),
        source => Error::Api { name: name.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_without_a_page_is_new_unless_the_book_was_lost() {
        assert_eq!(page(None, None), Page::Blank);
        assert_eq!(page(None, Some("5000")), Page::Lost(Some(Duration::from_secs(5))));
        assert_eq!(page(None, Some("?")), Page::Lost(None));
        assert_eq!(page(Some("{}"), None), Page::Lost(None));
        let record = Record::default();
        assert_eq!(page(Some(&record.print()), Some("5000")), Page::Written(Box::new(record)));
    }
}

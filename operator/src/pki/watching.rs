//! Watches one object by its name: what both ways of maintaining certificates share.

use std::fmt::Debug;

use futures::Stream;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::api_error::ApiError;

/// The object as it is and as it changes; `None` while it does not exist.
pub(super) fn watched<K>(
    api: &Api<K>,
    name: &str,
) -> impl Stream<Item = watcher::Result<Option<K>>> + Unpin + Send + use<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    Box::pin(watcher::watch_object(api.clone(), name).default_backoff())
}

/// Logs that an object cannot be followed at present. The stream goes on by itself.
pub(super) fn complain(kind: &str, name: &str, error: &watcher::Error) {
    let error = ApiError::from(error);
    tracing::warn!(kind, name, %error, "cannot watch; check the operator's permissions and the API server");
}

/// Wakes receivers only if the value changed.
pub(super) fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|present| {
        let changed = *present != value;
        *present = value;
        changed
    });
}

//! The route a pod asks for, from the watched store: no call to the API server while a pod waits to be admitted.
//!
//! A route that was applied a moment before its pod may still be on its way here, so an unknown name is looked for again
//! at every change of the store, for a bounded time and by a bounded number of pods. One that is stored and cannot be read
//! is told apart from one that is not there.

use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use mailroute_operator_core::inject::Refusal;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::cache::namespaces::NamespaceRoutes;
use crate::cache::route::{OpenRoute, RouteStore};
use crate::cache::watch::{UnreadableRoutes, filled};

/// Pods that wait for a route at a time; a further one gets its answer at once.
const WAITING: usize = 24;

/// The watched routes, and the namespaces that name one.
#[derive(Debug)]
pub struct AwaitedRoutes {
    store: RouteStore,
    malformed: UnreadableRoutes,
    namespaces: NamespaceRoutes,
    changes: watch::Receiver<u64>,
    waiting: Semaphore,
}

/// What the answer depends on is not known yet.
#[derive(Debug, thiserror::Error)]
pub enum NotSynced {
    /// The store has not been filled.
    #[error("the operator has just started and does not know the MailRoutes yet; Kubernetes tries again")]
    Routes,
    /// The API server knows a label that has not been seen here.
    #[error(
        "the operator does not know the label mailroute.dev/route of the namespace yet; Kubernetes tries again"
    )]
    Namespace,
}

impl AwaitedRoutes {
    /// Reads from `store`; `malformed` has those that are stored and missing there. The value behind `changes` changes after
    /// every change of the store.
    pub fn new(
        store: RouteStore,
        malformed: UnreadableRoutes,
        changes: watch::Receiver<u64>,
        namespaces: NamespaceRoutes,
    ) -> Self {
        Self { store, malformed, namespaces, changes, waiting: Semaphore::new(WAITING) }
    }

    /// The route that the namespace's label names, which is waited for no longer than `patience`, and by so many pods at a time.
    ///
    /// # Errors
    /// [`NotSynced::Namespace`] when it is not known within that time.
    pub async fn of_namespace(&self, namespace: &str, patience: Duration) -> Result<String, NotSynced> {
        let patience = match self.waiting.try_acquire() {
            Ok(_place) => patience,
            Err(_) => Duration::ZERO,
        };
        self.namespaces.of(namespace, patience).await.ok_or(NotSynced::Namespace)
    }

    /// Finds the route, waiting for it no longer than `patience`.
    ///
    /// # Errors
    /// [`NotSynced`] when the store is not filled within that time.
    pub async fn find(
        &self,
        namespace: &str,
        name: &str,
        patience: Duration,
    ) -> Result<Result<OpenRoute, Refusal>, NotSynced> {
        if !timeout(patience, filled(&self.store)).await.unwrap_or(false) {
            return Err(NotSynced::Routes);
        }
        if let Some(route) = self.present(namespace, name) {
            return Ok(Ok(route));
        }
        let awaited = match self.waiting.try_acquire() {
            Ok(_place) => timeout(patience, self.appears(namespace, name)).await.ok().flatten(),
            Err(_) => None,
        };
        Ok(awaited.ok_or_else(|| self.missing(namespace, name)))
    }

    async fn appears(&self, namespace: &str, name: &str) -> Option<OpenRoute> {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            if let Some(route) = self.present(namespace, name) {
                return Some(route);
            }
            changes.changed().await.ok()?;
        }
    }

    fn present(&self, namespace: &str, name: &str) -> Option<OpenRoute> {
        Some(self.store.get(&ObjectRef::new(name).within(namespace))?.open())
    }

    fn missing(&self, namespace: &str, name: &str) -> Refusal {
        if let Some(error) = self.malformed.why(namespace, name) {
            return Refusal::UnreadableRoute { route: name.to_owned(), error };
        }
        let there = self.store.state_filter(|route| route.meta().namespace.as_deref() == Some(namespace));
        let mut known: Vec<_> = there.iter().map(|route| route.name_any()).collect();
        known.sort_unstable();
        Refusal::UnknownRoute { route: name.to_owned(), namespace: namespace.to_owned(), known }
    }
}

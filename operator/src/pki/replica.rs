//! What a replica's certificates need whoever issues them: the objects to watch, what is served and announced, and when to act.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;

use super::announcements::Announcements;
use super::leaf::ServedLeaf;
use super::publisher::Publisher;
use super::settings::PkiSettings;
use super::watching::{complain, watched};
use crate::leader_election::Leadership;

/// The names, the Secret and the announcements of one replica.
pub(super) struct Replica {
    /// DNS names of the served certificate.
    pub names: Vec<String>,
    /// Name of the Secret with what is kept.
    pub secret: String,
    pub secrets: Api<Secret>,
    pub publisher: Publisher,
    pub served: Arc<ServedLeaf>,
    pub announce: Announcements,
    leading: watch::Receiver<Leadership>,
}

/// Maintains the certificates of a replica.
pub(super) trait Keep: Send {
    fn replica(&mut self) -> &mut Replica;

    /// The Secret was read; `None` while there is none.
    fn see(&mut self, secret: Option<Secret>);

    /// Does what is due, and returns how long nothing else will be due.
    fn act(&mut self) -> impl Future<Output = Duration> + Send;
}

impl Replica {
    pub(super) fn new(
        client: Client,
        settings: PkiSettings,
        secret: String,
        leading: watch::Receiver<Leadership>,
        announce: Announcements,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            publisher: Publisher::new(client, &settings, announce.registration.clone()),
            names: settings.names,
            secret,
            served: Arc::default(),
            announce,
            leading,
        }
    }

    /// Whether this is the replica that writes.
    pub(super) fn leads(&self) -> bool {
        self.leading.borrow().leading
    }
}

/// Runs until it is dropped, or until the election's task is gone.
pub(super) async fn run(mut keeper: impl Keep) {
    let replica = keeper.replica();
    let (name, mut leading) = (replica.secret.clone(), replica.leading.clone());
    let mut secrets = watched(&replica.secrets, &name);
    let mut webhooks = replica.publisher.watched();
    loop {
        let sleep = keeper.act().await;
        tokio::select! {
            Some(event) = secrets.next() => match event {
                Ok(seen) => keeper.see(seen),
                Err(error) => complain("Secret", &name, &error),
            },
            Some(event) = webhooks.next() => keeper.replica().publisher.hear(event),
            changed = leading.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

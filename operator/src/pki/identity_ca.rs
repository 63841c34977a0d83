//! The CA of sidecars and gateways in an installation whose own certificate somebody else keeps: the same keyring in the same Secret as
//! with an authority of our own, but no API server checks what it signs.
//!
//! What is in the Secret counts as published: the leader renders it into route files at once, and the settling time is far longer
//! than kubelets take to bring these to the pods.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::watch;

use super::bundle::Bundle;
use super::keyring::Keyring;
use super::pace::{LONGEST_SLEEP, sleep_until};
use super::stored_keyring::StoredKeyring;
use super::watching::{complain, watched};
use crate::leader_election::Leadership;

/// Runs until it is dropped, or until the election's task is gone.
pub(super) async fn run(
    mut keyring: StoredKeyring,
    secrets: Api<Secret>,
    name: String,
    mut leading: watch::Receiver<Leadership>,
) {
    let mut seen = watched(&secrets, &name);
    loop {
        let leads = leading.borrow().leading;
        let sleep = act(&mut keyring, leads).await;
        tokio::select! {
            Some(event) = seen.next() => match event {
                Ok(secret) => keyring.see(secret),
                Err(error) => complain("Secret", &name, &error),
            },
            changed = leading.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// Does what is due, and returns how long nothing else will be due.
async fn act(keyring: &mut StoredKeyring, leads: bool) -> Duration {
    if !keyring.is_known() || !leads {
        return LONGEST_SLEEP;
    }
    keyring.rotate(&published(keyring), Timestamp::now()).await;
    let now = Timestamp::now();
    keyring.next(&published(keyring), now).map_or(LONGEST_SLEEP, |next| sleep_until(next, now))
}

fn published(keyring: &StoredKeyring) -> Bundle {
    keyring.keyring().map(Keyring::bundle).unwrap_or_default()
}

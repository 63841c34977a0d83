//! The memory of a gateway: ten thousand messages that come in within seconds, small ones and a large one among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::identity::Role;
use mailroute_sidecar::gateway::client::{Gateways, Offer};
use mailroute_sidecar::message::body::Writer;
use mailroute_sidecar::spool::{Progress, Shelf};

use crate::child;
use crate::kept::down;
use crate::kills::{Process, folder, free};
use crate::once::{gateways, give};
use crate::pods::Pods;

const MESSAGES: u64 = 10_000;

/// What the container has.
const MOST_KIB: u64 = 64 * 1024;

/// Sidecars that hand over at the same time, each with several connections.
const SIDECARS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_takes_ten_thousand_messages_over_stays_small() {
    let address = free();
    let pods = Pods::new(&address.to_string(), Queue).await;
    down(&pods.m365, true).await;
    let files = folder(&pods, Role::Gateway);
    std::fs::write(files.path("address"), address.to_string()).unwrap();
    let process = Process::start("kills::a_gateway_until_it_is_killed", &files.path(""));
    let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
    while give(&sidecar, MESSAGES).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..SIDECARS {
        let sidecar = gateways(&pods, Role::Sidecar, &pods.route.name);
        tasks.extend((0..2).map(|_| tokio::spawn(load(Arc::clone(&sidecar), Arc::clone(&next)))));
    }
    large(&sidecar).await;
    for task in tasks {
        task.await.unwrap();
    }
    let (took, peak) = (started.elapsed(), process.peak());
    process.kill();
    println!("{MESSAGES} messages in {took:?}; {peak} KiB at most");
    let stored = crate::pods::stored(&files, "queue") as u64;
    assert_eq!(stored, MESSAGES + 2);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

async fn load(sidecar: Arc<Gateways>, next: Arc<AtomicU64>) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= MESSAGES {
            return;
        }
        give(&sidecar, n).await.unwrap();
    }
}

/// Hands over a message of a hundred mebibytes.
async fn large(sidecar: &Gateways) {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Arc::new(scratch.path().to_owned()));
    for _ in 0..100 * 16 {
        writer.buffer().extend(std::iter::repeat_n(b'x', 64 * 1024 - 2));
        writer.buffer().extend(b"\r\n");
        writer.spill().await.unwrap();
    }
    let (body, entry) = (writer.finish("").await.unwrap(), child::entry(MESSAGES + 1));
    let progress = Progress::fresh(&entry);
    let offer = Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
    sidecar.hand_over(offer).await.unwrap();
}

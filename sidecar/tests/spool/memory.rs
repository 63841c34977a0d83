//! Memory, measured: a message of 150 MiB takes what a small one does, and one that waits takes next to nothing.

use jiff::Timestamp;
use mailroute_sidecar::message::body::Writer;
use mailroute_sidecar::message::envelope::QueueId;
use mailroute_sidecar::queue::index::{Index, QueueRecord};
use mailroute_sidecar::spool::{Progress, Spool};

use super::child::{self, PLENTY, entry};

/// Messages that wait.
const WAITING: u64 = 100_000;

const MIB: usize = 1024 * 1024;

/// More than it takes to copy in pieces of 64 KiB, with two threads and the program text they use.
const ROOM_KIB: u64 = 4 * 1024;

#[test]
fn a_large_message_takes_the_memory_of_a_small_one() {
    let directory = tempfile::tempdir().unwrap();
    child::succeeds(child::command("memory::a_large_message_goes_through", directory.path()));
}

#[test]
fn a_message_that_waits_takes_a_few_hundred_octets() {
    let directory = tempfile::tempdir().unwrap();
    child::succeeds(child::command("memory::many_messages_wait", directory.path()));
}

/// The most memory that this process ever had, KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
#[ignore = "the other test runs it, alone in its process"]
async fn a_large_message_goes_through() {
    let Some(directory) = child::directory() else { return };
    let before = peak();
    let (spool, _) = Spool::open(&directory, PLENTY).await.unwrap();
    let mut writer = Writer::new(spool.scratch());
    for n in 0..150 * MIB / 1024 {
        writer.buffer().extend(std::iter::repeat_n((n % 251) as u8, 1024));
        writer.spill().await.unwrap();
    }
    let body = writer.finish("Received: here\r\n").await.unwrap();
    let entry = entry(1);
    spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
    let sum = body.crc32();
    drop((body, spool));

    let (spool, recovered) = Spool::open(&directory, PLENTY).await.unwrap();
    assert_eq!(recovered.waiting[0].bytes, 150 * MIB as u64 + 16);
    let kept = spool.load(&entry.envelope.id).await.unwrap();
    let (mut reader, mut read) = (kept.body.reader(), crc32fast::Hasher::new());
    while let Some(piece) = reader.next().await.unwrap() {
        read.update(&piece);
    }
    assert_eq!(read.finalize(), sum);
    let took = peak() - before;
    println!("peak memory: {} KiB, {took} KiB of them for the message", peak());
    assert!(took < ROOM_KIB, "{took} KiB");
}

#[test]
#[ignore = "the other test runs it, alone in its process"]
fn many_messages_wait() {
    if child::directory().is_none() {
        return;
    }
    let now = Timestamp::UNIX_EPOCH;
    let before = peak();
    let mut index = Index::default();
    for n in 0..WAITING {
        index.insert(QueueId::new(now, n), QueueRecord::new(now, now, 1));
    }
    let took = peak() - before;
    println!("{} octets for each that waits", took * 1024 / WAITING);
    assert!(took * 1024 / WAITING < 400, "{took} KiB for {}", index.len());
}

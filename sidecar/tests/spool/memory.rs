//! A message of 150 MiB, in and out again, in the memory that a small one takes.

use mailroute_sidecar::body::Writer;
use mailroute_sidecar::spool::{Progress, Spool};

use super::child::{self, PLENTY, entry};

const MIB: usize = 1024 * 1024;

/// More than it takes to copy in pieces of 64 KiB, with two threads and the program text they use.
const ROOM_KIB: u64 = 4 * 1024;

#[test]
fn a_large_message_takes_the_memory_of_a_small_one() {
    let directory = tempfile::tempdir().unwrap();
    child::succeeds(child::command("memory::a_large_message_goes_through", directory.path()));
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

//! Volumes that are full, for real: what is new is refused whole, what is kept stays, and room that is made is used.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::spool::{Full, Progress, RecipientStatus, Shelf, Spool, SpoolError};

use super::child::{self, PLENTY, body, contents, entry};

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the child on a volume of its own, which goes with it. Without root, that takes a user namespace; where neither
/// is to be had, files that may not grow (below) have to do.
fn on_volume(options: &str, name: &str) {
    let namespaces: &[&[&str]] = &[&["unshare", "-m", "sh"], &["unshare", "-Urm", "sh"]];
    let script = format!("mount -t tmpfs -o {options} none \"$MAILROUTE_TEST_SPOOL\" && exec \"$@\"");
    let possible = |shell: &&&[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let tried =
            child::in_shell("none", directory.path(), &script.replace("exec \"$@\"", "true"), shell).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(shell) = namespaces.iter().find(possible) else {
        eprintln!("no volume can be mounted here: not run");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    child::succeeds(child::in_shell(name, directory.path(), &script, shell));
}

#[test]
fn a_full_volume_refuses_what_is_new() {
    on_volume("size=512k", "full::until_it_is_full");
}

#[test]
fn a_volume_without_inodes_refuses_what_is_new() {
    on_volume("size=64m,nr_inodes=30", "full::until_it_is_full");
}

#[test]
fn what_is_gone_leaves_a_full_volume_of_a_gateway() {
    on_volume("size=512k", "full::everything_leaves");
}

#[test]
fn no_receipt_is_written_behind_half_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
    child::succeeds(child::in_shell("full::receipts_do_not_fit", directory.path(), script, &["sh"]));
}

#[test]
fn files_that_may_not_grow_are_a_full_volume() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
    child::succeeds(child::in_shell("full::no_file_may_be_large", directory.path(), script, &["sh"]));
}

fn names(directory: &Path, below: &str) -> usize {
    std::fs::read_dir(directory.join(below)).unwrap().count()
}

/// Every second hundred of messages is small, to fill what the larger ones leave.
fn octets(n: u64) -> Vec<u8> {
    vec![n as u8; if (n / 100).is_multiple_of(2) { 10_000 } else { 100 }]
}

fn message(n: u64) -> Body {
    Body::new("", octets(n))
}

/// Stores messages from `first` on, and says how many the volume took.
async fn fill(spool: &Spool, first: u64) -> u64 {
    for n in first..first + 100 {
        let entry = entry(n);
        match spool.store(&entry, &Progress::fresh(&entry), &message(n)).await {
            Ok(()) => {}
            Err(SpoolError::Full(Full::Volume(_))) => return n - first,
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("the volume has an end")
}

#[tokio::test]
#[ignore = "another test runs it, on a small volume"]
async fn until_it_is_full() {
    let Some(directory) = child::directory() else { return };
    let (spool, _) = Spool::open(&directory, PLENTY).await.unwrap();
    let (larger, smaller) = (fill(&spool, 0).await, fill(&spool, 100).await);
    assert!(larger > 5 && names(&directory, "tmp") == 0, "{larger}");
    let taken = larger + smaller;
    assert_eq!(names(&directory, "queue") as u64, taken);

    // Several at a time, and one that comes from another volume.
    let outside = tempfile::tempdir_in("/dev/shm").unwrap();
    let large = body(std::sync::Arc::new(outside.path().to_owned()), &vec![1; 1_000_000]).await;
    let store = async |n, body: Body| {
        let entry = entry(n);
        spool.store(&entry, &Progress::fresh(&entry), &body).await
    };
    let mut refused = vec![store(1001, large).await];
    refused.extend(futures::future::join_all((1002..1020).map(|n| store(n, message(n)))).await);
    assert!(refused.iter().all(|refused| matches!(refused, Err(SpoolError::Full(_)))), "{refused:?}");
    assert!(names(&directory, "tmp") == 0 && names(&directory, "queue") as u64 == taken);

    kept_ones_stay(&spool, &directory, (0..larger).chain(100..100 + smaller).collect()).await;
}

async fn kept_ones_stay(spool: &Spool, directory: &Path, taken: Vec<u64>) {
    let first = entry(0);
    let settled = Progress {
        statuses: vec![RecipientStatus::Delivered, RecipientStatus::Waiting],
        ..Progress::fresh(&first)
    };
    let recorded = spool.record(&first.envelope.id, &settled).await;
    assert!(matches!(recorded, Err(SpoolError::Full(_))), "{recorded:?}");
    // Giving up needs no room.
    spool.bury(&first.envelope.id, &settled).await.unwrap();
    assert_eq!((names(directory, "queue") as u64, names(directory, "dead")), (taken.len() as u64 - 1, 1));
    for n in taken {
        let kept = spool.load(&entry(n).envelope.id).await.unwrap();
        assert_eq!(contents(&kept.body).await, octets(n));
        assert_eq!(kept.shelf, if n == 0 { Shelf::Dead } else { Shelf::Queue });
    }
    for n in 0..3 {
        spool.remove(&entry(n).envelope.id).await.unwrap();
    }
    // A file is cleared, to be written again, after its removal was told.
    let room = async {
        let (mut taken, mut first) = (0, 2000);
        while taken < 2 {
            taken += fill(spool, first).await;
            first += 100;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("room that is made is used");
}

#[tokio::test]
#[ignore = "another test runs it, with a limit on its files"]
async fn no_file_may_be_large() {
    let Some(directory) = child::directory() else { return };
    let (spool, _) = Spool::open(&directory, PLENTY).await.unwrap();
    let large = entry(1);
    let body = Body::new("", vec![b'x'; 1_000_000]);
    let refused = spool.store(&large, &Progress::fresh(&large), &body).await;
    assert!(matches!(refused, Err(SpoolError::Full(Full::Volume(_)))), "{refused:?}");
    assert_eq!((names(&directory, "tmp"), names(&directory, "queue"), spool.stock().bytes), (0, 0, 0));
    let small = entry(2);
    spool.store(&small, &Progress::fresh(&small), &message(2)).await.unwrap();
}

/// A spool that remembers what is gone.
async fn of_gateway(directory: &Path) -> Spool {
    let (spool, mut recovered) = Spool::open(directory, PLENTY).await.unwrap();
    spool.keep_receipts(&mut recovered).await.unwrap();
    spool
}

#[tokio::test]
#[ignore = "another test runs it, on a small volume"]
async fn everything_leaves() {
    let Some(directory) = child::directory() else { return };
    let spool = of_gateway(&directory).await;
    let (larger, smaller) = (fill(&spool, 0).await, fill(&spool, 100).await);
    for n in (0..larger).chain(100..100 + smaller) {
        let id = entry(n).envelope.id;
        spool.finish(&id).await.unwrap();
        assert!(spool.knows(&id), "{n}");
    }
    assert_eq!(names(&directory, "queue"), 0);
}

#[tokio::test]
#[ignore = "another test runs it, with a limit on its files"]
async fn receipts_do_not_fit() {
    let Some(directory) = child::directory() else { return };
    // So many lines that there is room for two more, and a half.
    let line = format!("{}\n", entry(0).envelope.id);
    let path = directory.join("receipts");
    let mut receipts = File::create(&path).unwrap();
    while receipts.write_all(line.as_bytes()).is_ok() {}
    let lines = receipts.metadata().unwrap().len() / line.len() as u64;
    receipts.set_len((lines - 2) * line.len() as u64).unwrap();
    drop(receipts);

    let spool = of_gateway(&directory).await;
    let ids: Vec<_> = (1..=4).map(|n| entry(n).envelope.id).collect();
    for (n, id) in (1..).zip(&ids) {
        let entry = entry(n);
        spool.store(&entry, &Progress::fresh(&entry), &message(n)).await.unwrap();
        spool.finish(id).await.unwrap();
    }
    assert_eq!((names(&directory, "queue"), ids.iter().all(|id| spool.knows(id))), (0, true));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), lines * line.len() as u64, "whole lines alone");
    drop(spool);
    let spool = of_gateway(&directory).await;
    assert_eq!(ids.iter().map(|id| spool.knows(id)).collect::<Vec<_>>(), [true, true, false, false]);
}

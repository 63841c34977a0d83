//! How many messages a second the spool makes durable, and what the same directory allows without it.
//!
//!     cargo run --release -p mailroute-sidecar --example spool -- [directory] [seconds]
//!
//! For each size and number of senders at once: `stored`, each message until its `store` returns; `passed`, stored, read
//! and removed again, as a queue does. `one by one` is one thread with a file, its sync, its rename and the directory's
//! sync for each message, which is what a spool without shared syncs would do at best.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement on a terminal")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use mailroute_sidecar::spool::{Entry, Kind, Progress, Spool, SpoolLimits};

const SIZES: [(&str, usize); 2] = [("4 KiB", 4096), ("60 KiB", 60 * 1024)];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let time = Duration::from_secs_f64(arguments.next().map_or(2.0, |seconds| seconds.parse().unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().max_blocking_threads(4).build().unwrap();
    println!("{:>8} {:>12} {:>10} {:>10} {:>14}", "size", "at once", "stored/s", "passed/s", "CPU ms/1000");
    for (name, len) in SIZES {
        let root = tempfile::tempdir_in(&directory).unwrap();
        println!("{name:>8} {:>12} {:>10.0}", "one by one", one_by_one(root.path(), len, time));
        for senders in [1, 10, 50] {
            let rate = |pass| runtime.block_on(stores(root.path(), len, senders, time, pass));
            let ((stored, cpu), (passed, _)) = (rate(false), rate(true));
            println!("{name:>8} {senders:>12} {stored:>10.0} {passed:>10.0} {cpu:>14.0}");
        }
    }
}

fn one_by_one(root: &Path, len: usize, time: Duration) -> f64 {
    let (octets, began, mut n) = (vec![b'x'; len], Instant::now(), 0);
    let directory = File::open(root).unwrap();
    while began.elapsed() < time {
        let (tmp, name) = (root.join("tmp"), root.join(n.to_string()));
        let mut file = File::create(&tmp).unwrap();
        file.write_all(&octets).unwrap();
        file.sync_data().unwrap();
        fs::rename(tmp, name).unwrap();
        directory.sync_all().unwrap();
        n += 1;
    }
    let rate = f64::from(n) / began.elapsed().as_secs_f64();
    (0..n).for_each(|n| fs::remove_file(root.join(n.to_string())).unwrap());
    rate
}

/// Messages a second, and milliseconds of CPU for a thousand of them.
async fn stores(root: &Path, len: usize, senders: u64, time: Duration, pass: bool) -> (f64, f64) {
    let root = tempfile::tempdir_in(root).unwrap();
    let (spool, _) =
        Spool::open(root.path(), SpoolLimits { max_bytes: u64::MAX, keep_dead: 1 }).await.unwrap();
    let (began, cpu) = (Instant::now(), cpu());
    let sender = |sender: u64| {
        let (spool, body) = (&spool, Body::new("Received: here\r\n", vec![b'x'; len]));
        async move {
            let mut n = 0_u64;
            while began.elapsed() < time {
                let entry = entry(sender << 32 | n);
                spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
                if pass {
                    spool.load(&entry.envelope.id).await.unwrap();
                    spool.remove(&entry.envelope.id).await.unwrap();
                }
                n += 1;
            }
            n
        }
    };
    let n: u64 = futures::future::join_all((0..senders).map(sender)).await.into_iter().sum();
    (n as f64 / began.elapsed().as_secs_f64(), (self::cpu() - cpu) * 1e6 / n as f64)
}

/// Seconds of CPU that this process took so far (`utime` and `stime` in hundredths of a second).
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn entry(random: u64) -> Entry {
    let accepted = Timestamp::now();
    let envelope = Envelope {
        id: QueueId::new(accepted, random),
        message_id: "<1@contoso.com>".into(),
        client_name: "app".into(),
        reverse_path: ReversePath::Null,
        recipients: vec![Address::parse("a@b.example").unwrap()],
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    };
    Entry { envelope, kind: Kind::Message, accepted }
}

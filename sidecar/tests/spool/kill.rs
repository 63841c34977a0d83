//! `kill -9` while messages are stored, recorded, moved and removed: what the program was told is true afterwards.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use mailroute_sidecar::clock;
use mailroute_sidecar::spool::{DeliveryProblem, Progress, RecipientStatus, Shelf, Spool};

use super::child::{self, PLENTY, body, contents, entry, octets};

/// Programs killed.
const KILLS: u64 = 25;

/// What the killed program had been told, as message numbers.
#[derive(Debug, Default)]
struct Told {
    begun: BTreeSet<u64>,
    stored: BTreeSet<u64>,
    sealed: BTreeSet<u64>,
    burying: BTreeSet<u64>,
    buried: BTreeSet<u64>,
    removing: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_told_before_the_kill_is_true_after_it() {
    let (mut stored, mut interrupted) = (0, 0);
    for round in 0..KILLS {
        let directory = tempfile::tempdir().unwrap();
        let told = killed_while_storing(directory.path());
        interrupted += u64::from(told.stored.len() < told.begun.len());
        stored += told.stored.len();
        is_true(&told, directory.path()).await.unwrap_or_else(|wrong| panic!("round {round}: {wrong}"));
    }
    assert!(stored > 200 && interrupted > KILLS / 2, "{stored} stored, {interrupted} kills in the middle");
}

/// Starts the program, and kills it at some moment after it has begun.
fn killed_while_storing(directory: &Path) -> Told {
    let command = &mut child::command("kill::stores_until_it_is_killed", directory);
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    let patience = (clock::chance() * 200.0) as usize;
    let mut heard: Vec<String> =
        lines.by_ref().filter(|line| line.starts_with("told ")).take(1 + patience).collect();
    program.kill().unwrap();
    heard.extend(lines.filter(|line| line.starts_with("told ")));
    program.wait().unwrap();
    let mut told = Told::default();
    for line in heard {
        let words: Vec<_> = line.split(' ').collect();
        let [_, what, n] = words[..] else { panic!("{line:?}") };
        let n = n.parse().unwrap();
        match what {
            "begun" => told.begun.insert(n),
            "stored" => told.stored.insert(n),
            "sealed" => told.sealed.insert(n),
            "burying" => told.burying.insert(n),
            "buried" => told.buried.insert(n),
            "removing" => told.removing.insert(n),
            "removed" => told.removed.insert(n),
            _ => panic!("{line:?}"),
        };
    }
    told
}

/// What the next program finds, against what the killed one was told.
async fn is_true(told: &Told, directory: &Path) -> Result<(), String> {
    let (spool, recovered) = Spool::open(directory, PLENTY).await.map_err(|error| error.to_string())?;
    if recovered.set_aside > 0 || std::fs::read_dir(spool.scratch().directory()).unwrap().count() > 0 {
        return Err(format!("half a file was left: {recovered:?}"));
    }
    for n in told.begun.iter().copied() {
        let kept = spool.load(&entry(n).envelope.id).await.ok();
        let Some(kept) = kept else {
            if told.stored.contains(&n) && !told.removing.contains(&n) {
                return Err(format!("message {n} is lost"));
            }
            continue;
        };
        if told.removed.contains(&n) {
            return Err(format!("message {n} is back"));
        }
        if kept.entry != entry(n) || contents(&kept.body).await != octets(n) {
            return Err(format!("message {n} has changed"));
        }
        if told.sealed.contains(&n) && kept.progress.statuses[0] != RecipientStatus::Delivered {
            return Err(format!("message {n} forgot who has got it: {:?}", kept.progress));
        }
        let may = (told.buried.contains(&n), told.burying.contains(&n), kept.shelf);
        if matches!(may, (true, _, Shelf::Queue) | (_, false, Shelf::Dead)) {
            return Err(format!("message {n} is in the wrong place: {may:?}"));
        }
    }
    Ok(())
}

#[tokio::test]
#[ignore = "the other test runs it, and kills it"]
async fn stores_until_it_is_killed() {
    let Some(directory) = child::directory() else { return };
    let (spool, _) = Spool::open(&directory, PLENTY).await.unwrap();
    let worker = |first: u64| {
        let spool = spool.clone();
        async move {
            for n in (first..).step_by(8) {
                live(&spool, n).await;
            }
        }
    };
    futures::future::join_all((1..=8).map(worker)).await;
}

/// A message's life.
async fn live(spool: &Spool, n: u64) {
    let (entry, octets) = (entry(n), octets(n));
    let id = &entry.envelope.id;
    let body = body(spool.scratch(), &octets).await;
    println!("told begun {n}");
    spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
    println!("told stored {n}");
    let trouble = DeliveryProblem {
        at: entry.accepted,
        outcome: "transient".into(),
        reason: None,
        text: "451 4.3.2 try later".into(),
        replied: true,
        host: None,
    };
    let mut progress = Progress { attempts: 1, last: Some(trouble.clone()), ..Progress::fresh(&entry) };
    if n.is_multiple_of(2) {
        spool.record(id, &progress).await.unwrap();
    }
    if n.is_multiple_of(4) {
        progress.statuses[0] = RecipientStatus::Delivered;
        spool.record(id, &progress).await.unwrap();
        println!("told sealed {n}");
    }
    if n.is_multiple_of(8) {
        progress.statuses[1] = RecipientStatus::Failed(trouble);
        println!("told burying {n}");
        spool.bury(id, &progress).await.unwrap();
        println!("told buried {n}");
    }
    if n.is_multiple_of(3) {
        println!("told removing {n}");
        spool.remove(id).await.unwrap();
        println!("told removed {n}");
    }
}

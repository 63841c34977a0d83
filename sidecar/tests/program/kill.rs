//! `kill -9` of the whole program under load, again and again: nothing that got 250 is lost, and nothing arrives twice but
//! what was on its way when the program died, or when the upstream hung up before its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mailroute_m365::{Faults, Options, Rule, Simulator, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::file::DeliveryMode;
use mailroute_sidecar::clock;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::process::{port, replies, say, start};

/// Programs killed.
const KILLS: u64 = 200;

/// Applications that send at the same time.
const SESSIONS: usize = 6;

/// Most messages that are accepted in the life of a program before it is killed.
const LIFE: f64 = 12.0;

/// Longest time from then, milliseconds: what the program does at that moment is left to chance.
const MOMENT: f64 = 10.0;

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers that the upstream keeps to itself, over the whole run.
const UNSEEN: u32 = 20;

/// The upstream's answers and what the applications know.
#[derive(Default)]
struct Told {
    /// Messages begun, by number.
    begun: AtomicU64,
    /// Numbers of those that were answered 250.
    accepted: watch::Sender<BTreeSet<u64>>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_over_two_hundred_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.config.limits.messages_per_minute = 1_000_000;
    options.config.limits.recipients_per_day = 10_000_000;
    let m365 = Simulator::start(options).await.unwrap();
    hide_some_answers(&m365);
    let told = Arc::new(Told::default());
    for round in 0..KILLS {
        let mode = [DeliveryMode::Queue, DeliveryMode::DeliverOrQueue][usize::from(round.is_multiple_of(2))];
        one_life(&m365, folder.path(), mode, &told).await;
    }

    let accepted = told.accepted.borrow().clone();
    assert!(accepted.len() > 500, "{} accepted: the load was no load", accepted.len());
    let mut program = start(&m365, folder.path(), DeliveryMode::Queue, |_| {});
    port(&mut program).await;
    let waited = Duration::from_secs(60);
    let (mut missing, mut seen) = (accepted.clone(), 0);
    // Asked again after every message, so each is looked at once.
    let all = m365.wait_for(waited, |office| {
        for message in office.messages.range(seen..) {
            if let Some(number) = message.header("Subject").and_then(|number| number.parse().ok()) {
                missing.remove(&number);
            }
        }
        seen = office.messages.len();
        missing.is_empty().then_some(())
    });
    let complete = all.await.is_some();
    program.kill().await.unwrap();

    let messages = m365.messages();
    let arrived = numbers(messages.iter().map(|message| message.header("Subject")));
    let lost: Vec<_> = accepted.iter().filter(|number| !arrived.contains_key(number)).collect();
    assert!(complete && lost.is_empty(), "lost {lost:?} of {}", accepted.len());
    let twice: u64 = arrived.values().map(|times| times - 1).sum();
    // One connection, so one message on its way at each death.
    assert!(twice <= KILLS + u64::from(UNSEEN), "{twice} arrived again");
    for number in arrived.iter().filter(|(_, times)| **times > 1).map(|(number, _)| number) {
        let subject = number.to_string();
        let mut same = messages.iter().filter(|message| message.header("Subject") == Some(&subject));
        let first = same.next().unwrap();
        assert!(
            same.all(|message| message.data == first.data),
            "{number} is another message the second time"
        );
    }
}

/// The end of the data is answered by hanging up, now and then, after the message was taken.
fn hide_some_answers(m365: &Simulator) {
    let rules = vec![Rule::times(Stage::EndOfData, SmtpAction::CutBeforeReply, UNSEEN)];
    m365.set_faults(Faults { submission: SubmissionFaults { rules, ..<_>::default() }, ..<_>::default() });
}

/// Starts the program, sends through it, and kills it at some moment.
async fn one_life(m365: &Simulator, folder: &Path, mode: DeliveryMode, told: &Arc<Told>) {
    let mut program = start(m365, folder, mode, |_| {});
    let mut accepted = told.accepted.subscribe();
    let enough = accepted.borrow().len() + (clock::chance() * LIFE) as usize;
    let moment = Duration::from_secs_f64(clock::chance() * MOMENT / 1000.0);
    let load = async {
        let port = port(&mut program).await;
        let sessions: Vec<_> = (0..SESSIONS).map(|_| tokio::spawn(session(port, Arc::clone(told)))).collect();
        let lived = accepted.wait_for(|accepted| accepted.len() >= enough);
        tokio::time::timeout(PATIENCE, lived).await.expect("mail is accepted").unwrap();
        tokio::time::sleep(moment).await;
        sessions
    };
    // Some die before they listen.
    let sessions = match clock::chance() < 0.1 {
        true => tokio::time::timeout(moment, load).await.unwrap_or_default(),
        false => load.await,
    };
    program.kill().await.unwrap();
    for session in sessions {
        session.await.unwrap();
    }
}

/// Sends one message after another until the program is gone.
async fn session(port: u16, told: Arc<Told>) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if replies(&mut stream, 1).await.is_none() || say(&mut stream, "EHLO app.example\r\n", 1).await.is_none()
    {
        return;
    }
    loop {
        let number = told.begun.fetch_add(1, Ordering::Relaxed);
        let envelope = "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ann@fabrikam.com>\r\nDATA\r\n";
        if say(&mut stream, envelope, 3).await.is_none() {
            return;
        }
        match say(&mut stream, &message(number), 1).await {
            Some(answer) if answer.starts_with("250") => {
                told.accepted.send_modify(|accepted| {
                    accepted.insert(number);
                });
            }
            Some(answer) => assert!(answer.starts_with('4'), "{answer}"),
            None => return,
        }
    }
}

/// Some are larger than what is kept in memory.
fn message(number: u64) -> String {
    let filling = "0123456789abcdef".repeat(if number.is_multiple_of(7) { 20_000 } else { 20 });
    let lines: Vec<&str> = (0..filling.len()).step_by(64).filter_map(|at| filling.get(at..at + 64)).collect();
    format!(
        "From: <noreply@contoso.com>\r\nTo: <ann@fabrikam.com>\r\nSubject: {number}\r\n\r\n{}\r\n.\r\n",
        lines.join("\r\n")
    )
}

/// How often each number arrived.
fn numbers<'a>(subjects: impl Iterator<Item = Option<&'a str>>) -> BTreeMap<u64, u64> {
    let mut numbers = BTreeMap::new();
    for number in subjects.filter_map(|subject| subject?.parse().ok()) {
        *numbers.entry(number).or_default() += 1;
    }
    numbers
}

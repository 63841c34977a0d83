//! `mailroute-sidecar queue` as a program: exit codes, what goes to which stream, and a spool without a sidecar.

use std::path::Path;
use std::process::{Output, Stdio};

use jiff::Timestamp;
use mailroute_m365::{Faults, Options, SubmissionFaults};
use mailroute_route::RouteFile;
use mailroute_route::file::{Delivery, DeliveryMode};
use mailroute_sidecar::app::App;
use mailroute_sidecar::args::Run;
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use mailroute_sidecar::spool::{Entry, Kind, Progress, Spool, SpoolLimits};
use serde_json::Value;
use tokio::process::Command;

use crate::canary::{Program, port};
use crate::client::{Client, message};
use crate::queue_cli::queue;
use crate::scene::{Files, PATIENCE, intervals, surroundings};

async fn program(spool: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"));
    command.arg("queue").args(words.split(' ')).arg("--spool-dir").arg(spool).stdin(Stdio::null());
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A sidecar on another spool, in this process.
async fn started(files: &Files, spool: &Path) -> App {
    let run = Run { spool_dir: spool.into(), ..files.run(&[]) };
    App::start(run, intervals()).await.expect("the sidecar starts")
}

/// A program whose upstream is down, with one message that it has taken, and that message's id.
async fn with_one_message(route: &mut RouteFile, files: &Files) -> (Program, String) {
    route.delivery = Delivery::new(DeliveryMode::Queue);
    files.write_route(route);
    let mut program = Program::start(files.arguments());
    let smtp = port(&program.line_with("\"listening\"").await["addresses"]);
    let mut client = Client::connect(([127, 0, 0, 1], smtp).into()).await;
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("kept")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let id = program.line_with("\"queued\"").await["queue_id"].as_str().unwrap().to_owned();
    (program, id)
}

fn down() -> Faults {
    Faults { submission: SubmissionFaults { down: true, ..<_>::default() }, ..<_>::default() }
}

#[tokio::test]
async fn the_command_works_beside_the_program_and_what_was_done_is_logged() {
    let (m365, _control, mut route, files) = surroundings(Options::default()).await;
    m365.set_faults(down());
    let (sidecar, id) = with_one_message(&mut route, &files).await;
    let spool = files.path("");
    let listed = program(&spool, "list -o json").await;
    let json: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (listed.status.code(), &json["running"], &json["messages"][0]["id"]),
        (Some(0), &true.into(), &id.as_str().into())
    );
    let exported = program(&spool, &format!("export {id}")).await;
    assert!(exported.stdout.ends_with(message("kept").as_bytes()), "{exported:?}");

    let mistake = program(&spool, "show nonsense").await;
    assert_eq!((mistake.status.code(), out(&mistake)), (Some(2), String::new()));
    let mistake = program(&spool, &format!("show {id} --body -o json")).await;
    assert_eq!(mistake.status.code(), Some(2), "{mistake:?}");
    let unknown = program(&spool, "show 0000000000000000000").await;
    assert_eq!((unknown.status.code(), out(&unknown)), (Some(1), String::new()));
    assert_eq!(error(&unknown), "Error: no message 0000000000000000000 is stored here\n");

    let dropped = loop {
        let dropped = program(&spool, &format!("drop {id}")).await;
        // It may be tried just now.
        if dropped.status.success() {
            break dropped;
        }
        assert!(out(&dropped).contains("being tried"), "{dropped:?}");
    };
    assert_eq!(out(&dropped), "1 message dropped\n");
    let (code, log) = sidecar.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("dropped, requested by a command")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&id), "{lines:?}");
    assert!(!log.contains("leading dot"), "no message is logged: {log}");
    assert!(!files.path("socket").exists());
    assert!(m365.messages().is_empty());
}

#[tokio::test]
async fn what_a_killed_program_left_can_be_looked_at_and_its_socket_is_replaced() {
    let (m365, _control, mut route, files) = surroundings(Options::default()).await;
    m365.set_faults(down());
    let (sidecar, id) = with_one_message(&mut route, &files).await;
    let spool = files.path("");
    let pid = sidecar.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().await.unwrap().success());
    sidecar.ended().await;
    assert!(files.path("socket").exists(), "nobody could take it away");

    let listed = program(&spool, "list").await;
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    assert!(out(&listed).contains(&id) && out(&listed).contains("this is what is on disk"), "{listed:?}");
    let shown = program(&spool, &format!("show {id} --body")).await;
    assert!(
        out(&shown).contains("<ann@fabrikam.com> waiting") && out(&shown).contains("leading dot"),
        "{shown:?}"
    );
    let exported = program(&spool, &format!("export {id}")).await;
    assert!(exported.stdout.ends_with(message("kept").as_bytes()), "{exported:?}");
    for verb in [format!("retry {id}"), "retry --all".into(), format!("drop {id}")] {
        let refused = program(&spool, &verb).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(error(&refused).starts_with("Error: no sidecar runs on the spool in "), "{refused:?}");
    }

    m365.set_faults(Faults::default());
    let mut again = Program::start(files.arguments());
    again.line_with("\"listening\"").await;
    let listed = program(&spool, "list -o json").await;
    assert_eq!(serde_json::from_slice::<Value>(&listed.stdout).unwrap()["running"], true);
    m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(again.terminate().await.0, Some(0));
}

#[tokio::test]
async fn files_that_cannot_be_read_again_are_listed() {
    let (_m365, _control, _route, files) = surroundings(Options::default()).await;
    let spool = files.path("spool");
    std::fs::create_dir_all(spool.join("queue")).unwrap();
    std::fs::write(spool.join("queue/0000000000000000001"), "mailroute-message 1 9 00000000\n").unwrap();
    let (at_rest, _) = queue(&spool, "list -o json").await.unwrap();
    let at_rest: Value = serde_json::from_str(&at_rest).unwrap();
    let why = at_rest["messages"][0]["unreadable"].as_str().unwrap();
    assert!(why.contains("0000000000000000001") && why.contains("is truncated"), "{at_rest:#}");

    let sidecar = started(&files, &spool).await;
    let (running, _) = queue(&spool, "list").await.unwrap();
    assert!(running.lines().nth(1).unwrap().starts_with("0000000000000000001  corrupt "), "{running}");
    sidecar.stop().await;
    let error = queue(&files.path("nowhere"), "list").await.unwrap_err();
    assert!(error.starts_with("there is no spool in "), "{error}");
}

/// More than one page, twice over and one.
const MANY: i64 = 1001;

#[tokio::test]
async fn a_long_list_comes_whole_and_in_order() {
    let (_m365, _control, _route, files) = surroundings(Options::default()).await;
    let directory = files.path("spool");
    let (spool, _) =
        Spool::open(&directory, SpoolLimits { max_bytes: u64::MAX, keep_dead: 10 }).await.unwrap();
    let (entries, body): (Vec<Entry>, _) = ((0..MANY).map(entry).collect(), Body::new("", "x\r\n"));
    let fresh: Vec<Progress> = entries.iter().map(Progress::fresh).collect();
    let stored = entries.iter().zip(&fresh).map(|(entry, fresh)| spool.store(entry, fresh, &body));
    assert!(futures::future::join_all(stored).await.iter().all(Result::is_ok));
    drop(spool);
    let expected: Vec<String> = entries.iter().map(|entry| entry.envelope.id.to_string()).collect();
    for running in [false, true] {
        // Without a route everything waits.
        let sidecar = if running { Some(started(&files, &directory).await) } else { None };
        let (json, _) = queue(&directory, "list -o json").await.unwrap();
        let list: Value = serde_json::from_str(&json).unwrap();
        let ids: Vec<&str> =
            list["messages"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
        assert_eq!((&list["running"], ids.len()), (&running.into(), expected.len()));
        assert!(ids == expected);
        if let Some(sidecar) = sidecar {
            sidecar.stop().await;
        }
    }
}

fn entry(number: i64) -> Entry {
    let accepted = Timestamp::from_second(1_800_000_000 + number).unwrap();
    let address = |text| Address::parse(text).unwrap();
    let envelope = Envelope {
        id: QueueId::new(accepted, 7),
        message_id: format!("<{number}@contoso.com>"),
        client_name: "app".into(),
        reverse_path: ReversePath::Address(address("noreply@contoso.com")),
        recipients: vec![address("ann@fabrikam.com")],
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    };
    Entry { envelope, kind: Kind::Message, accepted }
}

//! `mailroute-sidecar queue` beside a sidecar that runs, and on a spool that none has open.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use mailroute_m365::{Faults, Rule, Simulator, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::file::{Delivery, DeliveryMode};
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::queue;
use mailroute_sidecar::cli::queue::server::CommandTimeouts;
use mailroute_sidecar::clock;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, intervals};

/// What a command writes, and whether it did all; or why it could not.
pub async fn queue(spool: &Path, words: &str) -> Result<(String, bool), String> {
    let start = ["mailroute-sidecar", "queue", "--spool-dir", spool.to_str().unwrap()];
    let cli = Cli::try_parse_from(start.into_iter().chain(words.split_whitespace())).expect("a command line");
    let Command::Queue(options) = cli.into_command() else { panic!("the command is queue") };
    let mut out = Vec::new();
    match queue::run(&options, &mut out).await {
        Ok(all) => Ok((String::from_utf8(out).unwrap(), all)),
        Err(error) => Err(error.to_string()),
    }
}

impl Scene {
    async fn queue(&self, words: &str) -> (String, bool) {
        let spool = self.files.path("");
        queue(&spool, words).await.unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    async fn refused(&self, words: &str) -> String {
        queue(&self.files.path(""), words).await.expect_err("it cannot be done")
    }

    async fn listed(&self, words: &str) -> Value {
        let (json, all) = self.queue(&format!("list -o json {words}")).await;
        assert!(all);
        serde_json::from_str(&json).unwrap()
    }

    /// Waits until the list is as wanted.
    async fn listed_when(&self, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let started = clock::now();
        loop {
            let list = self.listed("").await;
            let messages = list["messages"].as_array().unwrap();
            if wanted(messages) {
                return messages.clone();
            }
            assert!(started.elapsed() < PATIENCE, "still {list:#}");
            tokio::task::yield_now().await;
        }
    }

    async fn accepted(&self, to: &[&str], subject: &str) {
        let reply = self.client().await.send("noreply@contoso.com", to, &message(subject)).await;
        assert_eq!(reply.code, 250, "{reply}");
    }
}

fn faults(submission: SubmissionFaults) -> Faults {
    Faults { submission, ..<_>::default() }
}

fn down() -> Faults {
    faults(SubmissionFaults { down: true, ..<_>::default() })
}

fn refusing(stage: Stage, line: &str) -> Faults {
    let rules = vec![Rule::always(stage, SmtpAction::Reply(line.to_owned().try_into().unwrap()))];
    faults(SubmissionFaults { rules, ..<_>::default() })
}

/// A sidecar that queues what comes, with something wrong upstream.
async fn queueing(wrong: Faults, intervals: Intervals) -> Scene {
    let change = |m365: &Simulator, route: &mut mailroute_route::RouteFile| {
        route.delivery = Delivery::new(DeliveryMode::Queue);
        m365.set_faults(wrong);
    };
    Scene::run(&[], intervals, |_| {}, change).await
}

fn id(row: &Value) -> &str {
    row["id"].as_str().unwrap()
}

/// What an administrator of the tenant can undo.
const BLOCKED: &str = "550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization's tenant allow/block list policy.";

const UNKNOWN: &str = "0000000000000000000";

#[tokio::test]
async fn what_waits_is_listed_shown_exported_and_tried_when_asked() {
    let mut slow = intervals();
    slow.queue.hold = Duration::from_secs(3600);
    slow.queue.first = Duration::from_secs(3600);
    slow.queue.longest = Duration::from_secs(3600);
    let busy = "452 4.2.2 The recipient's mailbox is full";
    let scene = queueing(refusing(Stage::Rcpt, busy), slow).await;
    scene.accepted(&["ann@fabrikam.com", "bob@fabrikam.com"], "kept").await;
    let tried = |rows: &[Value]| rows.iter().any(|row| row["attempts"] == 1 && row["state"] == "waiting");
    let rows = scene.listed_when(tried).await;
    let (row, one) = (&rows[0], id(&rows[0]));
    assert_eq!((&row["state"], &row["to"]["waiting"]), (&"waiting".into(), &2.into()), "{row:#}");
    assert!(row["trouble"]["text"].as_str().unwrap().starts_with(busy), "{row:#}");

    let (table, _) = scene.queue("list").await;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "STATE", "AGE", "NEXT", "TRIES", "SIZE", "FROM", "TO", "REASON"]);
    assert_eq!((lines[1][0], lines[1][1], lines.len()), (one, "waiting", 2), "{table}");
    assert!(lines[1].join(" ").contains(&format!(" noreply@contoso.com 2 {busy}")), "{table}");

    let (shown, _) = scene.queue(&format!("show {one}")).await;
    for part in
        ["waiting, next try in", "<ann@fabrikam.com> waiting", "Subject: kept", "<kept@contoso.com>", busy]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("leading dot"), "{shown}");
    let (shown, _) = scene.queue(&format!("show {one} --body")).await;
    assert!(
        shown.contains("<bob@fabrikam.com> waiting") && shown.ends_with(".leading dot\n..\n\nend\n"),
        "{shown}"
    );
    let json: Value = serde_json::from_str(&scene.queue(&format!("show {one} -o json")).await.0).unwrap();
    assert_eq!(json["recipients"][1], serde_json::json!({"address": "bob@fabrikam.com", "fate": "waiting"}));
    assert!(json["header"].as_str().unwrap().contains("Subject: kept\r\n"), "{json:#}");

    let (exported, _) = scene.queue(&format!("export {one}")).await;
    assert!(exported.starts_with("Received: ") && exported.ends_with(&message("kept")), "{exported}");
    scene.m365.set_faults(Faults::default());
    let (said, all) = scene.queue(&format!("retry {one}")).await;
    assert_eq!((said.as_str(), all), ("1 message will be tried now\n", true));
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].data, exported.as_bytes());
    scene.listed_when(<[_]>::is_empty).await;
    assert_eq!(scene.queue("list").await.0, "The queue is empty.\n");
    scene.stop().await;
}

#[tokio::test]
async fn dead_letters_are_tried_again_or_dropped() {
    let scene = queueing(refusing(Stage::EndOfData, BLOCKED), intervals()).await;
    for subject in ["one", "two", "three"] {
        scene.accepted(&["ann@fabrikam.com"], subject).await;
    }
    let all_dead = |rows: &[Value]| rows.len() == 3 && rows.iter().all(|row| row["state"] == "dead");
    let dead = scene.listed_when(all_dead).await;
    assert_eq!(dead[0]["trouble"]["outcome"], "reject_message", "{:#}", dead[0]);
    assert_eq!(scene.listed("--dead").await["messages"].as_array().unwrap().len(), 3);
    assert!(scene.listed("--waiting").await["messages"].as_array().unwrap().is_empty());

    let refusal = scene.refused("drop --dead").await;
    assert_eq!(refusal, "3 messages would be permanently deleted; confirm with --yes");
    let refusal = scene.refused(&format!("drop {} {}", id(&dead[0]), id(&dead[1]))).await;
    assert!(refusal.starts_with("2 messages"), "{refusal}");
    let (said, all) = scene.queue(&format!("drop {}", id(&dead[0]))).await;
    assert_eq!((said.as_str(), all), ("1 message dropped\n", true));

    scene.m365.set_faults(Faults::default());
    let (said, all) = scene.queue(&format!("retry {} {UNKNOWN}", id(&dead[1]))).await;
    assert_eq!(said, format!("1 message will be tried now\nno message {UNKNOWN} is stored here\n"));
    assert!(!all, "one of two is not all");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].header("Subject"), Some("two"));
    scene.listed_when(|rows| rows.len() == 1).await;
    let (json, _) = scene.queue("retry --dead -o json").await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), serde_json::json!({"done": 1, "failed": []}));
    assert_eq!(scene.m365.wait_for_messages(2, PATIENCE).await[1].header("Subject"), Some("three"));

    scene.m365.set_faults(refusing(Stage::EndOfData, BLOCKED));
    scene.accepted(&["ann@fabrikam.com"], "four").await;
    scene.accepted(&["ann@fabrikam.com"], "five").await;
    scene.listed_when(|rows| rows.len() == 2 && rows.iter().all(|row| row["state"] == "dead")).await;
    assert_eq!(scene.queue("drop --dead --yes").await.0, "2 messages dropped\n");
    assert!(scene.listed("").await["messages"].as_array().unwrap().is_empty());
    scene.stop().await;
}

#[tokio::test]
async fn a_route_that_does_not_work_holds_what_comes_and_says_why() {
    let scene = queueing(down(), intervals()).await;
    scene.accepted(&["ann@fabrikam.com"], "held").await;
    let held = |rows: &[Value]| rows.iter().any(|row| row["state"] == "held" && row["trouble"].is_object());
    let rows = scene.listed_when(held).await;
    assert_eq!(rows[0]["trouble"]["reason"], "ConnectFailed", "{:#}", rows[0]);
    scene.m365.set_faults(Faults::default());
    assert_eq!(scene.queue("retry --all").await.0, "1 message will be tried now\n");
    scene.m365.wait_for_messages(1, PATIENCE).await;
    scene.stop().await;
}

/// A sidecar that queues what comes and pauses for as long as it does in earnest.
async fn pausing(wrong: Faults, change: impl FnOnce(&mut mailroute_route::RouteFile)) -> Scene {
    let mut slow = Intervals { pause: Duration::from_secs(1), ..intervals() };
    slow.queue.first = Duration::from_secs(3600);
    slow.queue.longest = Duration::from_secs(3600);
    let change = |m365: &Simulator, route: &mut mailroute_route::RouteFile| {
        route.delivery = Delivery::new(DeliveryMode::Queue);
        change(route);
        m365.set_faults(wrong);
    };
    Scene::run(&[], slow, |_| {}, change).await
}

#[tokio::test]
async fn each_row_says_what_it_waits_for_and_until_when_in_every_kind_of_trouble() {
    let quota = "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; quota";
    let throttled = "550 5.2.252 Sender throttled due to continuous send as denied errors.";
    let disabled =
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.";
    let grey = "451 4.7.500 Server busy. Please try again later from [203.0.113.7].";
    for (wrong, reason) in [
        (down(), "ConnectFailed"),
        (refusing(Stage::Auth, disabled), "SmtpAuthDisabledTenant"),
        (refusing(Stage::EndOfData, quota), "DailyQuotaExceeded"),
        (refusing(Stage::EndOfData, throttled), "SenderThrottled"),
        (refusing(Stage::Rcpt, grey), "EgressAddressDeferred"),
    ] {
        let scene = pausing(wrong, |_| {}).await;
        for n in 0..3 {
            scene.accepted(&[&format!("r{n}@fabrikam.com")], &format!("m{n}")).await;
        }
        let said = |row: &Value| {
            row["state"] == "held" && row["waitsFor"]["reason"] == reason && row["next"].is_string()
        };
        let rows = scene.listed_when(|rows| rows.len() == 3 && rows.iter().all(said)).await;
        assert!(rows.iter().all(|row| row["waitsFor"]["limits"] == false), "{rows:#?}");
        let (table, _) = scene.queue("list").await;
        assert_eq!(table.matches(reason).count(), 3, "{table}");
        // A person's retry ends the pause.
        scene.m365.set_faults(Faults::default());
        let (said, all) = scene.queue("retry --all").await;
        assert!(all && said.starts_with("3 messages will be tried now\n"), "{said}");
        scene.m365.wait_for_messages(3, PATIENCE).await;
        scene.stop().await;
    }
}

#[tokio::test]
async fn limits_that_are_kept_to_are_named_and_no_retry_goes_past_them() {
    let scene = pausing(Faults::default(), |route| route.limits.recipients_per_day = Some(1)).await;
    for n in 0..3 {
        scene.accepted(&[&format!("r{n}@fabrikam.com")], &format!("m{n}")).await;
    }
    let said =
        |row: &Value| row["state"] == "held" && row["waitsFor"]["limits"] == true && row["next"].is_string();
    let rows = scene.listed_when(|rows| rows.len() == 2 && rows.iter().all(said)).await;
    assert_eq!(rows[0]["waitsFor"]["reason"], "DailyQuotaExceeded", "{rows:#?}");
    let (said, _) = scene.queue("retry --all").await;
    assert!(said.starts_with("2 messages will be tried now\nHeld, next try in "), "{said}");
    assert!(said.contains("DailyQuotaExceeded: limits of the mailbox"), "{said}");
    let checked = checked_beside(&scene).await;
    assert!(!checked.is_well(), "{checked:#?}");
    assert!(checked.steps.last().unwrap().met.starts_with("holds mail back until "), "{checked:#?}");
    assert_eq!(scene.m365.messages().len(), 1);
    scene.stop().await;
}

/// What `check` says beside the sidecar of the scene.
async fn checked_beside(scene: &Scene) -> mailroute_sidecar::cli::check::steps::Findings {
    let (route, spool) = (scene.files.path("route.json"), scene.files.path(""));
    let words = ["mailroute-sidecar", "check", "--route", route.to_str().unwrap()];
    let words = words.into_iter().chain(["--spool-dir", spool.to_str().unwrap()]);
    let Command::Check(check) = Cli::parse_from(words).into_command() else { panic!("the command is check") };
    mailroute_sidecar::cli::check::walk(&check).await.unwrap()
}

#[tokio::test]
async fn a_message_that_is_delivered_meanwhile_is_not_dropped_and_that_is_said() {
    let rules = vec![Rule::times(Stage::EndOfData, SmtpAction::Delay(4000), 1)];
    let scene = queueing(faults(SubmissionFaults { rules, ..<_>::default() }), intervals()).await;
    scene.accepted(&["ann@fabrikam.com"], "raced").await;
    let rows = scene.listed_when(|rows| rows.iter().any(|row| row["state"] == "trying")).await;
    let one = id(&rows[0]);
    for verb in ["drop", "retry"] {
        let (said, all) = scene.queue(&format!("{verb} {one}")).await;
        assert!(!all && said.contains(&format!("message {one} is being tried right now")), "{said}");
    }
    scene.m365.wait_for_messages(1, PATIENCE).await;
    scene.listed_when(<[_]>::is_empty).await;
    let (said, all) = scene.queue(&format!("drop {one}")).await;
    assert_eq!((said, all), (format!("0 messages dropped\nno message {one} is stored here\n"), false));
    for verb in ["show", "export"] {
        assert_eq!(scene.refused(&format!("{verb} {one}")).await, format!("no message {one} is stored here"));
    }
    assert_eq!(scene.m365.messages().len(), 1);
    scene.stop().await;
}

/// What the program answers to these octets.
async fn said(scene: &Scene, octets: &[u8]) -> String {
    let mut stream = UnixStream::connect(scene.files.path("socket")).await.unwrap();
    // An endless line is refused before all of it is written.
    let _ = stream.write_all(octets).await;
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    // Octets that nobody read turn the end into a reset; what was said before is there all the same.
    let _ = read;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn hostile_ends_of_the_socket_get_an_answer_and_nothing_else() {
    let patience = CommandTimeouts { request: Duration::from_millis(300), ..CommandTimeouts::default() };
    let scene = queueing(down(), Intervals { queue_commands: patience, ..intervals() }).await;
    scene.accepted(&["ann@fabrikam.com"], "safe").await;
    for (octets, answer) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), "not a request"),
        (b"\xff\xfe\x00\n", "not a request"),
        (b"{\"drop\":{\"chosen\":\"everything\"}}\n", "not a request"),
        (b"{\"show\":\"../../../etc/passwd\"}\n", "not a queue id"),
        (b"{\"drop\":{\"chosen\":\"waiting\"}}\n", "by its ids only"),
        (&[b'x'; 200_000], "no line of at most 32768 octets"),
        (b"{\"show\":", "no request within 0.3 seconds"),
        (b"", "no request within 0.3 seconds"),
    ] {
        let met = said(&scene, octets).await;
        assert!(met.starts_with("{\"refused\":") && met.contains(answer), "{answer}: {met}");
    }
    // More than are taken at a time, silent; and some that only look in.
    let silent: Vec<_> =
        futures::future::join_all((0..20).map(|_| UnixStream::connect(scene.files.path("socket")))).await;
    for _ in 0..20 {
        drop(UnixStream::connect(scene.files.path("socket")).await.unwrap());
    }
    assert_eq!(scene.listed("").await["messages"].as_array().unwrap().len(), 1);
    drop(silent);
    scene.stop().await;
}

#[tokio::test]
async fn a_second_program_does_not_touch_the_first_ones_socket() {
    let scene = queueing(down(), intervals()).await;
    let second = App::start(scene.files.run(&[]), intervals()).await;
    let error = format!("{:#}", second.err().expect("the spool is taken"));
    assert!(error.contains("in use by another program"), "{error}");
    assert_eq!(scene.listed("").await["running"], true);
    let socket = scene.files.path("socket");
    let Scene { app, files, .. } = scene;
    app.stop().await;
    assert!(!socket.exists(), "the socket goes with its program");
    drop(files);
}

//! Every conversation in `dialogs/*.smtp`, over a real socket, and through the core however its octets are cut.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "dialogs/core.rs"]
mod core;
#[path = "dialogs/script.rs"]
mod script;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mailroute_sidecar::listener::{
    Accept, Listeners, Observer, Refusal, RuleAction, Service, SessionLimits, Settings, serve,
};
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::Envelope;
use mailroute_sidecar::smtp::reply::Reply;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::core::{Message, Outcome};
use crate::script::{Script, Step, matches};

/// For an answer that has to come. Long, as only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn scripts() -> Vec<Script> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let paths: BTreeSet<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "smtp")).collect();
    assert!(paths.len() > 40, "only {} dialogs found", paths.len());
    paths.iter().map(|path| Script::read(path)).collect()
}

fn answer(script: &Script) -> Reply {
    Reply::parse(format!("{}\r\n", script.answer).as_bytes()).unwrap().unwrap().0
}

fn check(script: &Script, outcome: &Outcome, messages: &[Message]) {
    let Script { name, .. } = script;
    let output = String::from_utf8(outcome.output.clone()).unwrap();
    let lines: Vec<_> = output.split_terminator("\r\n").collect();
    let expected = script.expected();
    for (at, (pattern, line)) in expected.iter().zip(&lines).enumerate() {
        assert!(matches(pattern, line), "{name}: line {at} is {line:?}, not {pattern:?}");
    }
    assert_eq!(lines.len(), expected.len(), "{name}: answers {lines:#?}");
    assert_eq!(outcome.messages, messages, "{name}: messages");
    assert_eq!(outcome.closed, script.closes, "{name}: closed");
}

#[test]
fn dialogs_hold_however_the_octets_are_cut() {
    for script in scripts() {
        let (input, answer) = (script.input(), answer(&script));
        let run = |pieces: Vec<&[u8]>| core::converse(script.settings.clone(), &answer, pieces);
        let whole = run(vec![&input]);
        check(&script, &whole, &script.messages);
        assert!(run(input.chunks(1).collect()) == whole, "{}: octet by octet", script.name);
        for seed in 1..50 {
            assert!(run(cut(&input, seed)) == whole, "{}: cut with seed {seed}", script.name);
        }
    }
}

/// Cuts `input` into pieces of 1 to 64 octets, always the same for the same seed.
fn cut(input: &[u8], seed: u64) -> Vec<&[u8]> {
    let (mut pieces, mut rest, mut state) = (Vec::new(), input, seed);
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (state >> 58) as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

#[tokio::test]
async fn dialogs_hold_over_a_socket() {
    for script in scripts().into_iter().filter(|script| !script.is_of_network()) {
        let server = Server::start(script.settings.clone(), answer(&script), SessionLimits::default()).await;
        let outcome = server.play(&script).await;
        let stored = server.stop().await;
        let expected = script.messages.iter().map(with_separator).collect::<Vec<_>>();
        check(&script, &Outcome { messages: stored, ..outcome }, &expected);
    }
}

#[tokio::test]
async fn a_silent_client_is_told_and_closed() {
    let limits = SessionLimits { command: Duration::from_millis(50), ..SessionLimits::default() };
    assert!(
        ending(limits, "NOOP\r\nNO")
            .await
            .ends_with("\r\n421 4.4.2 Nothing received for too long. Closing\r\n")
    );
}

#[tokio::test]
async fn a_message_that_stalls_is_given_up() {
    let limits = SessionLimits { data: Duration::from_millis(50), ..SessionLimits::default() };
    let input = "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n";
    assert!(
        ending(limits, input)
            .await
            .contains("\r\n354 Start mail input; end with <CRLF>.<CRLF>\r\n421 4.4.2 ")
    );
}

#[tokio::test]
async fn a_session_without_a_message_has_an_end() {
    let limits = SessionLimits { message: Duration::from_millis(50), ..SessionLimits::default() };
    assert!(
        ending(limits, "NOOP\r\n")
            .await
            .ends_with("421 4.4.2 No message completed for too long. Closing\r\n")
    );
}

#[tokio::test]
async fn dripping_octets_do_not_extend_a_commands_time() {
    let limits = SessionLimits { command: Duration::from_millis(200), ..SessionLimits::default() };
    let server = Server::start(defaults(), Reply::parse(b"250 ok\r\n").unwrap().unwrap().0, limits).await;
    let (mut read, mut write) = server.connect().await.into_split();
    let drip = async {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            if write.write_all(b"N").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut output = String::new();
    tokio::select! {
        () = drip => unreachable!("it drips for ever"),
        end = timeout(PATIENCE, read.read_to_string(&mut output)) => { end.unwrap().unwrap(); }
    }
    assert!(output.contains("421 4.4.2"), "{output}");
    server.stop().await;
}

#[tokio::test]
async fn one_session_too_many_is_told_why() {
    let limits = SessionLimits { wait: Duration::from_millis(50), ..SessionLimits::default() };
    let server = Server::with_sessions(1, limits).await;
    let mut first = BufStream::new(server.connect().await);
    assert!(line(&mut first).await.starts_with("220 "));
    let mut second = BufStream::new(server.connect().await);
    assert_eq!(line(&mut second).await, "421 4.3.2 Too many sessions at once; try again later\r\n");
    assert!(server.counts.lock().unwrap().refused.contains(&Refusal::Sessions));
    first.shutdown().await.unwrap();
    assert_eq!(line(&mut first).await, "", "the first ends");
    server.closed_sessions(1).await;
    assert!(line(&mut BufStream::new(server.connect().await)).await.starts_with("220 "));
    server.stop().await;
}

#[tokio::test]
async fn one_session_too_many_waits_for_another_to_end() {
    let server = Server::with_sessions(1, SessionLimits::default()).await;
    let mut first = BufStream::new(server.connect().await);
    assert!(line(&mut first).await.starts_with("220 "));
    let [mut second, mut third] =
        [BufStream::new(server.connect().await), BufStream::new(server.connect().await)];
    send(&mut first, "QUIT\r\n").await;
    assert!(line(&mut first).await.starts_with("221 "));
    assert!(line(&mut second).await.starts_with("220 "), "in the order in which they came");
    server.stop.send(true).unwrap();
    assert!(line(&mut third).await.starts_with("421 4.3.2 Shutting down"), "who waits is told of the end");
    assert!(line(&mut second).await.starts_with("421 4.3.2 Shutting down"));
    assert!(!server.counts.lock().unwrap().refused.contains(&Refusal::Sessions));
    server.stop().await;
}

#[tokio::test]
async fn more_sessions_are_open_to_those_that_wait() {
    let server = Server::with_sessions(1, SessionLimits::default()).await;
    let mut first = BufStream::new(server.connect().await);
    assert!(line(&mut first).await.starts_with("220 "));
    let mut second = BufStream::new(server.connect().await);
    server.sessions.send_replace(2);
    assert!(line(&mut second).await.starts_with("220 "));
    drop((first, second));
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_an_open_message_finish() {
    let server = Server::start(defaults(), ok(), SessionLimits::default()).await;
    let (mut idle, mut busy) =
        (BufStream::new(server.connect().await), BufStream::new(server.connect().await));
    assert!(line(&mut idle).await.starts_with("220 "));
    send(&mut busy, "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n").await;
    while !line(&mut busy).await.starts_with("354 ") {}
    server.stop.send(true).unwrap();
    assert!(line(&mut idle).await.starts_with("421 4.3.2 Shutting down"));
    send(&mut busy, "Subject: x\r\n.\r\n").await;
    assert_eq!(line(&mut busy).await, "250 2.0.0 taken\r\n");
    assert!(line(&mut busy).await.starts_with("421 4.3.2 Shutting down"));
    assert_eq!(server.stop().await.len(), 1);
}

#[tokio::test]
async fn new_settings_apply_to_the_next_message() {
    let server = Server::start(defaults(), ok(), SessionLimits::default()).await;
    let mut client = BufStream::new(server.connect().await);
    assert!(line(&mut client).await.starts_with("220 "));
    server.settings.lock().unwrap().max_message_bytes = 10;
    send(&mut client, "HELO a\r\nMAIL FROM:<> SIZE=11\r\n").await;
    assert!(line(&mut client).await.starts_with("250 "));
    assert!(line(&mut client).await.starts_with("552 5.3.4 "));
    server.stop().await;
}

#[tokio::test]
async fn fields_that_are_encoded_are_counted() {
    let settings = Settings { encode_header: true, ..defaults() };
    let server = Server::start(settings, ok(), SessionLimits::default()).await;
    let mut client = BufStream::new(server.connect().await);
    send(&mut client, "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n").await;
    send(&mut client, "Subject: ü\r\nTo: Ä <c@d.example>\r\nX: x\r\n.\r\nQUIT\r\n").await;
    let mut output = String::new();
    timeout(PATIENCE, client.read_to_string(&mut output)).await.unwrap().unwrap();
    assert!(output.contains("250 2.0.0 taken"), "{output}");
    assert_eq!(server.counts.lock().unwrap().encoded, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_a_temporary_refusal() {
    let directory = Path::new("/nonexistent/spool");
    let server = Server::start_in(directory, defaults(), ok(), SessionLimits::default(), 100).await;
    let mut client = BufStream::new(server.connect().await);
    send(&mut client, "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n").await;
    send(&mut client, &"long enough for the disk\r\n".repeat(10_000)).await;
    send(&mut client, ".\r\nQUIT\r\n").await;
    let mut output = String::new();
    timeout(PATIENCE, client.read_to_string(&mut output)).await.unwrap().unwrap();
    assert!(
        output.ends_with("452 4.3.1 No room to receive the message; try again later\r\n221 2.0.0 Bye\r\n"),
        "{output}"
    );
    assert!(server.stop().await.is_empty());
}

#[tokio::test]
async fn a_large_message_arrives_octet_for_octet() {
    let server = Server::start(defaults(), ok(), SessionLimits::default()).await;
    let content = (0..40_000).map(|at| format!("{at} .\r\n")).collect::<String>();
    let mut client = BufStream::new(server.connect().await);
    send(&mut client, "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n\r\n").await;
    send(&mut client, &content).await;
    send(&mut client, ".\r\nQUIT\r\n").await;
    let mut output = String::new();
    timeout(PATIENCE, client.read_to_string(&mut output)).await.unwrap().unwrap();
    assert!(output.contains("250 2.0.0 taken"), "{output}");
    assert!(server.stop().await[0].content == format!("\r\n{content}").into_bytes());
}

#[tokio::test]
async fn a_panic_ends_its_own_session_only() {
    let server = Server::start(
        defaults(),
        Reply { code: 250, enhanced: None, lines: vec!["panic".into()] },
        SessionLimits::default(),
    )
    .await;
    let mut client = BufStream::new(server.connect().await);
    send(&mut client, "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n").await;
    let mut output = String::new();
    timeout(PATIENCE, client.read_to_string(&mut output)).await.unwrap().ok();
    assert!(!output.contains("panic"), "{output}");
    assert!(line(&mut BufStream::new(server.connect().await)).await.starts_with("220 "));
    server.closed_sessions(1).await;
    server.stop().await;
}

fn defaults() -> Settings {
    Settings::new("mail.example", 1_000_000, 3)
}

fn ok() -> Reply {
    Reply::parse(b"250 2.0.0 taken\r\n").unwrap().unwrap().0
}

async fn line(client: &mut BufStream<TcpStream>) -> String {
    let mut line = String::new();
    timeout(PATIENCE, client.read_line(&mut line)).await.expect("an answer in time").unwrap();
    line
}

async fn send(client: &mut BufStream<TcpStream>, text: &str) {
    client.write_all(text.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
}

/// All that a client is told that sends `input` and then nothing.
async fn ending(limits: SessionLimits, input: &str) -> String {
    let server = Server::start(defaults(), ok(), limits).await;
    let mut client = server.connect().await;
    client.write_all(input.as_bytes()).await.unwrap();
    let mut output = String::new();
    timeout(PATIENCE, client.read_to_string(&mut output)).await.expect("closed in time").unwrap();
    assert!(server.counts.lock().unwrap().refused.contains(&Refusal::Timeout));
    server.stop().await;
    output
}

struct Server {
    address: std::net::SocketAddr,
    settings: Arc<Mutex<Settings>>,
    stop: watch::Sender<bool>,
    sessions: watch::Sender<usize>,
    task: tokio::task::JoinHandle<()>,
    stored: Arc<Store>,
    counts: Arc<Mutex<Counts>>,
    closed: watch::Receiver<usize>,
    /// Removed with the server.
    directory: Option<tempfile::TempDir>,
}

impl Server {
    async fn start(settings: Settings, answer: Reply, limits: SessionLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(directory.path(), settings, answer, limits, 100).await;
        server.directory = Some(directory);
        server
    }

    async fn with_sessions(sessions: usize, limits: SessionLimits) -> Self {
        Self::start_in(&std::env::temp_dir(), defaults(), ok(), limits, sessions).await
    }

    async fn start_in(
        directory: &Path,
        settings: Settings,
        answer: Reply,
        limits: SessionLimits,
        sessions: usize,
    ) -> Self {
        let listeners = Listeners::bind(0).await.unwrap();
        let address = listeners.addresses()[0];
        let settings = Arc::new(Mutex::new(settings));
        let stored = Arc::new(Store { answer, messages: Mutex::default() });
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (closed_sender, closed) = watch::channel(0);
        let current = Arc::clone(&settings);
        let service = Service {
            accept: Arc::clone(&stored) as Arc<dyn Accept>,
            settings: Arc::new(move || Arc::new(current.lock().unwrap().clone())),
            observer: Arc::new(Counter { counts: Arc::clone(&counts), closed: closed_sender }),
            scratch: Arc::new(directory.to_owned()),
            limits,
            draining: watch::channel(false).1,
        };
        let (stop, stopped) = watch::channel(false);
        let (sessions, at_once) = watch::channel(sessions);
        let task = tokio::spawn(serve(listeners, service, at_once, stopped));
        Self { address, settings, stop, sessions, task, stored, counts, closed, directory: None }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn closed_sessions(&self, count: usize) {
        timeout(PATIENCE, self.closed.clone().wait_for(|&closed| closed >= count))
            .await
            .expect("closed in time")
            .unwrap();
    }

    /// Stops, waits for the sessions to end, and gives what was stored.
    async fn stop(self) -> Vec<Message> {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.expect("stopped in time").unwrap();
        let counts = self.counts.lock().unwrap();
        assert_eq!(counts.opened, *self.closed.borrow(), "sessions opened and closed");
        assert!(self.directory.is_none_or(|kept| std::fs::read_dir(kept.path()).unwrap().next().is_none()));
        std::mem::take(&mut self.stored.messages.lock().unwrap())
    }

    /// Speaks the client's lines, waiting for the server's where the script has them.
    async fn play(&self, script: &Script) -> Outcome {
        let mut client = BufStream::new(self.connect().await);
        let mut output = Vec::new();
        for step in &script.steps {
            match step {
                Step::Send(octets) => client.write_all(octets).await.unwrap(),
                Step::Expect(_) => {
                    client.flush().await.unwrap();
                    let read = timeout(PATIENCE, client.read_until(b'\n', &mut output)).await;
                    read.unwrap_or_else(|_| {
                        panic!("{}: no answer behind {}", script.name, output.escape_ascii())
                    })
                    .unwrap();
                }
            }
        }
        if !script.closes {
            client.shutdown().await.unwrap();
        }
        timeout(PATIENCE, client.read_to_end(&mut output)).await.expect("closed in time").unwrap();
        Outcome { output, messages: Vec::new(), closed: script.closes }
    }
}

struct Store {
    answer: Reply,
    messages: Mutex<Vec<Message>>,
}

#[async_trait]
impl Accept for Store {
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply {
        assert!(self.answer.text() != "panic", "as the test wants it");
        let (mut reader, mut content) = (body.reader(), Vec::new());
        while let Some(piece) = reader.next().await.unwrap() {
            content.extend_from_slice(&piece);
        }
        let (stamp, content) = without_stamp(&envelope, &content);
        let Envelope { reverse_path, recipients, body, smtp_utf8, .. } = envelope;
        let envelope = core::describe(&reverse_path, &recipients, body, smtp_utf8);
        self.messages.lock().unwrap().push(Message { envelope, added: core::naming(&stamp), content });
        self.answer.clone()
    }
}

/// The stamp, which is checked on the way, and the message behind it.
fn without_stamp(envelope: &Envelope, message: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let text = String::from_utf8_lossy(message);
    assert!(
        text.starts_with("Received: from ")
            && text.contains(" ([127.0.0.1])\r\n\tby mail.example (MailRoute) with "),
        "{text}"
    );
    // None of the scripts' messages has a Date, none but the stamp a Message-ID: that is the stamp's last line.
    let last = format!("Message-ID: {}\r\n", envelope.message_id);
    let end = message.windows(last.len()).position(|window| window == last.as_bytes());
    let end = end.expect("a Message-ID was added") + last.len();
    let text = String::from_utf8_lossy(&message[..end]);
    assert!(text.contains(&format!(" id {};\r\n\t", envelope.id)) && text.contains("\r\nDate: "), "{text}");
    (message[..end].to_vec(), message[end..].to_vec())
}

/// Text that does not begin like a header is kept apart from the stamp by an empty line.
fn with_separator(message: &Message) -> Message {
    let Message { envelope, added, content } = message.clone();
    let apart = !content.is_empty() && !content.starts_with(b"\r\n") && !has_header(&content);
    Message { envelope, added, content: if apart { [b"\r\n", content.as_slice()].concat() } else { content } }
}

fn is_field(content: &[u8]) -> bool {
    let line = content.split(|&b| b == b'\n').next().unwrap_or_default();
    let name = line.iter().position(|&b| b == b':').map(|colon| line[..colon].trim_ascii_end());
    name.is_some_and(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic))
}

#[derive(Debug, Default)]
struct Counts {
    opened: usize,
    encoded: u32,
    refused: Vec<Refusal>,
}

struct Counter {
    counts: Arc<Mutex<Counts>>,
    closed: watch::Sender<usize>,
}

impl Observer for Counter {
    fn session_opened(&self) {
        self.counts.lock().unwrap().opened += 1;
    }

    fn session_closed(&self, _lasted: Duration) {
        self.closed.send_modify(|closed| *closed += 1);
    }

    fn refused(&self, reason: Refusal) {
        self.counts.lock().unwrap().refused.push(reason);
    }

    fn header_encoded(&self, fields: u32) {
        self.counts.lock().unwrap().encoded += fields;
    }

    fn rule_applied(&self, _: RuleAction, times: u64) {
        assert!(times > 0);
    }

    fn answered(&self, reply: &Reply, bytes: u64, _elapsed: Duration) {
        assert!(reply.code >= 200 && bytes > 0);
    }
}

/// Whether a header stands at the beginning: its first line is a field, or a `From` stands before the first empty line.
fn has_header(content: &[u8]) -> bool {
    let lines = content.split(|&octet| octet == b'\n').take_while(|line| *line != b"\r");
    is_field(content) || lines.into_iter().any(|line| line.starts_with(b"From:"))
}

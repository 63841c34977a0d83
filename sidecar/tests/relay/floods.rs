//! Clients that send too much of everything, all at once: the program's memory stays bounded, and it serves on.
//!
//! Memory is what the kernel counts for the program itself, at its highest.

use std::net::SocketAddr;
use std::time::Duration;

use mailroute_m365::Options;
use mailroute_route::file::DeliveryMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::canary::{Program, port};
use crate::client::{Client, message};
use crate::scene::{PATIENCE, surroundings};

/// Sessions that the server lets in at once.
const SESSIONS: usize = 100;

/// What a hundred sessions may hold together: 160 KiB each, as no header here is encoded, and what the allocator does not give back.
const ROOM_KIB: u64 = 24 * 1024;

/// Up to the data of a message.
const TO_DATA: &str = "EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";

/// A line of /proc/<pid>/status, KiB.
fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(what)?.strip_suffix("kB"));
    value.expect("the kernel counts it").trim_start_matches(':').trim().parse().unwrap()
}

/// Sends `front`, then `piece` so many times, and gives all answers. The server may close whenever it likes.
async fn flood(address: SocketAddr, front: &str, piece: Vec<u8>, times: usize, end: &str) -> String {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let send = async {
        if write.write_all(front.as_bytes()).await.is_ok() {
            for _ in 0..times {
                if write.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
        // An error means that the server has closed, and what it said is read below.
        let _ = write.write_all(end.as_bytes()).await;
        let _ = write.shutdown().await;
    };
    let mut answers = Vec::new();
    let receive = async {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = read.read(&mut buffer).await {
            answers.extend_from_slice(&buffer[..len]);
        }
    };
    timeout(PATIENCE, async { tokio::join!(send, receive) }).await.expect("it comes to an end");
    String::from_utf8(answers).unwrap()
}

/// The same from every session at once.
async fn floods(address: SocketAddr, front: &str, piece: &[u8], times: usize, end: &str) -> Vec<String> {
    let mut clients = JoinSet::new();
    for _ in 0..SESSIONS {
        let (front, piece, end) = (front.to_owned(), piece.to_vec(), end.to_owned());
        clients.spawn(async move { flood(address, &front, piece, times, &end).await });
    }
    clients.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_cost_bounded_memory_and_end() {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    // One that comes while those before it are still counted is told so soon.
    let arguments = ["--session-wait", "1"].map(str::to_owned);
    let mut program = Program::start([files.arguments(), arguments.into()].concat());
    let address: SocketAddr =
        ([127, 0, 0, 1], port(&program.line_with("\"listening\"").await["addresses"])).into();
    program.line_with("LoggedIn").await;
    let idle = memory(program.pid(), "VmRSS");

    for (what, front, piece, times, end, expected) in [
        ("an endless command", "EHLO a\r\n", vec![b'x'; 4096], 50, "", "500 5.5.2 Command line too long"),
        ("garbage", "EHLO a\r\n", b"garbage\r\n".repeat(500), 50, "", "421 4.7.0 Too many errors"),
        ("a log-in", "AUTH PLAIN ", vec![b'A'; 4096], 50, "\r\n", "500 5.5.2 Command line too long"),
        ("an endless line", TO_DATA, vec![b'x'; 4096], 300, "\r\n.\r\n", "554 5.6.0 Message has a line"),
        (
            "an endless From",
            TO_DATA,
            b"From: a@b.example,\r\n ".repeat(200),
            70,
            "\r\n.\r\n",
            "552 5.3.4 Header of more",
        ),
        (
            "endless header lines",
            TO_DATA,
            b"X: y\r\n".repeat(700),
            70,
            "\r\n.\r\n",
            "552 5.3.4 Header of more",
        ),
        ("empty lines", TO_DATA, b"\n".repeat(4096), 50, "", "354 "),
        (
            "recipients",
            "EHLO a\r\nMAIL FROM:<a@b.example>\r\n",
            b"RCPT TO:<c@d.example>\r\n".repeat(100),
            15,
            "",
            "452 4.5.3 ",
        ),
    ] {
        let mut answers = floods(address, front, &piece, times, end).await;
        // While all of those before are still counted nobody is let in.
        while answers.iter().all(|answers| answers.starts_with("421 4.3.2 ")) {
            answers = floods(address, front, &piece, times, end).await;
        }
        let told = answers.iter().filter(|answers| answers.contains(expected)).count();
        // One that came while the one before it was still counted is told so.
        let refused = answers.iter().filter(|answers| answers.starts_with("421 4.3.2 ")).count();
        assert!(
            told > 0 && told + refused == SESSIONS,
            "{what}: {told} told, {refused} refused: {}",
            answers[0]
        );
        let highest = memory(program.pid(), "VmHWM");
        assert!(highest < idle + ROOM_KIB, "{what}: {highest} KiB at most, {idle} KiB idle");
    }
    let reply = Client::connect(address)
        .await
        .send("noreply@contoso.com", &["ann@fabrikam.com"], &message("after"))
        .await;
    assert_eq!(reply.code, 250, "{reply}");
    program.terminate().await;
}

/// Every port that others can reach, used up; the kubelet is answered all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connections_of_others_make_the_probe_fail() {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let listening = program.line_with("\"listening\"").await;
    let at = |what: &str| SocketAddr::from(([127, 0, 0, 1], port(&listening[what])));
    let (smtp, admin) = (at("addresses"), at("admin"));
    let mut held = Vec::new();
    for address in [smtp, admin] {
        for _ in 0..3 * SESSIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // One that is over the limit may be closed already.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").await;
            held.push(stream);
        }
    }
    for _ in 0..5 {
        let hammers: Vec<_> =
            (0..4).map(|_| tokio::spawn(async move { drop(TcpStream::connect(admin).await) })).collect();
        let probe = Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"))
            .args(["alive", "--admin-listen", &admin.to_string(), "--spool-dir"])
            .arg(files.path(""))
            .output();
        let probe = timeout(PATIENCE, probe).await.expect("it is answered").unwrap();
        assert!(probe.status.success(), "{probe:?}");
        futures::future::join_all(hammers).await;
    }
    drop(held);
    program.terminate().await;
}

#[tokio::test]
async fn an_unfinished_request_is_not_waited_for() {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let admin = SocketAddr::from(([127, 0, 0, 1], port(&program.line_with("\"listening\"").await["admin"])));
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let started = std::time::Instant::now();
    let closed = async {
        while stream.write_all(b"GET /livez HTTP/1.1\r\nX: y\r\n").await.is_ok() {
            let mut answer = [0; 1024];
            let read = timeout(Duration::from_millis(100), stream.read(&mut answer)).await;
            if let Ok(Ok(0) | Err(_)) = read {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("it is closed");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    program.terminate().await;
}

/// Twice as many applications' threads as sessions, which send at once.
#[tokio::test]
async fn more_clients_than_sessions_wait_and_all_are_served() {
    let (m365, _control, mut route, files) = surroundings(Options::default()).await;
    route.delivery.mode = DeliveryMode::Queue;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let address: SocketAddr =
        ([127, 0, 0, 1], port(&program.line_with("\"listening\"").await["addresses"])).into();
    program.line_with("LoggedIn").await;
    let mut clients = JoinSet::new();
    for n in 0..2 * SESSIONS {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(&format!("m{n}"))).await
        });
    }
    let replies = timeout(PATIENCE, clients.join_all()).await.expect("all are served");
    assert!(replies.iter().all(|reply| reply.code == 250), "{:?}", replies.iter().find(|r| r.code != 250));
    drop(m365);
    program.terminate().await;
}

#[tokio::test]
async fn more_connections_than_sessions_are_told_and_the_others_stay() {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    let arguments = ["--session-wait", "0.2"].map(str::to_owned);
    let mut program = Program::start([files.arguments(), arguments.into()].concat());
    let address: SocketAddr =
        ([127, 0, 0, 1], port(&program.line_with("\"listening\"").await["addresses"])).into();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(Client::connect(address).await);
    }
    for answer in floods(address, "", b"", 0, "").await {
        assert!(answer.starts_with("421 4.3.2 Too many sessions"), "{answer}");
    }
    for session in &mut sessions {
        assert_eq!(session.command("NOOP").await.code, 250);
    }
    drop(sessions);
    program.terminate().await;
}

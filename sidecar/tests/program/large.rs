//! The largest message that Exchange Online takes at all, in every mode, in the memory of a small program.

use std::time::Duration;

use mailroute_m365::{Options, Simulator};
use mailroute_route::file::DeliveryMode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::process::{port, replies, say, start};

/// What Exchange announces as SIZE, octets.
const LARGEST: usize = 157_286_400;

/// A line of the message, octets.
const LINE: usize = 78;

/// Most memory, octets.
const MOST: u64 = 40 * 1024 * 1024;

async fn goes_through(mode: DeliveryMode) {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.config.limits.message_bytes = LARGEST;
    let m365 = Simulator::start(options).await.unwrap();
    let mut program = start(&m365, folder.path(), mode, |route| {
        route.limits.max_message_bytes = LARGEST as u64;
        route.delivery.wait_seconds = 60;
    });
    let mut stream = TcpStream::connect(("127.0.0.1", port(&mut program).await)).await.unwrap();
    replies(&mut stream, 1).await.unwrap();
    say(&mut stream, "EHLO app.example\r\n", 1).await.unwrap();
    let envelope = "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ann@fabrikam.com>\r\nDATA\r\n";
    assert!(say(&mut stream, envelope, 3).await.unwrap().starts_with("354"));
    // 4 KiB less, for the header lines that are added on the way.
    let sent = send(&mut stream, LARGEST - 4096).await;
    let answer = say(&mut stream, ".\r\n", 1).await.unwrap();
    assert!(answer.starts_with("250"), "{answer}");
    let arrived = m365.wait_for_messages(1, Duration::from_secs(120)).await;
    let data = &arrived[0].data;
    assert!(data.len() > sent && data.ends_with(b"x\r\n"), "{} of {sent} octets", data.len());
    let peak = peak(program.id().unwrap());
    assert!(peak < MOST, "{mode:?} took {peak} bytes of memory");
    program.kill().await.unwrap();
}

/// Sends a message of about so many octets, without its end.
pub async fn send(stream: &mut TcpStream, octets: usize) -> usize {
    let header = "From: <noreply@contoso.com>\r\nTo: <ann@fabrikam.com>\r\nSubject: large\r\n\r\n";
    stream.write_all(header.as_bytes()).await.unwrap();
    let line = format!("{}\r\n", "x".repeat(LINE - 2));
    let block = line.repeat(1000);
    let mut sent = header.len();
    while sent + block.len() <= octets {
        stream.write_all(block.as_bytes()).await.unwrap();
        sent += block.len();
    }
    sent
}

/// The most that was ever resident, octets.
pub fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn kept_first() {
    goes_through(DeliveryMode::Queue).await;
}

#[tokio::test]
async fn tried_first() {
    goes_through(DeliveryMode::DeliverOrQueue).await;
}

#[tokio::test]
async fn never_kept() {
    goes_through(DeliveryMode::Deliver).await;
}

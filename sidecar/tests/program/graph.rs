//! The largest message that Microsoft Graph takes, in the memory of a small program: it is streamed.

use std::time::Duration;

use mailroute_m365::{Options, Simulator};
use mailroute_route::file::DeliveryMode;
use tokio::net::TcpStream;

use crate::large::{peak, send};
use crate::process::{port, replies, say, start};
use crate::route::by_graph;

/// What Graph takes, octets.
const LARGEST: usize = 3 * 1024 * 1024;

/// Most memory that it may cost, octets; and of the whole program as it is shipped.
const MOST_MORE: u64 = 4 * 1024 * 1024;
const MOST: u64 = 12 * 1024 * 1024;

/// Sends one message of about so many octets.
async fn message(stream: &mut TcpStream, octets: usize) {
    let envelope = "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ann@fabrikam.com>\r\nDATA\r\n";
    assert!(say(stream, envelope, 3).await.unwrap().starts_with("354"));
    send(stream, octets).await;
    let answer = say(stream, ".\r\n", 1).await.unwrap();
    assert!(answer.starts_with("250"), "{answer}");
}

#[tokio::test]
async fn a_message_of_three_mebibytes_costs_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let m365 = Simulator::start(Options::default()).await.unwrap();
    let mut program =
        start(&m365, folder.path(), DeliveryMode::Deliver, |route| by_graph(&m365, route, false));
    let mut stream = TcpStream::connect(("127.0.0.1", port(&mut program).await)).await.unwrap();
    replies(&mut stream, 1).await.unwrap();
    say(&mut stream, "EHLO app.example\r\n", 1).await.unwrap();
    message(&mut stream, 1024).await;
    let before = peak(program.id().unwrap());
    for _ in 0..3 {
        // 4 KiB less, for the header lines that are added on the way.
        message(&mut stream, LARGEST - 4096).await;
    }
    let arrived = m365.wait_for_messages(4, Duration::from_secs(60)).await;
    assert!(arrived[3].data.len() > LARGEST - 100_000, "{} octets", arrived[3].data.len());
    let after = peak(program.id().unwrap());
    assert!(after - before < MOST_MORE, "{before} octets became {after}");
    assert!(cfg!(debug_assertions) || after < MOST, "{after} octets");
    program.kill().await.unwrap();
}

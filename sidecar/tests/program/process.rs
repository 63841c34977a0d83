//! Starting the program, and talking SMTP to it in the plainest way: it may be gone at any moment.

use std::path::Path;
use std::process::Stdio;

use mailroute_m365::Simulator;
use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_route::RouteFile;
use mailroute_route::file::{Delivery, DeliveryMode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::route;

/// Starts it on a folder that may hold the queue of an earlier one.
pub fn start(
    m365: &Simulator,
    folder: &Path,
    mode: DeliveryMode,
    change: impl FnOnce(&mut RouteFile),
) -> Child {
    let at = |name: &str| folder.join(name);
    std::fs::write(at("ca.crt"), m365.ca_pem()).unwrap();
    m365.write_assertion(SAMPLE_SUBJECT, &at("entra")).unwrap();
    let mut route = route::to_simulator(m365, at("ca.crt"), at("entra"), None);
    route.delivery = Delivery::new(mode);
    change(&mut route);
    std::fs::write(at("route.json"), route.to_json()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"))
        .arg("--route")
        .arg(at("route.json"))
        .arg("--spool-dir")
        .arg(at("spool"))
        .args(["--port", "0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Where the program listens, from its log; the rest of which is read and dropped, so that it can go on.
pub async fn port(program: &mut Child) -> u16 {
    let mut log = BufReader::new(program.stderr.take().unwrap()).lines();
    while let Some(line) = log.next_line().await.unwrap() {
        if let Some((_, rest)) = line.split_once("127.0.0.1:") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
            return digits.parse().unwrap();
        }
    }
    panic!("the program ended without listening")
}

/// Says something and gives the last line of so many replies; nothing when the program is gone.
pub async fn say(stream: &mut TcpStream, text: &str, answers: usize) -> Option<String> {
    stream.write_all(text.as_bytes()).await.ok()?;
    replies(stream, answers).await
}

/// The last line of so many replies; nothing when the program is gone.
pub async fn replies(stream: &mut TcpStream, wanted: usize) -> Option<String> {
    let mut text = String::new();
    loop {
        let last = |line: &&str| line.as_bytes().get(3) == Some(&b' ');
        if text.ends_with('\n') && text.lines().filter(last).count() >= wanted {
            return text.lines().last().map(str::to_owned);
        }
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await {
            Ok(read @ 1..) => text.push_str(&String::from_utf8_lossy(&piece[..read])),
            _ => return None,
        }
    }
}

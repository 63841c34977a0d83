//! The program itself with everything logged that it can log: nothing that clients log in with is in its log or its numbers.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::client::{Client, plain};
use crate::server::{PATIENCE, ROUTE, USERS, renew, token};

/// The port at the end of an address.
fn port(address: &serde_json::Value) -> u16 {
    address.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn nothing_that_clients_log_in_with_leaves_the_program() {
    let files = tempfile::tempdir().unwrap();
    let certificate = renew(files.path());
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("users"), USERS).unwrap();
    std::fs::write(path("route.json"), ROUTE.replace("DeliverOrQueue", "Queue")).unwrap();
    std::fs::create_dir(path("spool")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"))
        .args(["run", "--log-level", "trace", "--grace", "2", "--port", "0", "--admin-listen", "127.0.0.1:0"])
        .args(["--route", &path("route.json"), "--spool-dir", &path("spool")])
        .args(["--gateway", "127.0.0.1:0", "--smtp-listen", "[::]:0", "--smtp-token-namespaces", "shop"])
        .args(["--smtp-users", &path("users"), "--smtp-tls", &path("")])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut log, mut seen) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    let mut line_with = async |text: &str| {
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, log.read_line(&mut line)).await.expect("a line in time");
            assert_ne!(read.unwrap(), 0, "ended: {seen}");
            seen.push_str(&line);
            if line.contains(text) {
                return serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
        }
    };
    let address = ([127, 0, 0, 1], port(&line_with("listening for SMTP").await["address"])).into();
    let admin = port(&line_with("\"listening\"").await["admin"]);

    let wrong = "hunter2-canary";
    let token = token("mailroute.dev", "shop", "Y2FuYXJ5");
    let mut client = Client::connect(address).await;
    client.command("EHLO a").await;
    assert_eq!(client.command(&plain("ann", wrong)).await.code, 538);
    assert_eq!(client.command("STARTTLS").await.code, 220);
    let mut client = client.under_tls(&certificate).await.unwrap();
    client.command("EHLO a").await;
    assert_eq!(client.command(&plain("ann", wrong)).await.code, 535);
    let refused = line_with("login refused").await;
    assert_eq!((refused["client"].as_str(), refused["user"].as_str()), (Some("127.0.0.1"), Some("ann")));
    assert_eq!(refused["mechanism"].as_str(), Some("PLAIN"));
    // A password in the wrong field.
    assert_eq!(client.command(&plain(wrong, "ann")).await.code, 535);
    assert_eq!(line_with("login refused").await["user"], serde_json::Value::Null);
    assert_eq!(client.command(&plain("token", &token)).await.code, 454);
    line_with("login cannot be verified").await;
    assert_eq!(client.command(&plain("ann", "secret")).await.code, 235);
    assert_eq!(client.send("noreply@contoso.com", "bob@fabrikam.com").await.code, 250);
    let message = line_with("message from the network").await;
    assert_eq!((message["user"].as_str(), message["client"].as_str()), (Some("ann"), Some("127.0.0.1")));

    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", admin)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).await.unwrap();
    assert!(metrics.contains("mailroute_logins_total{result=\"refused\"} 2"), "{metrics}");
    drop(client);
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    timeout(PATIENCE, child.wait()).await.expect("it stops").unwrap();
    log.read_to_string(&mut seen).await.unwrap();
    let hash = USERS.split_once(':').unwrap().1;
    for secret in [wrong, &STANDARD.encode(wrong)[..12], &token, &token[30..60], &hash[..40], "geheim"] {
        assert!(!seen.contains(secret) && !metrics.contains(secret), "{secret} in {seen}");
    }
    assert!(!seen.contains(&plain("ann", "secret")["AUTH PLAIN ".len()..]), "{seen}");
}

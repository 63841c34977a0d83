//! A pod that reaches Entra through the proxy of `HTTPS_PROXY` alone.

use std::net::SocketAddr;

use mailroute_route::condition::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, submission, timing};

/// A name that only the proxy can resolve.
const AUTHORITY: &str = "login.contoso.test";

/// A proxy whose every tunnel ends at `to`. Tells the heads of the requests that it got.
async fn proxy(to: watch::Receiver<Option<SocketAddr>>) -> (SocketAddr, watch::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (note, noted) = watch::channel(vec![]);
    tokio::spawn(async move {
        let mut tunnels = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (note, to) = (note.clone(), to.clone());
            tunnels.spawn(tunnel(stream, to, note));
        }
    });
    (address, noted)
}

async fn tunnel(
    mut stream: TcpStream,
    mut to: watch::Receiver<Option<SocketAddr>>,
    note: watch::Sender<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(octet) = stream.read_u8().await else { return };
        head.push(octet);
    }
    note.send_modify(|heads| heads.push(String::from_utf8(head).unwrap()));
    let address = to.wait_for(Option::is_some).await.unwrap().unwrap();
    let mut far = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut far).await;
}

/// A scene whose authority has a name that nobody resolves, with these variables.
async fn scene(variables: &[&str], to: &watch::Sender<Option<SocketAddr>>) -> Scene {
    Scene::run(
        variables,
        timing(),
        |options| options.names.push(AUTHORITY.into()),
        |m365, route| {
            submission(route).authority.host = AUTHORITY.into();
            to.send_replace(Some(m365.login_address()));
        },
    )
    .await
}

#[tokio::test]
async fn tokens_are_asked_for_through_the_proxy_and_mail_goes_without_it() {
    let (to, target) = watch::channel(None);
    let (address, requests) = proxy(target).await;
    let url = format!("http://app:pass@{address}");
    let scene = scene(&["--https-proxy", &url, "--no-proxy", "10.0.0.0/8,.svc"], &to).await;
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("tunnelled")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene.m365.wait_for_messages(1, PATIENCE).await;
    let requests = requests.borrow().clone();
    let start = format!("CONNECT {AUTHORITY}:443 HTTP/1.1\r\n");
    assert!(!requests.is_empty() && requests.iter().all(|head| head.starts_with(&start)), "{requests:?}");
    assert!(requests[0].contains("Proxy-Authorization: Basic YXBwOnBhc3M=\r\n"), "{requests:?}");
    scene.assert_careful();
}

#[tokio::test]
async fn no_proxy_is_obeyed_and_a_proxy_that_is_away_is_named() {
    let (to, target) = watch::channel(None);
    let (address, requests) = proxy(target).await;
    let url = format!("http://{address}");
    let direct = scene(&["--https-proxy", &url, "--no-proxy", ".contoso.test"], &to).await;
    let told = direct.told(Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains("cannot resolve"), "{told:?}");
    assert!(requests.borrow().is_empty());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let away = scene(&["--https-proxy", &format!("http://app:canary@{closed}")], &to).await;
    let told = away.told(Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains(&format!("through the proxy {closed}")), "{told:?}");
    assert!(!told.message.contains("canary"), "{told:?}");
}

//! A gateway that takes a whole message and never answers: nobody waits for it longer than he has to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::file::{Durability, GatewayUnavailable};
use mailroute_route::identity::Role;
use mailroute_sidecar::app::Intervals;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::identity::Identity;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::authority::certified;
use crate::kept::down;
use crate::pods::{ANN, Pods, patient, stored};
use crate::scene::{Files, PATIENCE, intervals};

/// A route whose gateway is mute, with the number of octets that came behind EHLO on all connections.
async fn mute() -> (Pods, watch::Receiver<usize>) {
    let mut pods = Pods::new("127.0.0.1:1", Queue).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pods.found_at(&listener.local_addr().unwrap().to_string());
    pods.route.delivery.durability = Durability::Gateway;
    let config = Config { route: Some(Arc::new(pods.route.clone())), ..Config::default() };
    let identity = Identity::new(watch::channel(config).1, Role::Gateway);
    identity.set(certified(&pods.authority.signed(Role::Gateway, &pods.route.name, "gateway-0")));
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(identity.server().unwrap());
            let count = count.clone();
            tokio::spawn(async move { drop(swallow(stream, acceptor, count).await) });
        }
    });
    (pods, counted)
}

async fn swallow(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    count: watch::Sender<usize>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    stream.write_all(b"220 mute ESMTP\r\n").await?;
    stream.flush().await?;
    stream.read_line(&mut String::new()).await?;
    stream.write_all(b"250-mute\r\n250 XSPOOL\r\n").await?;
    stream.flush().await?;
    let mut octets = [0; 4096];
    loop {
        match stream.read(&mut octets).await? {
            0 => return Ok(()),
            read => count.send_modify(|count| *count += read),
        }
    }
}

#[tokio::test]
async fn the_application_is_told_in_time_to_send_again() {
    let (pods, _) = mute().await;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    let started = Instant::now();
    let answer = sidecar.send(&[ANN], "refused").await;
    assert_eq!(answer.code, 451, "{answer}");
    let limit = intervals().gateway_timeout + Duration::from_secs(2);
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    assert_eq!(stored(&sidecar.files, "queue"), 0);
}

#[tokio::test]
async fn or_the_pod_has_the_message_by_then() {
    let (mut pods, _) = mute().await;
    pods.route.delivery.gateway_unavailable = GatewayUnavailable::Pod;
    let sidecar = pods.sidecar().await;
    down(&pods.m365, true).await;
    let started = Instant::now();
    sidecar.queued(&[ANN], "kept").await;
    let limit = intervals().gateway_timeout + Duration::from_secs(2);
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    assert_eq!(stored(&sidecar.files, "queue"), 1);
}

#[tokio::test]
async fn at_the_end_of_the_pod_it_is_sent_all_the_same() {
    let (mut pods, _) = mute().await;
    pods.route.delivery.gateway_unavailable = GatewayUnavailable::Pod;
    let sidecar = pods.sidecar().await;
    sidecar.queued(&[ANN], "in doubt").await;
    assert!(pods.m365.messages().is_empty(), "as long as the gateway may deliver it, the pod does not");
    let (files, took) = sidecar.stopped().await;
    assert_eq!(stored(&files, "queue"), 0, "{took:?}");
    assert_eq!(pods.arrived(), ["in doubt"]);
}

#[tokio::test]
async fn at_the_end_of_the_pod_the_application_gets_its_answer() {
    let (pods, mut octets) = mute().await;
    let intervals = Intervals { gateway_timeout: PATIENCE, ..patient() };
    let sidecar = pods.pod(Role::Sidecar, "web-0", &[], intervals, Files::new()).await;
    let address: SocketAddr = sidecar.app.smtp_addresses()[0];
    let sending = tokio::spawn(async move {
        let mut client = crate::client::Client::connect(address).await;
        client.send(crate::kept::SENDER, &[ANN], &crate::client::message("ending")).await
    });
    // More than a look whether it is there.
    octets.wait_for(|&count| count > 200).await.unwrap();
    sidecar.stopped().await;
    let answer = sending.await.unwrap();
    assert_eq!(answer.code, 451, "{answer}");
}

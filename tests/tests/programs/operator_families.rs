//! The operator where there is one family of addresses: in a network namespace without IPv4, and in one without IPv6.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2e::replica::asking::until;
use mailroute_operator::app;
use mailroute_operator::args::{self, Cli, Run};
use mailroute_operator::pki::Lifetimes;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The ports that the operator has by default.
const WEBHOOK: u16 = 8443;
const CONTROL: u16 = 8444;
const ADMIN: u16 = 8080;

#[test]
fn it_is_reached_on_all_ports_where_there_is_no_ipv4() -> Result<()> {
    is_reached("ip link set lo up && ip -4 address flush dev lo", "::1", "127.0.0.1")
}

#[test]
fn it_is_reached_on_all_ports_where_there_is_no_ipv6() -> Result<()> {
    let without = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && ip link set lo up";
    is_reached(without, "127.0.0.1", "::1")
}

/// Runs the operator in a network namespace of its own, made ready by a shell.
fn is_reached(made_ready: &str, at: &str, not_at: &str) -> Result<()> {
    let namespace = Namespace::new(made_ready)?;
    let (at, not_at) = (at.parse()?, not_at.parse()?);
    // What this thread starts is in the namespace too, and nothing else is.
    let inside = std::thread::spawn(move || {
        move_into_link_name_space(namespace.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(operator(at, not_at))
    });
    inside.join().map_err(|_| anyhow::anyhow!("it panicked"))?
}

async fn operator(at: IpAddr, not_at: IpAddr) -> Result<()> {
    // There is no API server, which the ports do not wait for.
    let nowhere = std::net::SocketAddr::new(at, 1);
    let client = kube::Client::try_from(kube::Config::new(format!("http://{nowhere}").parse()?))?;
    let (_stop, stopped) = watch::channel(false);
    tokio::select! {
        ended = app::replica(flags(at)?, client, Lifetimes::default(), stopped) => bail!("it ended: {ended:?}"),
        answered = answers(at) => answered?,
    }
    ensure!(TcpStream::connect((not_at, ADMIN)).await.is_err(), "there is {not_at}");
    Ok(())
}

async fn answers(at: IpAddr) -> Result<()> {
    until(async || {
        let mut stream = TcpStream::connect((at, ADMIN)).await?;
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.contains("200 OK") && answer.ends_with("ok\n"), "{answer}");
        Ok(())
    })
    .await?;
    for port in [WEBHOOK, CONTROL] {
        TcpStream::connect((at, port)).await.with_context(|| format!("port {port}"))?;
    }
    Ok(())
}

fn flags(at: IpAddr) -> Result<Run> {
    let line = ["mailroute-operator", "run", "--namespace", "mail", "--pod-name", "operator-0"];
    let more = ["--pod-ip", &at.to_string(), "--sidecar-image", "mailroute.dev/sidecar:0.1.0"];
    match Cli::try_parse_from([&line[..], &more].concat())?.command {
        args::Command::Run(flags) => Ok(*flags),
        other => bail!("not the flags of run: {other:?}"),
    }
}

/// A network namespace, which a process keeps until this is dropped.
struct Namespace {
    file: File,
    keeper: Child,
}

impl Namespace {
    fn new(made_ready: &str) -> Result<Self> {
        let script = format!("{made_ready} && echo ready && exec sleep 600");
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut keeper = command.spawn().context("cannot run unshare")?;
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().context("its output")?).read_line(&mut said)?;
        let file = File::open(format!("/proc/{}/ns/net", keeper.id()))?;
        let this = Self { file, keeper };
        ensure!(said == "ready\n", "the namespace cannot be made; it takes root and ip of iproute2");
        Ok(this)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

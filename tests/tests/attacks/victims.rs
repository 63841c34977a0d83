//! The sidecars of another namespace: programs as in a pod, each with more mail than the mailbox may send.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::until;
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT};
use mailroute_m365::{Options, Simulator};
use mailroute_route::file::{ControlService, DeliveryMode};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::ground::program;
use crate::route::to_simulator;

/// Messages a minute of their mailbox. With many more than this, what costs time is that the operator gives them out one by one.
pub const LIMIT: u32 = 60;

/// How many sidecars there are.
pub const SIDECARS: usize = 4;

/// Each application's pause between two messages: together half as much again as the mailbox may send.
const PAUSE: Duration = Duration::from_millis(2600);

/// The sidecars, their applications, and what they send through.
pub struct Victims {
    microsoft: Simulator,
    _sidecars: Vec<Child>,
    _applications: JoinSet<()>,
    _folder: tempfile::TempDir,
}

impl Victims {
    /// Starts them: each with the token of a pod, and the control service where a replica listens.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(tokens: &[String], control: &ControlService, replica: SocketAddr) -> Result<Self> {
        let mut options = Options::default();
        options.config.limits.messages_per_minute = LIMIT as usize;
        options.config.record.messages = Some(0);
        let microsoft = Simulator::start(options).await?;
        let folder = tempfile::tempdir()?;
        // In the place of the cluster's name server, which is not there on a control plane.
        let (name, _) = control.address.rsplit_once(':').context("a port")?;
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{} {name}\n", replica.ip()))?;
        let address = format!("{name}:{}", replica.port());
        let (mut sidecars, mut applications) = (Vec::new(), JoinSet::new());
        for (number, token) in tokens.iter().enumerate() {
            let at = folder.path().join(format!("pod-{number}"));
            let control = ControlService { address: address.clone(), ..control.clone() };
            mount(&at, token, &microsoft, control)?;
            let (smtp, child) = sidecar(&at, &hosts).await?;
            sidecars.push(child);
            applications.spawn(application(smtp));
        }
        Ok(Self { microsoft, _sidecars: sidecars, _applications: applications, _folder: folder })
    }

    /// Messages that have arrived.
    pub fn delivered(&self) -> u64 {
        self.microsoft.statistics().tally.messages
    }

    /// Waits until the first burst is over, and mail flows at the pace of the limit.
    ///
    /// # Errors
    /// When it does not.
    pub async fn are_in_step(&self) -> Result<()> {
        let wanted = u64::from(LIMIT / 2) + 20;
        let enough = |office: &mailroute_m365::office::Office| {
            (office.statistics().tally.messages >= wanted).then_some(())
        };
        let waited = self.microsoft.wait_for(Duration::from_secs(180), enough).await;
        waited.with_context(|| format!("only {} messages have arrived", self.delivered()))
    }

    /// Nothing was sent that Exchange would have refused.
    ///
    /// # Errors
    /// When something was.
    pub fn ensure_within_limits(&self) -> Result<()> {
        let refusals = self.microsoft.statistics().tally.refusals;
        ensure!(refusals.is_empty(), "Exchange refused {refusals:?}");
        Ok(())
    }
}

/// What a pod has: its route, its tokens, room for its spool.
fn mount(folder: &Path, token: &str, microsoft: &Simulator, control: ControlService) -> Result<()> {
    std::fs::create_dir_all(folder.join("spool"))?;
    let at = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(at("ca.crt"), microsoft.ca_pem())?;
    std::fs::write(at("control"), token)?;
    microsoft.write_assertion(SAMPLE_SUBJECT, &at("entra"))?;
    let control = ControlService { token_file: at("control"), leases: true, ..control };
    let mut route = to_simulator(microsoft, at("ca.crt"), at("entra"), Some(control));
    route.name = crate::ground::ROUTE.into();
    route.delivery.mode = DeliveryMode::Queue;
    route.limits.messages_per_minute = Some(LIMIT);
    route.limits.recipients_per_day = Some(1_000_000);
    Ok(std::fs::write(at("route.json"), route.to_json())?)
}

/// Starts a sidecar with names of its own, and waits until it takes mail.
async fn sidecar(folder: &Path, hosts: &Path) -> Result<(SocketAddr, Child)> {
    let program = program("MAILROUTE_SIDECAR", "mailroute-sidecar")?;
    let smtp = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let at = |name: &str| folder.join(name).display().to_string();
    let child = Command::new("unshare")
        .args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
        .arg(hosts)
        .arg(&program)
        .args(["run", "--route", &at("route.json"), "--spool-dir", &at("spool")])
        .args(["--port", &smtp.port().to_string(), "--admin-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(folder.join("out"))?)
        .stderr(std::fs::File::create(folder.join("log"))?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let taken = until(async || Ok(TcpStream::connect(smtp).await.map(drop)?)).await;
    taken.with_context(|| std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
    Ok((smtp, child))
}

/// Sends a message again and again. One that is not taken is sent later.
async fn application(sidecar: SocketAddr) {
    let mut moments = interval(PAUSE);
    loop {
        moments.tick().await;
        let _ = send(sidecar).await;
    }
}

async fn send(sidecar: SocketAddr) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(sidecar).await?);
    stream.read_line(&mut String::new()).await?;
    let text = format!("From: <{SAMPLE_MAILBOX}>\r\nSubject: Hello\r\n\r\nHello\r\n.\r\n");
    for (line, expected) in [
        ("HELO application.example\r\n".to_owned(), "250"),
        (format!("MAIL FROM:<{SAMPLE_MAILBOX}>\r\n"), "250"),
        ("RCPT TO:<ann@fabrikam.com>\r\n".to_owned(), "250"),
        ("DATA\r\n".to_owned(), "354"),
        (text, "250"),
        ("QUIT\r\n".to_owned(), "221"),
    ] {
        stream.write_all(line.as_bytes()).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        ensure!(reply.starts_with(expected), "{line:?} is answered {reply:?}");
    }
    Ok(())
}

//! Many sidecars of one mailbox, their applications, the operator and Microsoft.
//!
//! Owns how sidecars run: in this process, where a minute can be short, or as the program that is shipped.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::replica::asking::until;
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT};
use mailroute_m365::{Options, Simulator};
use mailroute_quota::Timing;
use mailroute_route::file::{ControlService, DeliveryMode, Method, SendingMailbox, SpreadFrom};
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::Cli;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::operator::{Operator, token};
use crate::route::to_simulator;

/// How sidecars run.
#[derive(Clone)]
pub enum Way {
    /// In this process, with Microsoft's minute as long as this.
    Here(Duration),
    /// Each as this program, whose minute is a real one.
    Program(PathBuf),
}

/// All sidecars, and what they send through.
pub struct Stage {
    pub microsoft: Simulator,
    pub operator: Operator,
    minute: Duration,
    mailboxes: Vec<String>,
    sidecars: Vec<Sidecar>,
    _folder: tempfile::TempDir,
}

/// A sidecar, for as long as it is kept.
struct Sidecar {
    smtp: SocketAddr,
    _runs: Runs,
}

enum Runs {
    Here { _app: App },
    Program { _child: Child },
}

impl Stage {
    /// Starts so many sidecars one right after the other.
    pub async fn start(way: Way, count: usize) -> Result<Self> {
        Self::with_mailboxes(way, count, 1).await
    }

    /// The same with so many mailboxes, which share the mail of the first.
    pub async fn with_mailboxes(way: Way, count: usize, mailboxes: usize) -> Result<Self> {
        // Fails only when there is one already, and then it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let minute = way.minute();
        let mut options = Options::default();
        options.config.limits.minute_milliseconds = u64::try_from(minute.as_millis())?;
        let mailboxes = addresses(mailboxes);
        let tenant = options.config.directory.tenants.first_mut().context("the sample tenant")?;
        for address in mailboxes.iter().skip(1) {
            let mut mailbox = tenant.mailboxes.first().context("the sample mailbox")?.clone();
            (mailbox.address, mailbox.aliases) = (address.clone(), vec![]);
            mailbox.send_as.push(SAMPLE_MAILBOX.into());
            tenant.mailboxes.push(mailbox);
            tenant
                .applications
                .first_mut()
                .context("the sample application")?
                .mailboxes
                .push(address.clone());
        }
        let microsoft = Simulator::start(options).await?;
        let operator = Operator::start(minute, count, &mailboxes).await?;
        let folder = tempfile::tempdir()?;
        let mut sidecars = Vec::new();
        for number in 0..count {
            let at = folder.path().join(format!("pod-{number}"));
            mount(&at, number, &microsoft, &operator, &mailboxes)?;
            sidecars.push(Sidecar::start(&way, &at).await?);
        }
        Ok(Self { microsoft, operator, minute, mailboxes, sidecars, _folder: folder })
    }

    /// Every application sends so many messages in one session, all at the same time.
    pub async fn send(&self, each: usize) -> Result<()> {
        self.send_by(self.sidecars.len(), each).await
    }

    /// The same by the first applications alone.
    pub async fn send_by(&self, applications: usize, each: usize) -> Result<()> {
        let all = self
            .sidecars
            .iter()
            .take(applications)
            .enumerate()
            .map(|(number, it)| application(it.smtp, number, each));
        futures::future::try_join_all(all).await?;
        Ok(())
    }

    /// Waits until so many have arrived, each once.
    pub async fn arrived(&self, count: usize) -> Result<()> {
        let messages = self.microsoft.wait_for_messages(count, self.minute * 25).await;
        let subjects: BTreeSet<_> = messages.iter().filter_map(|message| message.header("Subject")).collect();
        ensure!(subjects.len() == count && messages.len() == count, "{} of {count}", subjects.len());
        Ok(())
    }

    /// Nothing was refused and no limit was met.
    pub fn ensure_within_limits(&self) -> Result<()> {
        let statistics = self.microsoft.statistics();
        ensure!(statistics.tally.refusals.is_empty(), "{:?}", statistics.tally.refusals);
        for mailbox in &self.mailboxes {
            let peak = statistics.mailboxes.get(mailbox).copied().unwrap_or_default();
            ensure!(peak.messages_in_minute <= 30 && peak.submitting_connections <= 3, "{mailbox}: {peak:?}");
        }
        Ok(())
    }

    /// How much of the limit was used in the whole minutes from the first message on, and how many those are.
    pub fn used(&self) -> Result<(f64, f64)> {
        let times: Vec<_> = self.microsoft.messages().iter().map(|message| message.received_at).collect();
        let first = times.first().context("a message")?;
        let since: Vec<f64> = times.iter().map(|at| at.duration_since(*first).as_secs_f64()).collect();
        let minute = self.minute.as_secs_f64();
        let minutes = (since.last().context("a message")? / minute).floor();
        ensure!(minutes >= 2.0, "over too soon to tell");
        let within = since.iter().filter(|at| **at < minutes * minute).count();
        let limit = 30.0 * f64::from(u32::try_from(self.mailboxes.len())?);
        Ok((f64::from(u32::try_from(within)?) / (limit * minutes), minutes))
    }
}

impl Way {
    const fn minute(&self) -> Duration {
        match self {
            Self::Here(minute) => *minute,
            Self::Program(_) => Duration::from_secs(60),
        }
    }
}

impl Sidecar {
    /// Starts one on what is mounted in `folder`, and waits until it takes mail.
    async fn start(way: &Way, folder: &Path) -> Result<Self> {
        match way {
            Way::Here(minute) => {
                let run = Cli::try_parse_from(arguments(folder, 0))?.into_run();
                let quota = Timing { minute: *minute, ..Timing::default() };
                let app = App::start(run, Intervals { quota, ..Intervals::default() }).await?;
                let smtp = app.smtp_addresses().first().copied().context("it listens")?;
                Ok(Self { smtp, _runs: Runs::Here { _app: app } })
            }
            Way::Program(program) => {
                let smtp = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
                let child = Command::new(program)
                    .args(arguments(folder, smtp.port()).iter().skip(1))
                    .stdout(Stdio::null())
                    .stderr(std::fs::File::create(folder.join("log"))?)
                    .kill_on_drop(true)
                    .spawn()
                    .with_context(|| format!("cannot run {}", program.display()))?;
                until(async || Ok(TcpStream::connect(smtp).await.map(drop)?)).await?;
                Ok(Self { smtp, _runs: Runs::Program { _child: child } })
            }
        }
    }
}

/// So many mailboxes.
fn addresses(count: usize) -> Vec<String> {
    let others = (1..count).map(|number| format!("pool-{number}@contoso.com"));
    std::iter::once(SAMPLE_MAILBOX.to_owned()).chain(others).collect()
}

/// What a pod has: its route, its tokens, room for its spool.
fn mount(
    folder: &Path,
    number: usize,
    microsoft: &Simulator,
    operator: &Operator,
    mailboxes: &[String],
) -> Result<()> {
    std::fs::create_dir_all(folder.join("spool"))?;
    let at = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(at("ca.crt"), microsoft.ca_pem())?;
    std::fs::write(at("control"), token(number))?;
    microsoft.write_assertion(SAMPLE_SUBJECT, &at("entra"))?;
    let control = ControlService {
        address: format!("localhost:{}", operator.address.port()),
        ca_pem: operator.ca_pem.clone(),
        token_file: at("control"),
        leases: true,
    };
    let mut route = to_simulator(microsoft, at("ca.crt"), at("entra"), Some(control));
    if let Method::ClientSubmission(submission) = &mut route.method
        && mailboxes.len() > 1
    {
        let senders = vec![SAMPLE_MAILBOX.to_owned()];
        let all = mailboxes.iter().cloned();
        submission.mailboxes =
            all.map(|address| SendingMailbox { address, senders: senders.clone() }).collect();
        submission.spread = Some(SpreadFrom::Keep);
    }
    route.delivery.mode = DeliveryMode::DeliverOrQueue;
    route.limits.messages_per_minute = Some(30);
    route.limits.recipients_per_day = Some(10_000);
    Ok(std::fs::write(at("route.json"), route.to_json())?)
}

fn arguments(folder: &Path, port: u16) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        ["mailroute-sidecar".into(), "run".into()],
        ["--route".into(), path("route.json")],
        ["--spool-dir".into(), path("spool")],
        ["--port".into(), port.to_string()],
        ["--admin-listen".into(), "127.0.0.1:0".into()],
    ];
    arguments.concat()
}

/// One session with so many messages. Each is answered 250.
async fn application(address: SocketAddr, number: usize, messages: usize) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    say(&mut stream, "HELO application.example\r\n", "250").await?;
    for message in 0..messages {
        say(&mut stream, &format!("MAIL FROM:<{SAMPLE_MAILBOX}>\r\n"), "250").await?;
        say(&mut stream, "RCPT TO:<ann@fabrikam.com>\r\n", "250").await?;
        say(&mut stream, "DATA\r\n", "354").await?;
        let text = format!("From: <{SAMPLE_MAILBOX}>\r\nSubject: {number}.{message}\r\n\r\nHello\r\n.\r\n");
        say(&mut stream, &text, "250").await?;
    }
    say(&mut stream, "QUIT\r\n", "221").await
}

async fn say(stream: &mut BufReader<TcpStream>, text: &str, expected: &str) -> Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    ensure!(reply.starts_with(expected), "{text:?} is answered {reply:?}");
    Ok(())
}

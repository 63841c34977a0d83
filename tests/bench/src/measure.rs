//! One work by each program, and the limits beside it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mailroute_route::file::DeliveryMode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::disk;
use crate::generator::{self, Load, Sent};
use crate::process::{self, Used};
use crate::program::{Authority, Gateway, Postfix, Sidecar, Upstream, relay_to};
use crate::sink::Ready;
use crate::table::Measurement;
use crate::work::{self, Origin, Work};

/// How often memory is looked at while a program works.
const LOOK: Duration = Duration::from_millis(50);

/// What is measured, and how long.
pub struct Bench {
    /// The sidecar program.
    pub sidecar: Option<PathBuf>,
    /// Where Postfix is.
    pub peers: Option<PathBuf>,
    /// Longest time of sending, seconds.
    pub seconds: f64,
}

/// A sink in a process of its own.
pub struct Sink {
    child: Child,
    ready: Ready,
}

/// A program at work.
pub enum Running {
    Sidecar(Sidecar),
    /// The sidecar program, alone.
    Gateway(Box<Gateway>),
    Postfix(Postfix),
    /// Postfix in the gateway's place, and the CA of its clients.
    PostfixForPods(Postfix, Box<Authority>),
}

impl Bench {
    /// The time from the start of each program to its first accepted message, and its memory when idle after that.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn starts(&self) -> Result<Vec<Measurement>> {
        let mut measurements = Vec::new();
        for program in self.programs() {
            let folder = tempfile::tempdir()?;
            let work = Work::new(work::SMALL, 1, DeliveryMode::Queue);
            let sink = Sink::start(folder.path(), &work).await?;
            let began = Instant::now();
            let running =
                self.start(program, folder.path(), &sink.upstream(folder.path(), &work), &work).await?;
            running
                .take(Load { messages: 1, time: Duration::MAX, ..self.load(&work, running.port()) })
                .await?;
            let took = began.elapsed();
            sink.reached(1).await?;
            let idle = process::used(running.pid());
            running.stop().await?;
            let number =
                |metric, value, unit| Measurement { work: "start".into(), program, metric, value, unit };
            measurements.push(number("start to first accepted", took.as_secs_f64() * 1000.0, "ms"));
            measurements.push(number("memory idle", mebibytes(idle), "MiB"));
        }
        Ok(measurements)
    }

    /// One work by every program.
    ///
    /// # Errors
    /// When a program refuses a message or does not start.
    pub async fn measure(&self, work: &Work) -> Result<Vec<Measurement>> {
        let mut measurements = self.limits(work).await?;
        for program in self.programs() {
            measurements.extend(self.by(program, work).await.context(program)?);
        }
        Ok(measurements)
    }

    pub fn programs(&self) -> impl Iterator<Item = &'static str> {
        let sidecar = self.sidecar.is_some().then_some("sidecar");
        sidecar.into_iter().chain(self.peers.is_some().then_some("postfix"))
    }

    pub async fn start(
        &self,
        program: &str,
        folder: &Path,
        upstream: &Upstream,
        work: &Work,
    ) -> Result<Running> {
        Ok(match (&self.sidecar, &self.peers, work.origin) {
            (_, Some(peers), Origin::Application) if program == "postfix" => {
                Running::Postfix(Postfix::start(peers, folder, upstream, None).await?)
            }
            (_, Some(peers), Origin::Pods) if program == "postfix" => {
                let authority = Authority::new()?;
                let postfix = Postfix::start(peers, folder, upstream, Some(&authority)).await?;
                Running::PostfixForPods(postfix, Box::new(authority))
            }
            (Some(sidecar), _, Origin::Application) => {
                Running::Sidecar(Sidecar::start(sidecar, folder, &relay_to(upstream, work.mode)).await?)
            }
            (Some(sidecar), _, Origin::Pods) => {
                Running::Gateway(Box::new(Gateway::start(sidecar, folder, upstream).await?))
            }
            _ => bail!("nothing to start"),
        })
    }

    async fn by(&self, program: &'static str, work: &Work) -> Result<Vec<Measurement>> {
        let folder = tempfile::tempdir()?;
        let sink = Sink::start(folder.path(), work).await?;
        let running = self.start(program, folder.path(), &sink.upstream(folder.path(), work), work).await?;
        let (before, began) = (process::used(running.pid()), Instant::now());
        let work_and_drain = async {
            let sent = running.take(self.load(work, running.port())).await?;
            sink.reached(sent.replies.len() as u64).await?;
            anyhow::Ok((sent, began.elapsed()))
        };
        let (outcome, peak) = watched(work_and_drain, running.pid()).await;
        let (sent, drained) = outcome?;
        let after = process::used(running.pid());
        running.stop().await?;
        Ok(report(program, work, &sent, drained, after.seconds - before.seconds, peak))
    }

    pub fn load(&self, work: &Work, port: u16) -> Load {
        let time = Duration::from_secs_f64(self.seconds);
        let Work { sessions, bytes, per_session, .. } = *work;
        Load { port, sessions, bytes, messages: work.messages(), time, per_session }
    }

    /// The generator straight to the sink over TLS, each session with a connection that it keeps, and the disk at the same concurrency.
    async fn limits(&self, work: &Work) -> Result<Vec<Measurement>> {
        let folder = tempfile::tempdir()?;
        let sink = Sink::start(folder.path(), work).await?;
        let upstream = sink.upstream(folder.path(), work);
        let sent =
            generator::send_over_start_tls(self.load(work, upstream.port), &upstream.connector()?).await?;
        let straight = sent.replies.len() as f64 / sent.took.as_secs_f64();
        let time = Duration::from_secs_f64((self.seconds / 4.0).min(0.5));
        let durable = disk::durable_rate(folder.path(), work.sessions, work.bytes, time)?;
        let number =
            |metric, value, unit| Measurement { work: work.name(), program: "limit", metric, value, unit };
        Ok(vec![
            number("generator straight to sink", straight, "messages/s"),
            number("disk, durable files", durable, "files/s"),
        ])
    }
}

impl Running {
    /// Gives it messages until they or the time are used up.
    pub async fn take(&self, load: Load) -> Result<Sent> {
        match self {
            Self::Sidecar(_) | Self::Postfix(_) => generator::send(load).await,
            Self::Gateway(gateway) => gateway.take_over(load).await,
            Self::PostfixForPods(_, authority) => {
                let (connector, name) = authority.connector()?;
                generator::send_over_tls(load, &connector, &name).await
            }
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Sidecar(sidecar) => sidecar.port,
            Self::Gateway(gateway) => gateway.port(),
            Self::Postfix(postfix) | Self::PostfixForPods(postfix, _) => postfix.port,
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Sidecar(sidecar) => sidecar.pid(),
            Self::Gateway(gateway) => gateway.pid(),
            Self::Postfix(postfix) | Self::PostfixForPods(postfix, _) => postfix.pid(),
        }
    }

    pub async fn stop(self) -> Result<()> {
        match self {
            Self::Sidecar(sidecar) => sidecar.stop().await,
            Self::Gateway(gateway) => gateway.stop().await,
            Self::Postfix(postfix) | Self::PostfixForPods(postfix, _) => postfix.stop().await,
        }
    }
}

impl Sink {
    /// Ends it, and says where it took mail.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn end(mut self) -> Result<u16> {
        self.child.kill().await?;
        Ok(self.ready.smtp)
    }

    pub async fn start(folder: &Path, work: &Work) -> Result<Self> {
        Self::listening(folder, work, 0).await
    }

    /// The same on a port of localhost.
    pub async fn listening(folder: &Path, work: &Work, port: u16) -> Result<Self> {
        let (delay, round_trip) = (work.delay.to_string(), work.round_trip.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["sink", "--delay", &delay, "--round-trip", &round_trip, "--port", &port.to_string()])
            .arg("--certificate")
            .arg(folder.join("sink.crt"))
            .arg("--key")
            .arg(folder.join("sink.key"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("the sink has an output")?;
        BufReader::new(output).read_line(&mut line).await?;
        Ok(Self { child, ready: serde_json::from_str(&line).context("the sink does not start")? })
    }

    pub fn upstream(&self, folder: &Path, work: &Work) -> Upstream {
        let certificate = folder.join("sink.crt");
        Upstream { port: self.ready.smtp, certificate, chunking: work.chunking }
    }

    /// Waits until so many messages have come.
    pub async fn reached(&self, messages: u64) -> Result<()> {
        reached(self.ready.count, messages).await
    }
}

/// Waits until the counter at this port has seen so many messages.
pub async fn reached(count: u16, messages: u64) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", count)).await?;
    stream.write_all(format!("{messages}\n").as_bytes()).await?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(300), read).await.context("mail does not arrive")??;
    Ok(())
}

/// Runs something and gives the most memory that the program had meanwhile.
pub async fn watched<T>(work: impl Future<Output = T>, pid: u32) -> (T, Used) {
    let mut peak = Used::default();
    let mut rounds = tokio::time::interval(LOOK);
    tokio::pin!(work);
    loop {
        tokio::select! {
            outcome = &mut work => return (outcome, peak),
            _ = rounds.tick() => peak.bytes = peak.bytes.max(process::used(pid).bytes),
        }
    }
}

fn report(
    program: &'static str,
    work: &Work,
    sent: &Sent,
    drained: Duration,
    cpu: f64,
    peak: Used,
) -> Vec<Measurement> {
    let number = |metric, value, unit| Measurement { work: work.name(), program, metric, value, unit };
    let count = sent.replies.len() as f64;
    let mut replies = sent.replies.clone();
    replies.sort();
    let quantile = |share: f64| {
        let at = ((replies.len().max(1) - 1) as f64 * share).round() as usize;
        replies.get(at).map_or(f64::NAN, |reply| reply.as_secs_f64() * 1000.0)
    };
    vec![
        number("accepted", count / sent.took.as_secs_f64(), "messages/s"),
        number("delivered", count / drained.as_secs_f64(), "messages/s"),
        number("reply p50", quantile(0.5), "ms"),
        number("reply p99", quantile(0.99), "ms"),
        number("cpu", cpu / count * 1000.0, "s/1000 messages"),
        number("memory peak", mebibytes(peak), "MiB"),
    ]
}

/// Memory in MiB.
pub fn mebibytes(used: Used) -> f64 {
    used.bytes as f64 / f64::from(1 << 20)
}

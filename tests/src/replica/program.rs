//! The operator as a process of its own: started with the chart's rights, watched from outside, told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Place;
use super::stage::{Replica, Stage};

/// How long a step may take: a thousand routes are reconciled in one.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A running operator.
pub struct Operator {
    /// Where it answers the webhook.
    pub webhook: SocketAddr,
    /// Where it answers sidecars.
    pub control: SocketAddr,
    /// Where it answers probes and Prometheus.
    pub admin: SocketAddr,
    replica: Replica,
    child: Child,
    _folder: TempDir,
}

/// Memory of a process in RAM, bytes.
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most it ever was.
    pub peak: u64,
}

impl Operator {
    /// Starts one. `number` keeps its ports apart from those of others.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn start(stage: &Stage, program: &Path, number: u16) -> Result<Self> {
        let kubeconfig = stage.kubeconfig_of_the_chart().await?;
        Self::run(program, &kubeconfig, stage.outside(number), stage.arguments(number))
    }

    /// Starts one on this machine with the API server of this kubeconfig. `number` keeps its ports apart from those of others.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn beside(kubeconfig: &str, program: &Path, number: u16) -> Result<Self> {
        let host = Ipv4Addr::LOCALHOST.into();
        Self::run(
            program,
            kubeconfig,
            Replica::outside(host, number),
            Place::of(host, number).arguments::<&str>(&[]),
        )
    }

    fn run(program: &Path, kubeconfig: &str, replica: Replica, arguments: Vec<String>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", path)
            // As in its image.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}; make images builds it", program.display()))?;
        let Replica { webhook, control, admin, .. } = replica;
        Ok(Self { webhook, control, admin, replica, child, _folder: folder })
    }

    /// Waits until it says that it may be sent requests.
    ///
    /// # Errors
    /// When it does not.
    pub async fn is_ready(&self) -> Result<()> {
        self.replica.readiness(200).await.map(drop)
    }

    /// What `/metrics` says of the first metric whose line begins so; nothing when there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, line: &str) -> Result<Option<f64>> {
        self.replica.metric(line).await
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it leads and this many reconciliations have gone well.
    ///
    /// # Errors
    /// When they do not.
    pub async fn has_reconciled(&self, wanted: f64) -> Result<()> {
        let enough = async {
            while self.replica.metric("mailroute_reconciles_total{outcome=\"ok\"}").await?.unwrap_or_default()
                < wanted
            {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, enough).await.context("routes are not reconciled")?
    }

    /// Puts it behind the Service, in place of one before.
    ///
    /// # Errors
    /// When no pod comes out with its sidecar.
    pub async fn serve(&self, stage: &Stage) -> Result<()> {
        stage.put_behind_the_service(0, self.webhook).await
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let kib = |name| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
                .context("no such line")
        };
        Ok(Memory { resident: kib("VmRSS:")? * 1024, peak: kib("VmHWM:")? * 1024 })
    }

    /// Seconds on a processor until now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_seconds(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // Fields 14 and 15, counted from behind the name, which may hold anything.
        let fields: Vec<&str> = text.rsplit_once(") ").context("a name")?.1.split(' ').collect();
        let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Waits for some work, and looks at the memory meanwhile: the most it was, bytes.
    ///
    /// # Errors
    /// When the work fails or it ends.
    pub async fn watched<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
        tokio::pin!(work);
        let mut highest = 0;
        loop {
            tokio::select! {
                done = &mut work => return Ok((done?, highest)),
                () = tokio::time::sleep(LOOK) => highest = highest.max(self.memory()?.resident),
                ended = self.child.wait() => anyhow::bail!("it ended: {ended:?}"),
            }
        }
    }

    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("it does not stop")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        self.child.id().context("the operator has ended")
    }
}

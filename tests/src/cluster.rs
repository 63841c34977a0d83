//! A cluster in the hands of a test: a client, `kubectl`, Helm, images, and the end of it all when it is dropped.
//!
//! The processes belong to a supervisor (see [`crate::supervisor`]), a program in a session of its own that is tied to
//! this handle by a pipe: when the handle is dropped, or the test dies in whatever way, the pipe closes and the
//! supervisor takes everything down. Clones share one cluster; the last one ends it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::ctr;
use crate::description::{Description, Family, Tier};
use crate::handle::Supervised;
use crate::images;
use crate::tools::{Tools, search_path};

/// Names the kubeconfig of a cluster that is up already; tests that can share a cluster use it.
pub const KUBECONFIG_VARIABLE: &str = "MAILROUTE_KUBECONFIG";

/// A running cluster. The last clone to be dropped ends it, unless it was up before or is kept.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    client: kube::Client,
    kubeconfig: PathBuf,
    description: Option<Description>,
    tools: Tools,
    home: TempDir,
    supervised: Option<Supervised>,
}

impl Cluster {
    /// Starts a cluster of one's own.
    ///
    /// # Errors
    /// When this machine cannot run one or a program in it fails; the error shows what that program said last.
    pub async fn start(tier: Tier) -> Result<Self> {
        Self::start_with(tier, Family::default()).await
    }

    /// Starts a cluster of one's own with addresses of one family.
    ///
    /// # Errors
    /// As for [`Cluster::start`], and when this machine has no such addresses.
    pub async fn start_with(tier: Tier, family: Family) -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        Self::start_named(tier, family, &name).await
    }

    /// Starts a cluster under a name that `cluster down --name` knows.
    ///
    /// # Errors
    /// As for [`Cluster::start`], and when a cluster of this name is up.
    pub async fn start_named(tier: Tier, family: Family, name: &str) -> Result<Self> {
        let tools = Tools::find()?;
        let supervised = Supervised::start(tier, family, name).await?;
        let description = supervised.description().clone();
        Self::connect(tools, &description.kubeconfig.clone(), Some(description), Some(supervised)).await
    }

    /// The cluster that `MAILROUTE_KUBECONFIG` names, or one of one's own when it names none.
    ///
    /// # Errors
    /// As for [`Cluster::start`], and when the named cluster does not answer.
    pub async fn shared(tier: Tier) -> Result<Self> {
        match env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::from_kubeconfig(Path::new(&path)).await,
            None => Self::start(tier).await,
        }
    }

    /// A cluster that is up already, started by this harness or not. Dropping it leaves it up.
    ///
    /// # Errors
    /// When the file cannot be read or the cluster does not answer.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self> {
        let description = path.parent().and_then(|folder| std::fs::read(folder.join(Description::FILE)).ok());
        let description = description.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        let cluster = Self::connect(Tools::find()?, path, description, None).await?;
        let answer = cluster.client().apiserver_version().await;
        answer.with_context(|| format!("the cluster of {} does not answer", path.display()))?;
        Ok(cluster)
    }

    async fn connect(
        tools: Tools,
        kubeconfig: &Path,
        description: Option<Description>,
        supervised: Option<Supervised>,
    ) -> Result<Self> {
        let client = client(kubeconfig).await?;
        // In the cluster's own folder, where there is one: it goes with the cluster even if this process is killed.
        let folder = description.as_ref().map_or_else(env::temp_dir, |d| d.state.clone());
        let home = TempDir::with_prefix_in("mailroute-helm-", folder)?;
        let kubeconfig = kubeconfig.to_owned();
        Ok(Self { inner: Arc::new(Inner { client, kubeconfig, description, tools, home, supervised }) })
    }

    /// A client with every right. It belongs to the runtime of the test that started the cluster.
    pub fn client(&self) -> kube::Client {
        self.inner.client.clone()
    }

    /// The kubeconfig that [`Cluster::client`] uses.
    pub fn kubeconfig(&self) -> &Path {
        &self.inner.kubeconfig
    }

    /// What the harness knows of the cluster; nothing when it is someone else's.
    pub fn description(&self) -> Option<&Description> {
        self.inner.description.as_ref()
    }

    /// Whether this handle started the cluster, and so ends it.
    pub fn is_own(&self) -> bool {
        self.inner.supervised.is_some()
    }

    /// The folder of `kubectl`, Helm and the like, for a person's `PATH`.
    pub fn programs(&self) -> &Path {
        self.inner.tools.links()
    }

    /// Leaves the cluster up when this process ends. `cluster down --name` ends it.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn keep(&self) -> Result<()> {
        self.inner.supervised.as_ref().map_or(Ok(()), Supervised::keep)
    }

    /// Runs `kubectl` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error is what it said.
    pub async fn kubectl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let mut command = self.command(&self.inner.tools.kubernetes("kubectl"));
        printed("kubectl", command.args(arguments).output().await?)
    }

    /// Runs `kubectl` with something to read (`apply -f -`) and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error is what it said.
    pub async fn kubectl_stdin<A: AsRef<OsStr>>(&self, arguments: &[A], input: &str) -> Result<String> {
        let mut command = self.command(&self.inner.tools.kubernetes("kubectl"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("the input is a pipe")?;
        // Both at once: one that stops reading to complain must be heard.
        let write = async move {
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        printed("kubectl", output?)
    }

    /// Applies manifests given as text, in a namespace unless they name their own.
    ///
    /// # Errors
    /// When the API server refuses one; the error is what `kubectl` said.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> Result<String> {
        self.kubectl_stdin(
            &["--namespace", namespace, "apply", "--server-side", "--filename", "-"],
            manifests,
        )
        .await
    }

    /// Runs Helm and returns what it printed. Its own files are kept away from the user's.
    ///
    /// # Errors
    /// When it fails; the error is what it said.
    pub async fn helm<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        self.helm_with(&self.inner.tools.helm(), arguments).await
    }

    /// Runs a Helm of one's choice ([`Tools::helm3`]) and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error is what it said.
    pub async fn helm_with<A: AsRef<OsStr>>(&self, helm: &Path, arguments: &[A]) -> Result<String> {
        let mut command = self.command(helm);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.inner.home.path().join(folder));
        }
        printed("helm", command.args(arguments).output().await?)
    }

    /// Whether [`Cluster::load_image`] works: only on a node that this harness started.
    pub fn takes_images(&self) -> bool {
        self.description().is_some_and(|description| !description.containerd.is_empty())
    }

    /// Puts an image archive on the node, unless this very archive is there already.
    ///
    /// # Errors
    /// When the archive cannot be read, containerd refuses it, or the cluster is not this harness's node.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        let Some(description) = self.description() else {
            bail!(
                "images cannot be loaded into a cluster that this harness did not start: give it {} yourself",
                archive.display()
            );
        };
        images::load(description, archive).await
    }

    /// Ends a container's process with SIGKILL, as a crash would. Takes the id as a pod's status has it.
    ///
    /// # Errors
    /// When containerd has no such container running, or the cluster is not this harness's node.
    pub async fn kill_container(&self, id: &str) -> Result<()> {
        let socket = self.description().and_then(|description| description.containerd.first());
        let socket = socket.context("only on a node of this harness can a container be killed")?;
        let id = id.trim_start_matches("containerd://");
        ctr::run(socket, &["tasks", "kill", "--signal", "SIGKILL", id]).await
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", search_path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub(crate) fn kubectl_blocking(&self, arguments: &[&str]) -> String {
        let mut command = process::Command::new(self.inner.tools.kubernetes("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null()).args(arguments);
        match command.output() {
            Ok(output) => {
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                let _ = write!(text, "{}", String::from_utf8_lossy(&output.stderr));
                text
            }
            Err(error) => format!("kubectl: {error}"),
        }
    }
}

/// A client for a kubeconfig file.
///
/// # Errors
/// When the file cannot be read or holds no usable credentials.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    // One provider for the process; a second call finds it installed, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

fn printed(program: &str, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{program} failed ({}): {}{stdout}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}

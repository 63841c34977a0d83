//! The harness itself: both tiers come up and work, and nothing of a cluster is left however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::supervisor::member;
use e2e::supervisor::record::{self, Record};
use e2e::tools::Tools;
use e2e::{Cluster, Tier, wait};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::PostParams;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// A whole cluster starts and ends within seconds; twenty times that is a machine in trouble.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_answers_signs_tokens_with_rsa_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    let record = record_of(&cluster)?;
    let keys = cluster.kubectl(&["get", "--raw", "/openid/v1/jwks"]).await?;
    ensure!(keys.contains(r#""kty":"RSA""#) && keys.contains(r#""alg":"RS256""#), "{keys}");
    let issuer = cluster.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]).await?;
    ensure!(issuer.contains("https://kubernetes.default.svc.cluster.local"), "{issuer}");
    let namespace = cluster.namespace("claims", &[]).await?;
    let token = cluster.kubectl(&["-n", namespace.name(), "create", "token", "default"]).await?;
    ensure!(token.trim().split('.').count() == 3, "a token has three parts");
    ensure!(cluster.helm(&["version", "--short"]).await?.starts_with("v4."), "Helm 4 runs");
    namespace.finish()?;
    drop(cluster);
    nothing_is_left(&record)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_planes_stand_side_by_side() -> Result<()> {
    let (one, other) =
        tokio::try_join!(Cluster::start(Tier::ControlPlane), Cluster::start(Tier::ControlPlane))?;
    let manifest =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-here"}}).to_string();
    one.kubectl_stdin(&["apply", "-f", "-"], &manifest).await?;
    ensure!(one.kubectl(&["get", "namespace", "only-here"]).await.is_ok(), "it is where it was made");
    let missing = other.kubectl(&["get", "namespace", "only-here"]).await;
    ensure!(missing.is_err_and(|error| error.to_string().contains("NotFound")), "and nowhere else");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_runs_a_job_with_a_native_sidecar_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(Tier::Node).await?;
    let record = record_of(&cluster)?;
    cluster.load_image(&Tools::find()?.clients_archive()).await?;
    let namespace =
        cluster.namespace("sidecar", &[("pod-security.kubernetes.io/enforce", "restricted")]).await?;
    let jobs: Api<Job> = Api::namespaced(cluster.client(), namespace.name());
    jobs.create(&PostParams::default(), &job_with_sidecar()?).await?;
    let job = wait::wait_for(jobs, "talker", wait::has_ended, PATIENCE).await?;
    ensure!(wait::is_complete(&job), "the Job failed; {}", namespace.report());
    let log = cluster.kubectl(&["-n", namespace.name(), "logs", "job/talker", "-c", "app"]).await?;
    ensure!(log.contains("heard: hello from port 25"), "{log}");
    ensure!(log.contains("kubernetes is 10.79."), "{log}");
    namespace.finish()?;
    drop(cluster);
    nothing_is_left(&record)
}

#[tokio::test(flavor = "multi_thread")]
async fn node_loses_its_power_beside_one_that_does_not_and_nothing_is_left() -> Result<()> {
    let cluster = Cluster::start(Tier::TwoNodes).await?;
    let record = record_of(&cluster)?;
    let description = cluster.description().context("a cluster of this harness")?.clone();
    let [first, second] = description.containerd.as_slice() else { bail!("{:?}", description.containerd) };
    ensure!(UnixStream::connect(first).is_ok() && UnixStream::connect(second).is_ok(), "both nodes run");
    member::kill_second(&description)?;
    ensure!(UnixStream::connect(first).is_ok() && UnixStream::connect(second).is_err(), "one runs");
    cluster.kubectl(&["get", "--raw", "/api/v1/nodes/node/proxy/healthz"]).await?;
    drop(cluster);
    nothing_is_left(&record)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_is_gone_after_its_starter_was_killed() -> Result<()> {
    let follow = "echo $MAILROUTE_KUBECONFIG; exec tail -f $MAILROUTE_KUBECONFIG";
    let mut starter = run_command(&["sh", "-c", follow])?;
    let kubeconfig = first_line(&mut starter)?;
    let record = record_at(Path::new(&kubeconfig))?;
    starter.kill()?;
    starter.wait()?;
    until_dead(record.clone()).await?;
    nothing_is_left(&record)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_whose_supervisor_was_killed_is_swept() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    let record = record_of(&cluster)?;
    signal(record.supervisor, Signal::KILL)?;
    until_dead(record.clone()).await?;
    // Another test's start sweeps as well; either way it must be gone.
    record::sweep()?;
    nothing_is_left(&record)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_interrupted_while_it_starts_leaves_nothing() -> Result<()> {
    type Stage = fn(&Record) -> PathBuf;
    let stages: [Stage; 4] = [
        |record| record.folder(),
        |record| record.namespace(),
        |record| record.file("logs/etcd.log"),
        |record| record.file("logs/kube-apiserver.log"),
    ];
    for stage in stages {
        let mut starter = run_command(&["true"])?;
        let record = started_by(&mut starter, stage)?;
        signal(starter.id(), Signal::INT)?;
        // A second one, impatient, must not cut the first one's cleaning short.
        signal(record.supervisor, Signal::INT)?;
        let status = starter.wait()?;
        ensure!(matches!(status.code(), Some(130 | 1)), "{status}");
        nothing_is_left(&record)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_run_passes_the_exit_code_on() -> Result<()> {
    let mut run = run_command(&["sh", "-c", "exit 7"])?;
    ensure!(run.wait()?.code() == Some(7), "the command's exit code");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_control_plane_stays_until_it_is_taken_down() -> Result<()> {
    let name = format!("kept-{}", std::process::id());
    let up = command(&["up", "--tier", "control-plane", "--name", &name]).output()?;
    ensure!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let kubeconfig = PathBuf::from(String::from_utf8(up.stdout)?.trim());
    let record = record_at(&kubeconfig)?;
    let cluster = Cluster::from_kubeconfig(&kubeconfig).await?;
    ensure!(cluster.kubectl(&["get", "--raw", "/readyz"]).await? == "ok", "it answers");
    drop(cluster);
    let again = command(&["up", "--tier", "control-plane", "--name", &name]).output()?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(!again.status.success() && said.contains("up already"), "{said}");
    ensure!(command(&["down", "--name", &name]).status()?.success(), "it goes down");
    nothing_is_left(&record)
}

/// A sidecar that listens on port 25 as an ordinary user, and an application that hears it, and the cluster's names.
fn job_with_sidecar() -> Result<Job> {
    let image = concat!("mailroute.dev/clients:", env!("CARGO_PKG_VERSION"));
    let confined = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let listen = "import socketserver as s\n\
        class H(s.BaseRequestHandler):\n    def handle(self): self.request.sendall(b'hello from port 25')\n\
        s.TCPServer(('127.0.0.1', 25), H).serve_forever()";
    let talk = "import socket\n\
        print('heard:', socket.create_connection(('localhost', 25)).recv(99).decode())\n\
        print('kubernetes is', socket.gethostbyname('kubernetes.default.svc'))";
    let probe =
        json!({"exec": {"command": ["python3", "-c", talk]}, "periodSeconds": 1, "timeoutSeconds": 5});
    let container = |name: &str, script: &str| json!({"name": name, "image": image, "command": ["python3", "-c", script], "securityContext": confined});
    let mut sidecar = container("sidecar", listen);
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = probe;
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "talker"},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "initContainers": [sidecar],
            "containers": [container("app", talk)],
        }}},
    }))?)
}

/// Everything of a cluster that can be seen from outside.
fn nothing_is_left(record: &Record) -> Result<()> {
    let mut left: Vec<String> = Vec::new();
    let interface = Path::new("/sys/class/net").join(record.network.interface());
    let unused = record::list()?.iter().all(|other| other.network != record.network);
    for path in [record.folder(), record.state.clone()] {
        left.extend(path.exists().then(|| path.display().to_string()));
    }
    left.extend((unused && interface.exists()).then(|| interface.display().to_string()));
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.filter_map(Result::ok) {
        let cgroup = hierarchy.path().join(record.cgroup());
        left.extend(cgroup.exists().then(|| cgroup.display().to_string()));
    }
    let (state, folder) = (record.state.display().to_string(), record.folder().display().to_string());
    let is_mine = |text: &&str| {
        text.split([' ', '\0', '=', '/']).any(|word| Some(word) == state.rsplit('/').next())
            || text.contains(&folder)
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    left.extend(mounts.lines().filter(is_mine).map(str::to_owned));
    for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        left.extend(Some(line.as_str()).filter(is_mine).map(str::to_owned));
    }
    ensure!(left.is_empty(), "cluster {} has left behind: {left:#?}", record.name);
    Ok(())
}

fn record_of(cluster: &Cluster) -> Result<Record> {
    record_at(cluster.kubeconfig())
}

fn record_at(kubeconfig: &Path) -> Result<Record> {
    let found = record::list()?.into_iter().find(|record| record.kubeconfig() == kubeconfig);
    found.with_context(|| format!("no cluster has the kubeconfig {}", kubeconfig.display()))
}

/// Waits for the supervisor's death, which its lock tells.
async fn until_dead(record: Record) -> Result<()> {
    let dead = tokio::task::spawn_blocking(move || record::wait_until_dead(&record));
    tokio::time::timeout(PATIENCE, dead).await.context("the supervisor lives on")??
}

/// Waits until the cluster that a `cluster run` starts has come to a stage, which a file tells.
fn started_by(starter: &mut Child, stage: fn(&Record) -> PathBuf) -> Result<Record> {
    let (name, deadline) = (format!("run-{}", starter.id()), Instant::now() + PATIENCE);
    loop {
        ensure!(Instant::now() < deadline, "the start does not come this far");
        ensure!(starter.try_wait()?.is_none(), "the start ended before it was interrupted");
        let found = record::list()?.into_iter().find(|record| record.name == name);
        if let Some(record) = found.filter(|record| stage(record).exists()) {
            return Ok(record);
        }
        // The file system tells nobody that a file has come.
        std::thread::yield_now();
    }
}

fn run_command(arguments: &[&str]) -> Result<Child> {
    let mut run = command(&["run", "--tier", "control-plane", "--"]);
    Ok(run.args(arguments).stdout(Stdio::piped()).spawn()?)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn first_line(child: &mut Child) -> Result<String> {
    let output = child.stdout.as_mut().context("the output is a pipe")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn signal(process: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(process.cast_signed()).context("a process id is not zero")?;
    Ok(kill_process(pid, signal)?)
}

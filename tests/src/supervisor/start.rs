//! The order in which a cluster comes up, and how each step is known to be done.
//!
//! A step ends with a connection that is accepted, an answer, or a watched object; a program that ends meanwhile ends
//! the start with its last words. It can be dropped at any moment: what it made is in the record's folders, in its
//! network namespace and cgroup, where [`super::teardown`] finds it.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hyper::http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use super::certificates::{Certificates, Pair};
use super::member::Member;
use super::process::Programs;
use super::record::Record;
use super::{Message, cgroup, network, programs, settings, tell};
use crate::cluster;
use crate::description::{Description, Tier};
use crate::images;
use crate::tools::{Tools, search_path};
use crate::wait::wait_for;

/// A step takes seconds; on a machine that does much else at once, some tens of them.
const STEP: Duration = Duration::from_secs(120);

/// How often a program that is not up yet is knocked at: there is nothing to watch before it answers.
const KNOCK: Duration = Duration::from_millis(50);

/// Brings a cluster up and describes it.
///
/// # Errors
/// When a step fails, with what the program at fault said last.
pub async fn start(record: &Record, programs: &mut Programs) -> Result<Description> {
    let begun = Instant::now();
    let tools = Tools::find()?;
    fs::create_dir_all(record.file("images"))?;
    mount_memory(&record.memory())?;
    network::make(record.network, &record.namespace()).context("cannot make the cluster's network")?;
    let certificates = Certificates::make(record.network)?;
    write_files(record, &certificates).await?;
    control_plane(&tools, record, programs).await?;
    if record.tier != Tier::ControlPlane {
        nodes(&tools, record, programs).await?;
    }
    let description = describe(record);
    fs::write(record.file(Description::FILE), serde_json::to_vec_pretty(&description)?)?;
    say(record, "up", begun);
    Ok(description)
}

/// A file system in memory for what is big and short-lived: the database and the unpacked images. Thousands of files are
/// gone with it at once, where some disks take milliseconds for each. Volumes of pods stay on the disk: memory that a pod
/// writes to would count against its limit.
fn mount_memory(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let options = Some(c"mode=0700");
    mount("mailroute-e2e", folder, "tmpfs", MountFlags::empty(), options)
        .with_context(|| format!("cannot mount a tmpfs on {}", folder.display()))
}

fn describe(record: &Record) -> Description {
    Description {
        name: record.name.clone(),
        tier: record.tier,
        kubeconfig: record.kubeconfig(),
        server: settings::server(record),
        state: record.state.clone(),
        host: record.network.host(),
        node: record.node(),
        containerd: Member::of(record.tier).iter().map(|member| member.containerd(record)).collect(),
    }
}

/// etcd and what serves and tends the API. On a node containerd starts at the same time: it needs neither.
async fn control_plane(tools: &Tools, record: &Record, programs: &mut Programs) -> Result<()> {
    let begun = Instant::now();
    programs.start(&programs::etcd(record))?;
    programs.start(&programs::apiserver(tools, record))?;
    for member in Member::of(record.tier) {
        cgroup::make(&member.cgroup(record))?;
        programs.start(&programs::containerd(record, *member))?;
    }
    let client = cluster::client(&record.kubeconfig()).await?;
    step(programs, "kube-apiserver is not ready", api_is_ready(&client)).await?;
    programs.start(&programs::controller_manager(tools, record))?;
    say(record, "kube-apiserver ready", begun);
    Ok(())
}

async fn nodes(tools: &Tools, record: &Record, programs: &mut Programs) -> Result<()> {
    let begun = Instant::now();
    for member in Member::of(record.tier) {
        let socket = member.containerd(record);
        step(programs, "containerd does not answer", knock(|| UnixStream::connect(&socket))).await?;
        images::import(&socket, &tools.pause_archive()).await?;
        programs.start(&programs::kubelet(tools, record, *member))?;
    }
    programs.start(&programs::scheduler(tools, record))?;
    programs.start(&programs::proxy(tools, record))?;
    programs.start(&programs::coredns(tools, record))?;
    let client = cluster::client(&record.kubeconfig()).await?;
    for member in Member::of(record.tier) {
        let node = wait_for(Api::<Node>::all(client.clone()), member.name(), is_ready, STEP);
        step(programs, "the node is not ready", node).await??;
    }
    let names = SocketAddr::from((record.node(), 53));
    step(programs, "CoreDNS does not answer", knock(|| TcpStream::connect(names))).await?;
    say(record, "node ready", begun);
    Ok(())
}

/// Waits for a step, but no longer than a program lives and no longer than is sensible.
async fn step<T>(programs: &mut Programs, what: &str, done: impl Future<Output = T>) -> Result<T> {
    let in_time = tokio::time::timeout(STEP, done);
    tokio::select! {
        outcome = in_time => outcome.with_context(|| format!("{what} after {STEP:?}")),
        ended = programs.first_to_end() => match ended {
            Err(error) => Err(error),
            Ok(()) => bail!("{what}"),
        },
    }
}

/// Tries to connect until something accepts.
async fn knock<T, F: Future<Output = io::Result<T>>>(connect: impl Fn() -> F) {
    let mut moments = tokio::time::interval(KNOCK);
    loop {
        moments.tick().await;
        if connect().await.is_ok() {
            return;
        }
    }
}

/// Asks the API server until it calls itself ready, which includes its default roles.
async fn api_is_ready(client: &Client) {
    let mut moments = tokio::time::interval(KNOCK);
    loop {
        moments.tick().await;
        let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return };
        if client.request_text(request).await.is_ok_and(|answer| answer == "ok") {
            return;
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    // The taint of a node that was not ready keeps pods away until it is taken off.
    ready && node.spec.as_ref().is_none_or(|spec| spec.taints.as_ref().is_none_or(Vec::is_empty))
}

/// Everything that the programs read.
async fn write_files(record: &Record, certificates: &Certificates) -> Result<()> {
    certificates.write(&record.file("pki"))?;
    service_account_key(&record.file("pki/service-account.key")).await?;
    let server = settings::server(record);
    let authority = &certificates.authority.pair.certificate;
    fs::create_dir_all(Member::Second.file(record, ""))?;
    let [first, second] = &certificates.kubelets;
    let users: [(&str, &Pair); 6] = [
        ("kubeconfig", &certificates.admin),
        ("kube-controller-manager.kubeconfig", &certificates.controller_manager),
        ("kube-scheduler.kubeconfig", &certificates.scheduler),
        ("kube-proxy.kubeconfig", &certificates.proxy),
        ("kubelet.kubeconfig", first),
        ("node-2/kubelet.kubeconfig", second),
    ];
    for (file, user) in users {
        let content = settings::kubeconfig(&server, authority, user);
        super::certificates::write_private(&record.file(file), &format!("{content:#}\n"))?;
    }
    for member in Member::of(record.tier) {
        write_json(&member.file(record, "kubelet.json"), &settings::kubelet(record, *member))?;
        fs::write(member.file(record, "containerd.toml"), settings::containerd(record, *member))?;
    }
    write_json(&record.file("kube-proxy.json"), &settings::proxy(record))?;
    fs::create_dir_all(record.file("cni"))?;
    write_json(&record.file("cni/10-pods.conflist"), &settings::pod_network(record))?;
    fs::write(record.file("Corefile"), settings::coredns(record))?;
    fs::write(record.file("resolv.conf"), format!("nameserver {}\n", record.node()))?;
    Ok(())
}

/// The key that signs ServiceAccount tokens: RSA, because Entra takes RS256 only.
async fn service_account_key(path: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["genrsa", "-out"]).arg(path).arg("2048").env("PATH", search_path());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output =
        command.output().await.context("cannot run openssl; `tests/cluster/setup cluster` installs it")?;
    if !output.status.success() {
        bail!("openssl cannot make a key: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn say(record: &Record, what: &str, since: Instant) {
    let text = format!("cluster {}: {what} after {:.1} s", record.name, since.elapsed().as_secs_f32());
    tell(&Message::Progress(text));
}

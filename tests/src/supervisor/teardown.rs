//! Removing a cluster: every process, mount, cgroup, interface and file, from its record alone.
//!
//! It may be called at any moment of a cluster's life and more than once. Processes are found by where they are (the
//! cluster's network namespace, its cgroup), not by who started them, so shims and containers that outlived their
//! parents are found too. Nothing is asked to stop politely: the cluster is thrown away.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use super::record::Record;
use super::{cgroup, network};

/// Killed processes are gone within milliseconds; one that waits for a disk may take seconds.
const DEATH: Duration = Duration::from_secs(20);

/// How often the machine is asked whether the killed are gone: they are not this program's children, so there is no end
/// to wait for.
const LOOK: Duration = Duration::from_millis(10);

/// Removes all of a cluster but its record.
///
/// # Errors
/// When something resists; what came before it is gone, and another call goes on.
pub fn teardown(record: &Record) -> Result<()> {
    kill_all(|| processes(record))?;
    remove_shim_sockets(&record.state);
    unmount_below(&record.state)?;
    remove_cgroup(&record.cgroup())?;
    remove_links(Path::new("/var/log/containers"), &record.state);
    network::remove(record.network, &record.namespace())?;
    remove_network_cache(&record.cgroup());
    match fs::remove_dir_all(&record.state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", record.state.display()))
        }
        _ => Ok(()),
    }
}

/// Kills what `found` finds until it finds nothing more.
///
/// # Errors
/// When something does not die, or cannot be looked for.
pub(super) fn kill_all(found: impl Fn() -> Result<BTreeSet<i32>>) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    loop {
        let alive = found()?;
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {alive:?} do not die");
        }
        for pid in alive.into_iter().filter_map(Pid::from_raw) {
            // One that is gone by now is what is wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(LOOK);
    }
}

/// The processes of this machine, each with its folder in `/proc`.
pub(super) fn all_processes() -> Result<impl Iterator<Item = (i32, PathBuf)>> {
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    Ok(entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))))
}

/// Every process in the cluster's cgroup or network namespace.
fn processes(record: &Record) -> Result<BTreeSet<i32>> {
    let mut found = cgroup::processes(&record.cgroup())?;
    let Ok(namespace) = fs::metadata(record.namespace()) else { return Ok(found) };
    for (pid, folder) in all_processes()? {
        let Ok(own) = fs::metadata(folder.join("ns/net")) else { continue };
        if (own.dev(), own.ino()) == (namespace.dev(), namespace.ino()) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// containerd keeps the sockets of its shims in one folder for the whole machine; each task's folder names its own.
fn remove_shim_sockets(state: &Path) {
    let tasks = ["containerd", "node-2/containerd"]
        .map(|folder| state.join(folder).join("run/io.containerd.runtime.v2.task/k8s.io"));
    for task in tasks.iter().filter_map(|tasks| fs::read_dir(tasks).ok()).flatten().filter_map(Result::ok) {
        let address = fs::read_to_string(task.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
}

fn unmount_below(state: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for point in below(&mounts, state) {
        unmount(&point, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// The mount points below a folder, the last mounted first.
fn below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    found.reverse();
    found
}

/// A cgroup stays busy for a moment after its last process.
fn remove_cgroup(name: &str) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    loop {
        match cgroup::remove(name) {
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(LOOK),
            Ok(()) => return Ok(()),
        }
    }
}

/// The kubelet links every container's log from a folder that all kubelets share.
fn remove_links(folder: &Path, state: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(state)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The library that calls CNI plug-ins remembers what they answered in a folder for the whole machine, one file for each
/// network of each sandbox.
fn remove_network_cache(network: &str) {
    let folder = Path::new("/var/lib/cni/results");
    let files =
        || fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sandboxes: Vec<String> = files().filter_map(|path| sandbox_of(network, &name(&path))).collect();
    for path in files().filter(|path| sandboxes.iter().any(|sandbox| name(path).contains(sandbox))) {
        let _ = fs::remove_file(path);
    }
}

/// The sandbox in a file name made of network, sandbox (64 hexadecimal digits) and interface; a network's name may begin
/// another's.
fn sandbox_of(network: &str, file: &str) -> Option<String> {
    let sandbox = file.strip_prefix(network)?.strip_prefix('-')?.get(..64)?;
    sandbox.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| sandbox.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_answer_belongs_to_the_network_with_exactly_that_name() {
        let sandbox = "0a".repeat(32);
        assert_eq!(sandbox_of("e2e-demo", &format!("e2e-demo-{sandbox}-eth0")), Some(sandbox.clone()));
        assert_eq!(sandbox_of("e2e-demo", &format!("e2e-demo-2-{sandbox}-eth0")), None);
    }

    #[test]
    fn inner_mounts_come_before_the_ones_around_them_and_neighbours_stay() {
        let mountinfo = "1 0 8:1 / / rw - ext4 a rw\n\
                         2 1 0:3 / /tmp/one rw - tmpfs t rw\n\
                         3 2 0:4 / /tmp/one/two rw - tmpfs t rw\n\
                         4 1 0:5 / /tmp/one-more rw - tmpfs t rw\n";
        let found = below(mountinfo, Path::new("/tmp/one"));
        assert_eq!(found, [PathBuf::from("/tmp/one/two"), PathBuf::from("/tmp/one")]);
    }
}

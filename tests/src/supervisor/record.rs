//! The clusters of this machine: one folder each under [`REGISTRY`], written before anything else of a cluster exists.
//!
//! A cluster's supervisor holds a lock on the file `alive` for as long as it lives; the kernel drops that lock with the
//! process, so a record whose lock is free is what a killed supervisor left. Claims are made one at a time.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::network::{self, Network};
use super::{sysctl, teardown};
use crate::description::{Family, Tier};

/// Where the records are.
pub const REGISTRY: &str = "/run/mailroute-e2e";

/// What has to be known of a cluster to remove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name among the clusters of this machine; also of its cgroup.
    pub name: String,
    /// How much of Kubernetes it is.
    pub tier: Tier,
    /// The supervisor.
    pub supervisor: u32,
    /// All files of the cluster, the programs' data among them.
    pub state: PathBuf,
    /// Its addresses.
    pub network: Network,
}

impl Record {
    /// The folder of this record.
    pub fn folder(&self) -> PathBuf {
        folder(&self.name)
    }

    /// The file that keeps the network namespace.
    pub fn namespace(&self) -> PathBuf {
        self.folder().join("net")
    }

    /// Name of the cgroup that holds every pod.
    pub fn cgroup(&self) -> String {
        Self::cgroup_of(&self.name)
    }

    /// The same of a cluster with this name.
    pub fn cgroup_of(name: &str) -> String {
        format!("mailroute-e2e-{name}")
    }

    /// The kubeconfig for people and tests.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// A file of the cluster.
    pub fn file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The part of the state that is kept in memory.
    pub fn memory(&self) -> PathBuf {
        self.file("memory")
    }

    /// Address of the node.
    pub fn node(&self) -> IpAddr {
        self.network.node()
    }
}

/// A record that is one's own to use: its lock is held until it is released or the process ends.
#[derive(Debug)]
pub struct Claim {
    record: Record,
    _alive: File,
}

impl Claim {
    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Removes the record of a cluster of which nothing is left.
    ///
    /// # Errors
    /// When the folder cannot be removed or a kernel setting cannot be put back.
    pub fn release(self) -> Result<()> {
        let _registry = locked_registry()?;
        forget(&self.record)
    }
}

/// Claims a name and a free subnet for a cluster about to be started, after removing what killed supervisors left.
///
/// # Errors
/// When a cluster of that name is up, or the name is not one that fits a file, a cgroup and a person.
pub fn claim(name: &str, tier: Tier, family: Family) -> Result<Claim> {
    ensure!(is_name(name), "`{name}` cannot be a cluster's name: use up to 40 of a-z, 0-9 and `-`");
    let _registry = locked_registry()?;
    sweep_locked()?;
    ensure!(
        !folder(name).exists(),
        "a cluster {name} is up already: use it, or end it with `cluster down --name {name}`"
    );
    let taken: Vec<Network> = list()?.into_iter().map(|record| record.network).collect();
    let network = network::free(family, &taken)?;
    let state = std::env::temp_dir().join(format!("mailroute-e2e-{name}"));
    let record = Record { name: name.to_owned(), tier, supervisor: process::id(), state, network };
    fs::create_dir_all(record.folder())?;
    let alive = File::create(record.folder().join("alive"))?;
    alive.lock()?;
    fs::write(record.folder().join("record.json"), serde_json::to_vec_pretty(&record)?)?;
    if tier != Tier::ControlPlane {
        sysctl::save(Path::new(REGISTRY))?;
    }
    Ok(Claim { record, _alive: alive })
}

/// Every cluster of this machine, up or left behind.
///
/// # Errors
/// When the registry cannot be read.
pub fn list() -> Result<Vec<Record>> {
    let entries = match fs::read_dir(REGISTRY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(REGISTRY),
    };
    let mut records: Vec<Record> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| fs::read(entry.path().join("record.json")).ok())
        .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
        .collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(records)
}

/// Whether a record's supervisor lives.
///
/// # Errors
/// When the lock cannot be asked.
pub fn is_alive(record: &Record) -> Result<bool> {
    Ok(lock_of_the_dead(record)?.is_none())
}

/// Waits until the supervisor of a record is gone. What it left, if anything, is for [`sweep`].
///
/// # Errors
/// When the lock cannot be asked.
pub fn wait_until_dead(record: &Record) -> Result<()> {
    match File::open(record.folder().join("alive")) {
        Ok(alive) => alive.lock().context("cannot wait for the supervisor's lock"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("cannot open the supervisor's lock"),
    }
}

/// Removes what is left of clusters whose supervisors are dead, and returns their names.
///
/// # Errors
/// When something resists.
pub fn sweep() -> Result<Vec<String>> {
    let _registry = locked_registry()?;
    sweep_locked()
}

fn sweep_locked() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for record in list()? {
        if let Some(_alive) = lock_of_the_dead(&record)? {
            teardown::teardown(&record)
                .with_context(|| format!("what is left of cluster {}", record.name))?;
            forget(&record)?;
            swept.push(record.name);
        }
    }
    Ok(swept)
}

/// Removes a record, and with the last node's what was saved for it. The registry is locked by the caller.
fn forget(record: &Record) -> Result<()> {
    fs::remove_dir_all(record.folder())?;
    if !list()?.iter().any(|other| other.tier != Tier::ControlPlane) {
        sysctl::restore(Path::new(REGISTRY))?;
    }
    Ok(())
}

/// The lock of a record whose supervisor is dead; none when it lives.
fn lock_of_the_dead(record: &Record) -> Result<Option<File>> {
    let alive = File::create(record.folder().join("alive"))?;
    match alive.try_lock() {
        Ok(()) => Ok(Some(alive)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => bail!("cannot lock {}: {error}", record.folder().display()),
    }
}

fn locked_registry() -> Result<File> {
    fs::create_dir_all(REGISTRY).with_context(|| format!("cannot make {REGISTRY}"))?;
    let file = File::create(Path::new(REGISTRY).join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn folder(name: &str) -> PathBuf {
    Path::new(REGISTRY).join(name)
}

fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name_and_nothing_else() {
        assert!(is_name("demo") && is_name("test-123-0"));
        for wrong in ["", "-a", "a/b", "..", "Demo", "a b", &"a".repeat(41)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}

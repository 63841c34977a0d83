//! The nodes of a cluster. They share its network namespace, its node address and the range of its pods' addresses; each has
//! folders, a cgroup and ports of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use super::record::Record;
use super::teardown::{all_processes, kill_all};
use crate::description::{Description, Tier};
use anyhow::{Result, bail};

/// Folder of the second node in the cluster's.
const SECOND: &str = "node-2";

/// What is added to the ports of the second node.
const OTHER_PORTS: u16 = 10_000;

/// One of the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The node of every cluster that runs pods.
    First,
    /// The other of [`Tier::TwoNodes`]. It may be killed.
    Second,
}

impl Member {
    /// The nodes of a tier.
    pub const fn of(tier: Tier) -> &'static [Self] {
        match tier {
            Tier::ControlPlane => &[],
            Tier::Node => &[Self::First],
            Tier::TwoNodes => &[Self::First, Self::Second],
        }
    }

    /// Name of the Node object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "node",
            Self::Second => SECOND,
        }
    }

    /// The names of its kubelet and containerd among the programs.
    pub const fn programs(self) -> (&'static str, &'static str) {
        match self {
            Self::First => ("kubelet", "containerd"),
            Self::Second => ("kubelet-2", "containerd-2"),
        }
    }

    /// A file or folder of its own.
    pub fn file(self, record: &Record, name: &str) -> PathBuf {
        match self {
            Self::First => record.file(name),
            Self::Second => record.file(SECOND).join(name),
        }
    }

    /// Its folder in memory.
    pub fn memory(self, record: &Record) -> PathBuf {
        match self {
            Self::First => record.memory(),
            Self::Second => record.memory().join(SECOND),
        }
    }

    /// The socket of its containerd.
    pub fn containerd(self, record: &Record) -> PathBuf {
        self.file(record, "containerd.sock")
    }

    /// The cgroup of its pods, below that of the cluster.
    pub fn cgroup(self, record: &Record) -> String {
        match self {
            Self::First => record.cgroup(),
            Self::Second => format!("{}/{SECOND}", record.cgroup()),
        }
    }

    /// The port on which it listens for what usually has this one.
    pub const fn port(self, usual: u16) -> u16 {
        match self {
            Self::First => usual,
            Self::Second => usual + OTHER_PORTS,
        }
    }
}

/// Ends the second node as a power cut would: kubelet, containerd and every process of its pods, by SIGKILL.
///
/// # Errors
/// When there is no second node, or something does not die.
pub fn kill_second(cluster: &Description) -> Result<()> {
    let folder = cluster.state.join(SECOND);
    if !folder.exists() {
        bail!("cluster {} has no second node", cluster.name);
    }
    let cgroup = format!("{}/{SECOND}", Record::cgroup_of(&cluster.name));
    kill_all(|| {
        let mut found = cgroup::processes(&cgroup)?;
        found.extend(started_from(&folder)?);
        Ok(found)
    })
}

/// The processes with an argument below a folder: kubelet, containerd and its shims.
fn started_from(folder: &Path) -> Result<Vec<i32>> {
    let folder = format!("{}/", folder.display());
    let is_from = |(_, own): &(i32, PathBuf)| {
        let line = fs::read(own.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&folder)
    };
    Ok(all_processes()?.filter(is_from).map(|(pid, _)| pid).collect())
}

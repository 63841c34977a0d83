//! The cgroup that holds the pods of one cluster, in every hierarchy of the machine: version 1, version 2 or both.
//!
//! Each kubelet needs a root of its own; two that share one remove each other's pods as orphans.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes the cgroup in every hierarchy.
///
/// # Errors
/// When a hierarchy is read-only.
pub fn make(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        // A version 1 cpuset takes no process before it has processors and memory nodes.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let inherited = fs::read_to_string(hierarchy.join(file)).unwrap_or_default();
            if !inherited.trim().is_empty() && folder.join(file).exists() {
                fs::write(folder.join(file), inherited.trim())?;
            }
        }
    }
    Ok(())
}

/// Every process in the cgroup or below it.
///
/// # Errors
/// When the mounts of this machine cannot be read.
pub fn processes(name: &str) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies()? {
        for folder in deepest_first(&hierarchy.join(name)) {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    Ok(found)
}

/// Removes the cgroup and all below it; no process may be left in it.
///
/// # Errors
/// When one is still busy.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        for folder in deepest_first(&hierarchy.join(name)) {
            match fs::remove_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot remove the cgroup {}", folder.display()));
                }
            }
        }
    }
    Ok(())
}

/// Where the hierarchies are mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read this machine's mounts")?;
    Ok(parse(&mounts).into_iter().filter(|path| path.starts_with("/sys/fs/cgroup")).collect())
}

/// Mount points of type `cgroup` or `cgroup2`: the fifth field, where the type follows the lone dash (proc(5)).
fn parse(mountinfo: &str) -> BTreeSet<PathBuf> {
    let cgroup = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        matches!(kind, "cgroup" | "cgroup2").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    };
    mountinfo.lines().filter_map(cgroup).collect()
}

/// A folder and all below it, children before parents; nothing when it is not there.
fn deepest_first(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let children =
        entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = children.flat_map(|entry| deepest_first(&entry.path())).collect();
    all.push(folder.to_owned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_among_other_mounts() {
        let mountinfo = "22 1 0:20 / /proc rw - proc proc rw\n\
                         30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                         31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = parse(mountinfo).into_iter().collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup/cpu"), PathBuf::from("/sys/fs/cgroup/unified")]);
    }
}

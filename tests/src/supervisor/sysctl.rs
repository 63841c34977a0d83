//! The kernel's settings that a kubelet changes for the whole machine: saved before the first node, put back after the
//! last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What a kubelet sets at its start, as files under `/proc/sys`.
const SETTINGS: [&str; 6] = [
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Saves the settings in a folder, unless an earlier node has.
///
/// # Errors
/// When they cannot be written down.
pub fn save(folder: &Path) -> Result<()> {
    let file = saved(folder);
    if file.exists() {
        return Ok(());
    }
    let values: BTreeMap<&str, String> = SETTINGS
        .into_iter()
        .filter_map(|setting| Some((setting, fs::read_to_string(Path::new("/proc/sys").join(setting)).ok()?)))
        .collect();
    fs::write(file, serde_json::to_vec(&values)?).context("cannot save the kernel's settings")
}

/// Puts the saved settings back and forgets them.
///
/// # Errors
/// When the kernel refuses one.
pub fn restore(folder: &Path) -> Result<()> {
    let file = saved(folder);
    let Ok(bytes) = fs::read(&file) else { return Ok(()) };
    let values: BTreeMap<String, String> = serde_json::from_slice(&bytes)?;
    for (setting, value) in values {
        let path = Path::new("/proc/sys").join(&setting);
        if fs::read_to_string(&path).ok().as_ref() != Some(&value) {
            fs::write(&path, &value)
                .with_context(|| format!("cannot put {setting} back to {}", value.trim()))?;
        }
    }
    Ok(fs::remove_file(file)?)
}

fn saved(folder: &Path) -> PathBuf {
    folder.join("sysctls.json")
}

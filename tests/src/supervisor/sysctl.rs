//! The kernel's settings that a kubelet changes for the whole machine: saved before the first node, put back after the
//! last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where the kernel shows its settings as files.
const KERNEL: &str = "/proc/sys";

/// What a kubelet sets at its start.
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
    save_from(Path::new(KERNEL), folder)
}

/// Puts the saved settings back and forgets them.
///
/// # Errors
/// When the kernel refuses one.
pub fn restore(folder: &Path) -> Result<()> {
    restore_to(Path::new(KERNEL), folder)
}

fn save_from(kernel: &Path, folder: &Path) -> Result<()> {
    let file = saved(folder);
    if file.exists() {
        return Ok(());
    }
    let values: BTreeMap<&str, String> = SETTINGS
        .into_iter()
        .filter_map(|setting| Some((setting, fs::read_to_string(kernel.join(setting)).ok()?)))
        .collect();
    fs::write(file, serde_json::to_vec(&values)?).context("cannot save the kernel's settings")
}

fn restore_to(kernel: &Path, folder: &Path) -> Result<()> {
    let file = saved(folder);
    let Ok(bytes) = fs::read(&file) else { return Ok(()) };
    let values: BTreeMap<String, String> = serde_json::from_slice(&bytes)?;
    for (setting, value) in values {
        let path = kernel.join(&setting);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(panic: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        fs::write(folder.path().join("kernel/panic"), panic).unwrap();
        folder
    }

    #[test]
    fn the_first_save_counts_and_is_put_back_once() {
        let (kernel, saved) = (kernel("1\n"), tempfile::tempdir().unwrap());
        let panic = kernel.path().join("kernel/panic");
        save_from(kernel.path(), saved.path()).unwrap();
        fs::write(&panic, "10\n").unwrap();
        save_from(kernel.path(), saved.path()).unwrap();
        restore_to(kernel.path(), saved.path()).unwrap();
        assert_eq!(fs::read_to_string(&panic).unwrap(), "1\n");
        fs::write(&panic, "7\n").unwrap();
        restore_to(kernel.path(), saved.path()).unwrap();
        assert_eq!(fs::read_to_string(&panic).unwrap(), "7\n", "nothing was saved any more");
    }
}

//! Loading image archives into a node's containerd.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::ctr;
use crate::description::Description;

/// Imports an archive unless it was imported before. Processes that load the same archive at once wait for the first.
///
/// # Errors
/// When the archive cannot be read or containerd refuses it.
pub async fn load(description: &Description, archive: &Path) -> Result<()> {
    if description.containerd.is_empty() {
        bail!("cluster {} is a control plane only: it has no node to put images on", description.name);
    }
    let mark = description.state.join("images").join(mark(archive)?);
    let lock = mark.with_extension("lock");
    let _held = tokio::task::spawn_blocking(move || locked(&lock)).await??;
    if !mark.exists() {
        for socket in &description.containerd {
            import(socket, archive).await?;
        }
        File::create(&mark)?;
    }
    Ok(())
}

/// Imports an archive.
///
/// # Errors
/// When the archive cannot be read or containerd refuses it.
pub async fn import(socket: &Path, archive: &Path) -> Result<()> {
    let arguments = [OsStr::new("images"), OsStr::new("import"), archive.as_os_str()];
    ctr::run(socket, &arguments).await.with_context(|| format!("cannot import {}", archive.display()))
}

/// A file name that changes when the archive does.
fn mark(archive: &Path) -> Result<String> {
    let metadata = fs::metadata(archive)
        .with_context(|| format!("no image archive {}: `make images`", archive.display()))?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = archive.file_stem().unwrap_or_default().to_string_lossy();
    Ok(format!("{name}-{}-{changed}", metadata.len()))
}

fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock()?;
    Ok(file)
}

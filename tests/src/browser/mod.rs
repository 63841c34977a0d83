//! A real headless Chromium, to see pages as a person sees them.
//!
//! `tests/cluster/setup` unpacked it in the cache; nothing is installed. Each [`Browser`] is a process of its own with a
//! profile of its own, driven over a pipe by the DevTools protocol, and ends with its last page.

mod page;
mod pipe;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

pub use self::page::{Key, Page};
use self::pipe::Pipe;
use crate::tools::browser;

/// How long one step may take while other tests have the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Chromium speaks by file descriptors 3 and 4. The shell gives it those that this program gave the shell as 0 and 1.
const BY_PIPE: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>&2"#;

/// What makes it quick and silent on a machine without a display; it asks no host but those that a test names.
const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    // It runs as root in a throw-away profile, and shows pages of the tests only.
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--force-color-profile=srgb",
    "--lang=en-GB",
];

/// A running browser.
pub struct Browser {
    pipe: Arc<Pipe>,
    child: Child,
    folder: TempDir,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not in the cache, or does not start.
    pub async fn start() -> Result<Self> {
        let chromium = browser()?;
        let folder = tempfile::tempdir()?;
        let mut child = command(&chromium, folder.path()).spawn().context("Chromium does not start")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let pipe = Pipe::new(input.context("a pipe was asked for")?, output.context("a pipe was asked for")?);
        let browser = Self { pipe: Arc::new(pipe), child, folder };
        let downloads = browser.downloads();
        let to = json!({"behavior": "allow", "downloadPath": downloads, "eventsEnabled": true});
        browser.pipe.call(None, "Browser.setDownloadBehavior", to).await?;
        Ok(browser)
    }

    /// Opens a page in a tab of its own, and waits until it is loaded.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn open(&self, address: &str) -> Result<Page> {
        let page = Page::new(Arc::clone(&self.pipe)).await?;
        page.go(address).await?;
        Ok(page)
    }

    /// The content of the next file that is downloaded under this name.
    ///
    /// # Errors
    /// When none is.
    pub async fn downloaded(&self, name: &str) -> Result<Vec<u8>> {
        let begun =
            self.pipe.event("Browser.downloadWillBegin", |event| event["suggestedFilename"] == name).await?;
        let done =
            |event: &serde_json::Value| event["guid"] == begun["guid"] && event["state"] == "completed";
        self.pipe.event("Browser.downloadProgress", done).await?;
        Ok(tokio::fs::read(self.downloads().join(name)).await?)
    }

    fn downloads(&self) -> PathBuf {
        self.folder.path().join("downloads")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The processes that it started are in its group, which it leads.
        let leader = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn command(chromium: &Path, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", BY_PIPE]).arg(chromium.join("chromium")).args(FLAGS);
    command.arg(format!("--user-data-dir={}", folder.join("profile").display())).arg("about:blank");
    command
        .env_clear()
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("LD_LIBRARY_PATH", chromium.join("lib"))
        .env("FONTCONFIG_FILE", chromium.join("fonts.conf"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

//! Children that nobody waits for.
//!
//! containerd's shims leave their parents on purpose, and what a killed shim held has no parent either. The supervisor
//! takes them all as its own, so that none stays behind as a zombie on a machine whose first process does not reap.

use std::fs;
use std::process;

use anyhow::Result;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// From now on descendants whose parent has died are children of this process.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt() -> Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps adopted children as they die, for ever. The given ones are not touched: they have someone who waits for them.
pub async fn reap_as_they_die(waited_for: &[u32]) -> Result<()> {
    let mut deaths = signal(SignalKind::child())?;
    loop {
        for pid in dead_children().into_iter().filter(|pid| !waited_for.contains(pid)) {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        deaths.recv().await;
    }
}

/// Reaps every child that is dead, at the end, when nobody waits for one any more.
pub fn reap_all() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn dead_children() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    entries.filter_map(status).filter_map(|line| dead_child_of(process::id(), &line)).collect()
}

/// The process of a line of `/proc/PID/stat`, when it is dead and this one's child. The name before the state may hold
/// blanks and parentheses (proc(5)), so the last parenthesis counts.
fn dead_child_of(parent: u32, stat: &str) -> Option<u32> {
    let (before, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let dead = fields.next()? == "Z";
    let mine = fields.next()?.parse() == Ok(parent);
    (dead && mine).then(|| before.split(' ').next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_child_is_told_from_living_and_foreign_ones_whatever_its_name() {
        assert_eq!(dead_child_of(7, "42 (a) Z (b) Z 7 1 1 0"), Some(42));
        assert_eq!(dead_child_of(7, "42 (sh) S 7 1 1 0"), None);
        assert_eq!(dead_child_of(7, "42 (sh) Z 8 1 1 0"), None);
        assert_eq!(dead_child_of(7, ""), None);
    }
}

//! What processes use, from `/proc`: processor time and memory of a program and of all that it started.

use std::collections::BTreeMap;

/// Processor time and memory of one program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Seconds on a processor, in user and system mode.
    pub seconds: f64,
    /// Memory in RAM, bytes. What several processes share is counted once between them.
    pub bytes: u64,
}

/// What the program with this process id and its descendants have used until now; of those that ended, too.
pub fn used(root: u32) -> Used {
    let processes = processes();
    let mut total = Used::default();
    for (&pid, process) in &processes {
        if is_descendant(pid, root, &processes) {
            total.seconds += process.ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            total.bytes += proportional_bytes(pid);
        }
    }
    total
}

struct Process {
    parent: u32,
    /// Its own, and those of children that it has waited for.
    ticks: u64,
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Fields 4 (parent) and 14 to 17 (times) of `/proc/PID/stat`, counted from behind the name, which may hold anything.
fn stat(pid: u32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Process { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn is_descendant(mut pid: u32, root: u32, processes: &BTreeMap<u32, Process>) -> bool {
    loop {
        if pid == root {
            return true;
        }
        match processes.get(&pid) {
            Some(process) if process.parent > 1 => pid = process.parent,
            _ => return false,
        }
    }
}

fn proportional_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

//! What the disk makes durable: files written, synced, renamed and their folder synced, as a spool has to.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Durable files a second by so many writers at a time, each file of `bytes` octets.
///
/// # Errors
/// When the disk does not take them.
pub fn durable_rate(folder: &Path, writers: usize, bytes: usize, time: Duration) -> Result<f64> {
    let (temporary, kept) = (folder.join("tmp"), folder.join("kept"));
    fs::create_dir_all(&temporary)?;
    fs::create_dir_all(&kept)?;
    let (began, content) = (Instant::now(), vec![b'x'; bytes]);
    let counts: Vec<Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (temporary, kept, content) = (&temporary, &kept, &content);
                scope.spawn(move || {
                    let mut count = 0;
                    while began.elapsed() < time {
                        let name = format!("{writer}-{count}");
                        let mut file = File::create(temporary.join(&name))?;
                        file.write_all(content)?;
                        file.sync_all()?;
                        fs::rename(temporary.join(&name), kept.join(&name))?;
                        File::open(kept)?.sync_all()?;
                        fs::remove_file(kept.join(&name))?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Ok(0))).collect()
    });
    let total = counts.into_iter().sum::<Result<u64>>()?;
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

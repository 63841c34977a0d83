//! `make pictures`: the pictures of the README, made from the running programs.

mod inbox;
mod status;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::browser::Browser;
use e2e::dashboard::{LEASES, ROWS, Traffic, draw, panels};

/// The largest picture that the README may have, bytes.
const MAX_PICTURE: usize = 200 * 1024;

/// For how long mail flows before the dashboard is drawn.
const FLOW: Duration = Duration::from_secs(60);

/// Makes the pictures of the README.
#[derive(Parser)]
#[command(name = "pictures")]
struct Arguments {
    /// The folder for them.
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = Arguments::parse().folder;
    fs::create_dir_all(&folder)?;
    let pictures = [
        ("inbox.png", inbox::picture().await?),
        ("status.png", status::picture().await?),
        ("dashboard.png", dashboard().await?),
    ];
    for (name, picture) in pictures {
        ensure!(picture.len() <= MAX_PICTURE, "{name} has {} bytes", picture.len());
        let file = folder.join(name);
        fs::write(&file, picture).with_context(|| file.display().to_string())?;
        writeln!(io::stdout(), "{}", file.display())?;
    }
    Ok(())
}

/// Panels of the dashboard about sidecars.
async fn dashboard() -> Result<Vec<u8>> {
    let traffic = Traffic::start().await?;
    let span = traffic.flow(FLOW).await?;
    let mut panels = panels(&traffic.prometheus, &ROWS[..3], span).await?;
    panels.retain(|panel| panel["title"] != LEASES);
    let (browser, folder) = (Browser::start().await?, tempfile::tempdir()?);
    let page = draw(&browser, folder.path(), &panels, 1200).await?;
    page.drawn().await?;
    let picture = page.picture().await?;
    traffic.stop().await;
    Ok(picture)
}

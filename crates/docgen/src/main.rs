//! The program: prints, writes or compares the generated files.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mailroute_docgen::{COMMAND, File, files};

/// Prints the files that are generated from the programs' own tables: reference pages, their tables, and the
/// CustomResourceDefinitions.
#[derive(Debug, Parser)]
#[command(name = "docgen", version)]
struct Args {
    /// Write them to their places instead of printing them.
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Compare them with what is in their places. Names those that differ and exits with 1.
    #[arg(long)]
    check: bool,
    /// The checkout.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// Only these files, named from the root of the checkout, such as docs/reference/reasons.md.
    #[arg(value_name = "FILE")]
    only: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let files = chosen(files(&args.root)?, &args.only)?;
    if args.write {
        files.iter().try_for_each(|file| file.write(&args.root))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        let differing: Vec<_> = files.iter().filter(|file| !file.is_current(&args.root)).collect();
        for file in &differing {
            writeln!(std::io::stderr(), "{} differs from the code; write it again: {COMMAND}", file.path)?;
        }
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    print(&files)?;
    Ok(ExitCode::SUCCESS)
}

/// The files of these names; all when none is named.
fn chosen(files: Vec<File>, only: &[String]) -> Result<Vec<File>> {
    if let Some(unknown) = only.iter().find(|name| files.iter().all(|file| file.path != name.as_str())) {
        let known: Vec<_> = files.iter().map(|file| file.path).collect();
        bail!("{unknown} is no generated file; these are:\n  {}", known.join("\n  "));
    }
    Ok(files
        .into_iter()
        .filter(|file| only.is_empty() || only.iter().any(|name| name == file.path))
        .collect())
}

/// With the name of each where there are several.
fn print(files: &[File]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for file in files {
        if files.len() > 1 {
            writeln!(out, "==> {} <==", file.path).context("cannot print")?;
        }
        out.write_all(file.text.as_bytes()).context("cannot print")?;
    }
    Ok(())
}

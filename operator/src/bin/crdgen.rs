//! Prints the CustomResourceDefinitions, or writes every file that is generated from them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use mailroute_operator_core::crd::definition;

/// Prints the CustomResourceDefinitions as YAML.
#[derive(Debug, Parser)]
struct Args {
    /// Print the templates of the chart mailroute-crds, which keep the definitions on uninstall.
    #[arg(long, conflicts_with = "write")]
    chart: bool,
    /// Write both forms of each to their places below --root in place of printing.
    #[arg(long)]
    write: bool,
    /// The checkout to write to.
    #[arg(long, default_value = ".", requires = "write")]
    root: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (manifests, templates) = (definition::manifests()?, definition::chart_templates()?);
    if args.write {
        let mut files = manifests.iter().chain(&templates);
        return files.try_for_each(|file| write(&args.root.join(file.path), &file.text));
    }
    let text = if args.chart { templates } else { manifests }.map(|file| file.text).join("---\n");
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

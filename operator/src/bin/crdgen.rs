//! Prints the CustomResourceDefinition, or writes every file that is generated from it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use mailroute_operator::crd::definition;

/// Prints the CustomResourceDefinition of MailRoute as YAML.
#[derive(Debug, Parser)]
struct Args {
    /// Print the template of the chart mailroute-crds, which keeps the definition on uninstall.
    #[arg(long, conflicts_with = "write")]
    chart: bool,
    /// Write both forms to their places below --root in place of printing.
    #[arg(long)]
    write: bool,
    /// The checkout to write to.
    #[arg(long, default_value = ".", requires = "write")]
    root: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.write {
        write(&args.root.join("crds/mailroutes.mailroute.dev.yaml"), &definition::manifest()?)?;
        return write(
            &args.root.join("charts/mailroute-crds/templates/mailroutes.yaml"),
            &definition::chart_template()?,
        );
    }
    let text = if args.chart { definition::chart_template()? } else { definition::manifest()? };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

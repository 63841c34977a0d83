//! `secrets`: fails when a file that holds the output of a test run shows a token, a key or a password.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// Looks for secrets in the output of a test run.
#[derive(Parser)]
#[command(name = "secrets")]
struct Arguments {
    /// The test runner's report, with the output of every test.
    report: PathBuf,
}

fn main() -> ExitCode {
    let report = Arguments::parse().report;
    match look(&report) {
        Ok(tests) => {
            let _ = writeln!(io::stdout(), "secrets: none in the output of {tests} tests");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn look(report: &std::path::Path) -> Result<usize> {
    let text = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let tests = text.matches("<testcase ").count();
    ensure!(tests > 0 && text.contains("<system-out>"), "{} holds no output of tests", report.display());
    let found = e2e::secrets::find(&text);
    ensure!(found.is_empty(), "{} shows {}", report.display(), found.join(", "));
    Ok(tests)
}

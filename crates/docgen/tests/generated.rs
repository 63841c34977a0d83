//! Every generated file is what the programs say, and the program that writes them says so of itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, io};

use anyhow::{Context, Result};
use mailroute_docgen::{COMMAND, files};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_generated_file_is_current() -> Result<()> {
    let differing: Vec<_> = files(&repository())?
        .into_iter()
        .filter(|file| !file.is_current(&repository()))
        .map(|file| file.path)
        .collect();
    assert!(differing.is_empty(), "{differing:#?} differ from the code; write them again: {COMMAND}");
    Ok(())
}

#[test]
fn a_file_that_differs_is_named_with_the_command_and_written_again() -> Result<()> {
    let checkout = tempfile::tempdir()?;
    for file in files(&repository())? {
        file.write(checkout.path())?;
    }
    for values in ["charts/mailroute/values.yaml", "charts/mailroute-gateway/values.yaml"] {
        fs::copy(repository().join(values), checkout.path().join(values))?;
    }
    let page = checkout.path().join("docs/reference/reasons.md");
    fs::write(&page, "another page")?;

    let told = docgen(checkout.path(), &["--check"])?;
    assert_eq!(told.status.code(), Some(1));
    let text = String::from_utf8(told.stderr)?;
    assert_eq!(text, format!("docs/reference/reasons.md differs from the code; write it again: {COMMAND}\n"));

    assert!(docgen(checkout.path(), &["--write", "docs/reference/reasons.md"])?.status.success());
    assert!(docgen(checkout.path(), &["--check"])?.status.success());
    let printed = docgen(checkout.path(), &["docs/reference/reasons.md"])?;
    assert_eq!(String::from_utf8(printed.stdout)?, fs::read_to_string(page)?);
    Ok(())
}

#[test]
fn what_is_no_checkout_or_no_generated_file_is_said() -> Result<()> {
    let nowhere = tempfile::tempdir()?;
    let told = String::from_utf8(docgen(nowhere.path(), &["--check"])?.stderr)?;
    assert!(told.contains("cannot read docs/") && told.contains("--root names the checkout"), "{told}");
    let told = String::from_utf8(docgen(&repository(), &["README.md"])?.stderr)?;
    assert!(
        told.contains("README.md is no generated file") && told.contains("docs/troubleshooting.md"),
        "{told}"
    );
    Ok(())
}

fn docgen(root: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docgen"));
    let ran: io::Result<_> = command.arg("--root").arg(root).args(arguments).output();
    ran.context("docgen does not run")
}

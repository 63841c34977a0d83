//! The images carry the licence text of every crate that is linked into their programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::scene::release::repository;

/// Programs in images: the package, and the folder of the Dockerfile.
const IMAGES: [(&str, &str); 3] =
    [("mailroute-operator", "operator"), ("mailroute-sidecar", "sidecar"), ("mailroute-m365", "tests/m365")];

/// What separates one text, with the names of its crates, from the next.
const RULE: &str = "==========";

fn output(command: &mut Command) -> Result<String> {
    let ran = command.current_dir(repository()).output()?;
    ensure!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(String::from_utf8(ran.stdout)?)
}

/// The platform of this machine.
fn host() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names its platform")?.to_owned())
}

/// Names and versions of the crates that are linked into a program, without our own.
fn linked(package: &str, target: &str) -> Result<Vec<String>> {
    let tree = ["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"];
    let tree = output(Command::new("cargo").args(tree).args(["--target", target, "--package", package]))?;
    let mut crates: Vec<_> = tree
        .lines()
        .filter(|line| !line.starts_with("mailroute-"))
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    crates.sort();
    crates.dedup();
    Ok(crates)
}

/// Whether a crate is named in front of a text that is one.
fn has_text(texts: &str, name: &str) -> bool {
    texts.split(RULE).filter_map(|block| block.split_once("----------")).any(|(names, text)| {
        names.lines().any(|line| line.starts_with(&format!("{name} (")))
            && text.trim_matches('-').trim().len() > 200
    })
}

#[test]
fn every_crate_that_is_linked_has_its_licence_text_in_the_image() -> Result<()> {
    let (target, work) = (host()?, tempfile::tempdir()?);
    for (package, folder) in IMAGES {
        let licenses = work.path().join(package);
        output(Command::new("tests/licenses").args([package, &target]).arg(&licenses))?;
        let texts = fs::read_to_string(licenses.join("crates.txt"))?;
        let crates = linked(package, &target)?;
        ensure!(crates.len() > 50, "{package}: only {crates:?}");
        let without: Vec<_> = crates.iter().filter(|name| !has_text(&texts, name)).collect();
        ensure!(without.is_empty(), "{package}: no text of {without:?}");
        for part in ["LICENSE", "rust-library.html", "libc6.txt", "libgcc-s1.txt"] {
            ensure!(fs::metadata(licenses.join(part))?.len() > 1000, "{package}: {part}");
        }
        let dockerfile = fs::read_to_string(repository().join(folder).join("Dockerfile"))?;
        ensure!(dockerfile.contains(".licenses/ /licenses/"), "{folder}: {dockerfile}");
    }
    Ok(())
}

#[test]
fn a_crate_without_a_text_is_an_error_of_the_build() -> Result<()> {
    let script = fs::read_to_string(repository().join("tests/licenses"))?;
    let work = tempfile::tempdir()?;
    // The same without what is known of crates that come without a text.
    let forgetful = work.path().join("licenses");
    let lib = repository().join("tests/cluster/lib.sh");
    let script = script
        .replace("\"$(dirname \"${BASH_SOURCE[0]}\")/cluster/lib.sh\"", &lib.display().to_string())
        .replace("kube | kube-*)", "nothing)");
    fs::write(&forgetful, script)?;
    let ran = Command::new("bash")
        .arg(&forgetful)
        .args(["mailroute-operator", &host()?])
        .arg(Path::new(work.path()).join("out"))
        .current_dir(repository())
        .output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(!ran.status.success() && said.contains("has no licence text"), "{said}");
    Ok(())
}

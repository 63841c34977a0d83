//! What a target of the Makefile builds on a fresh machine: enough, and for the demo no more.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::scene::release::repository;

/// What the demo runs: a node, the chart by Helm, a client. Everything else is for tests.
const DEMO: [&str; 6] = ["debian", "kubernetes", "coredns", "helm", "pause", "clients"];

#[test]
fn the_demo_builds_what_it_runs_and_no_more() -> Result<()> {
    let demo = set("demo")?;
    ensure!(demo == DEMO.map(str::to_owned).into(), "{demo:?}");
    let steps = steps("demo")?;
    for built in ["setup demo", "images demo"] {
        ensure!(steps.contains(built), "`make demo` has no `{built}`: {steps}");
    }
    for waste in ["setup cluster", "setup tools", "nextest", "cargo build", "--release"] {
        ensure!(!steps.contains(waste), "`make demo` has `{waste}`: {steps}");
    }
    Ok(())
}

#[test]
fn the_tests_get_all_that_can_be_built() -> Result<()> {
    let (demo, all) = (set("demo")?, set("cluster")?);
    ensure!(all.is_superset(&demo), "{all:?}");
    for needed in ["helm3", "kstatus", "monitoring", "peers", "chromium", "cosign", "mdbook"] {
        ensure!(all.contains(needed), "{needed} is not in {all:?}");
    }
    for target in ["test", "bench"] {
        let steps = steps(target)?;
        for built in ["setup cluster", "tests/images\n"] {
            ensure!(steps.contains(built), "`make {target}` has no `{built}`: {steps}");
        }
    }
    ensure!(steps("test")?.contains("setup tools"), "the test runner");
    ensure!(set("browser")? == ["chromium".to_owned()].into(), "the browser is all of its set");
    ensure!(set("release")? == ["cosign".to_owned(), "helm".to_owned()].into(), "what makes a release");
    ensure!(
        set("pictures")? == ["chromium", "dejavu", "peers"].map(str::to_owned).into(),
        "what pictures are made with"
    );
    ensure!(set("docs")? == ["mdbook".to_owned()].into(), "mdBook is all of its set");
    ensure!(set("tools")? == ["cargo-nextest".to_owned()].into(), "the test runner is all of its set");
    Ok(())
}

/// The parts of a set of `tests/cluster/setup`, without their versions.
fn set(name: &str) -> Result<BTreeSet<String>> {
    let listed = printed(Command::new(repository().join("tests/cluster/setup")).args(["--list", name]))?;
    let bare = |entry: &str| match entry.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => name.to_owned(),
        _ => entry.to_owned(),
    };
    Ok(listed.lines().map(bare).collect())
}

/// What `make` would run for a target.
fn steps(target: &str) -> Result<String> {
    let mut make = Command::new("make");
    // Its own, not those of the `make test` that this may be part of.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS");
    printed(make.arg("--directory").arg(repository()).args(["--no-print-directory", "--dry-run", target]))
}

fn printed(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

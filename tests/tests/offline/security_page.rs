//! The tests that the security page names exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use e2e::scene::release::repository;

/// Where the tests are.
const SOURCES: [&str; 4] = ["crates", "operator", "sidecar", "tests"];

/// Least number of words in the name of a test; other names in the page are shorter.
const WORDS: usize = 5;

#[test]
fn every_test_that_the_security_page_names_exists() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/guides/security.md"))?;
    let named: BTreeSet<_> = page.split('`').filter(|text| is_name(text)).collect();
    ensure!(named.len() > 30, "only {} tests were found: they are no longer recognised", named.len());
    let mut sources = String::new();
    for folder in SOURCES {
        read(&repository().join(folder), &mut sources)?;
    }
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    ensure!(missing.is_empty(), "the security page names tests that do not exist: {missing:#?}");
    Ok(())
}

#[test]
fn a_name_of_a_test_is_told_from_other_names() {
    assert!(is_name("a_pods_route_is_fixed_wherever_the_policy_looks_at_pods"));
    assert!(!is_name("mailroute_config_valid_status") && !is_name("spec.senders.allow"));
}

fn is_name(text: &str) -> bool {
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.split('_').count() >= WORDS && text.split('_').all(is_word)
}

/// Adds every Rust source below the folder.
fn read(folder: &Path, sources: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            read(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

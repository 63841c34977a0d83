//! Every link between the pages of this repository leads somewhere, to the very heading it names. Needs no cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::scene::release::repository;

mod commands;

/// Folders that hold no page of the project's own.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

#[test]
fn links_between_pages_lead_somewhere() -> Result<()> {
    let pages = pages(&repository())?;
    ensure!(pages.iter().any(|page| page.ends_with("docs/README.md")), "no pages were found");
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in &pages {
        for link in links(&fs::read_to_string(page)?) {
            followed += 1;
            if let Err(error) = follow(page, &link) {
                broken.push(format!("{}: ({link}): {error:#}", page.display()));
            }
        }
    }
    ensure!(followed > 50, "only {followed} links were found: they are no longer recognised");
    ensure!(broken.is_empty(), "\n{}", broken.join("\n"));
    Ok(())
}

#[test]
fn a_missing_page_and_a_missing_heading_are_found() {
    let readme = repository().join("README.md");
    assert!(follow(&readme, "docs/README.md#reference").is_ok());
    assert!(follow(&readme, "docs/no-such-page.md").is_err());
    assert!(follow(&readme, "docs/README.md#no-such-heading").is_err());
}

#[test]
fn the_summary_of_the_site_has_every_page_once() -> Result<()> {
    let summary = fs::read_to_string(repository().join("docs/SUMMARY.md"))?;
    let mut named = links(&summary);
    named.sort();
    let twice: Vec<_> = named.windows(2).filter(|two| two[0] == two[1]).map(|two| &two[0]).collect();
    ensure!(twice.is_empty(), "docs/SUMMARY.md has twice: {twice:?}");
    let docs = repository().join("docs");
    let inside = pages(&docs)?.into_iter().map(|page| Ok(page.strip_prefix(&docs)?.display().to_string()));
    let outside = pages(&repository())?.into_iter().filter(|page| !page.starts_with(&docs));
    let outside = outside.map(|page| Ok(format!("../{}", page.strip_prefix(repository())?.display())));
    let mut all = inside.chain(outside).collect::<Result<Vec<_>>>()?;
    all.retain(|page| page != "SUMMARY.md");
    all.sort();
    ensure!(named == all, "docs/SUMMARY.md has {named:#?}, the repository {all:#?}");
    Ok(())
}

#[test]
fn headings_become_anchors_as_hosts_of_markdown_make_them() {
    let text = "# 1. An `application` in Entra\n## Who can do what, and why\n";
    let found: Vec<_> = anchors(text).into_iter().collect();
    assert_eq!(found, ["1-an-application-in-entra", "who-can-do-what-and-why"]);
}

/// Every `.md` file below a folder.
fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && !SKIPPED.iter().any(|name| path.ends_with(name)) {
            found.extend(pages(&path)?);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The targets of a page's inline links, those to other hosts left out.
fn links(text: &str) -> Vec<String> {
    let prose = without_code(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

fn without_code(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

fn follow(page: &Path, link: &str) -> Result<()> {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_owned(),
        path => page.parent().context("a page is in a folder")?.join(path),
    };
    ensure!(target.exists(), "nothing is there");
    if !heading.is_empty() {
        ensure!(anchors(&fs::read_to_string(&target)?).contains(heading), "no such heading");
    }
    Ok(())
}

/// Lower case, spaces as dashes, and of the rest only letters, digits, dashes and underscores.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = without_code(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

//! The documentation as a site, built by mdBook and seen in a real browser: its links, its search, and how it fits a telephone.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::browser::{Browser, Page};
use e2e::scene::release::repository;
use e2e::tools::mdbook;

/// Pages with wide tables, long lines or pictures.
const PAGES: [&str; 6] = [
    "index.html",
    "docs/index.html",
    "docs/troubleshooting.html",
    "docs/reference/mailroute.html",
    "docs/reference/metrics.html",
    "charts/mailroute/index.html",
];

#[tokio::test]
async fn every_link_leads_somewhere_and_every_page_fits_its_window() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = build(folder.path())?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let browser = Browser::start().await?;
    let page = browser.open("about:blank").await?;
    for name in PAGES {
        page.go(&address(folder.path(), name)).await?;
        for width in [1280, 360] {
            page.resize(width, 800).await?;
            let wide: u32 = page.value("document.documentElement.scrollWidth").await?;
            ensure!(wide <= width, "{name} is {wide} px wide in a window of {width}");
        }
    }
    page.resize(1280, 800).await?;
    finds(&page, "SmtpAuthDisabledMailbox").await?;
    ensure!(page.complaints().is_empty(), "{:?}", page.complaints());
    Ok(())
}

/// Leaves `DIR/site` as `make docs` does.
fn build(folder: &Path) -> Result<std::process::Output> {
    let bin = mdbook()?.parent().context("a program is in a folder")?.to_owned();
    let path = format!("{}:{}", bin.display(), env::var("PATH")?);
    Ok(Command::new(repository().join("docs/site/build")).arg(folder).env("PATH", path).output()?)
}

fn address(folder: &Path, page: &str) -> String {
    format!("file://{}/html/{page}", folder.display())
}

/// The search has pages for a word, all of them from the site itself.
async fn finds(page: &Page, word: &str) -> Result<()> {
    page.wait("typeof window.search === 'object' && !document.getElementById('mdbook-search-toggle').hidden")
        .await?;
    page.value::<()>("document.getElementById('mdbook-search-toggle').click()").await?;
    page.value::<()>("document.getElementById('mdbook-searchbar').focus()").await?;
    page.type_text(word).await?;
    page.wait("document.querySelectorAll('#mdbook-searchresults li a').length > 2").await?;
    let elsewhere: Vec<String> = page
        .value("performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('file:'))")
        .await?;
    ensure!(elsewhere.is_empty(), "other hosts were asked: {elsewhere:?}");
    Ok(())
}

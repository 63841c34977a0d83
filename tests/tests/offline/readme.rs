//! The README's first screen: what was never tried comes before what works, in words that need no second reading.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::scene::release::repository;

/// What a terminal or a code host shows before anybody scrolls, lines.
const SCREEN: usize = 32;

/// What earlier pages used in place of plain words.
const RIDDLES: [&str; 7] =
    ["mend", "mends", "trouble", "has the way", "is played", "whom it may concern", "log-in"];

#[test]
fn the_first_screen_says_that_no_live_tenant_was_tried_and_who_does_what() -> Result<()> {
    let readme = readme()?;
    let screen: Vec<&str> = readme.lines().take(SCREEN).collect();
    let line_of = |text: &str| {
        screen.iter().position(|line| line.contains(text)).with_context(|| format!("no `{text}` on it"))
    };
    let untried = line_of("No live Microsoft 365 tenant has ever been tried")?;
    ensure!(untried < line_of("What you get")?, "what works comes before what was never tried");
    for who in ["platform team", "product team", "The operator", "The sidecar", "The application"] {
        line_of(who)?;
    }
    Ok(())
}

#[test]
fn the_first_command_is_the_one_of_two_minutes() -> Result<()> {
    let readme = readme()?;
    let (_, code) = readme.split_once("```console\n").context("the README shows commands")?;
    ensure!(code.starts_with("make try"), "{:?}", code.lines().next());
    Ok(())
}

#[test]
fn it_is_written_in_plain_words() -> Result<()> {
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { ' ' };
    // Spaces around each word, so that the page of `troubleshooting` is none of them.
    let words = format!(" {} ", readme()?.to_lowercase().chars().map(plain).collect::<String>());
    let found: Vec<_> = RIDDLES.iter().filter(|riddle| words.contains(&format!(" {riddle} "))).collect();
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

fn readme() -> Result<String> {
    Ok(fs::read_to_string(repository().join("README.md"))?)
}

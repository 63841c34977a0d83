//! What the pages tell people to type exists: `make` targets, commands and options of the two programs, fields of a
//! route, metrics.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use clap::{Command, CommandFactory};
use e2e::scene::release::repository;

use super::pages;

/// Runs a check over every page, and tells all that it finds.
fn every_page(check: impl Fn(&str) -> Result<usize>) -> Result<usize> {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in pages(&repository())? {
        // The log of changes also tells of what was taken away.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        match check(&fs::read_to_string(&page)?) {
            Ok(count) => checked += count,
            Err(error) => wrong.push(format!("{}: {error:#}", page.display())),
        }
    }
    ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(checked)
}

#[test]
fn every_make_target_on_a_page_exists() -> Result<()> {
    let makefile = fs::read_to_string(repository().join("Makefile"))?;
    let targets: BTreeSet<_> =
        makefile.lines().filter_map(|line| line.split_once(": ")?.0.split(' ').next()).collect();
    let checked = every_page(|page| {
        let named: Vec<_> =
            code(page).into_iter().filter_map(|line| Some(line.strip_prefix("make ")?.to_owned())).collect();
        for words in &named {
            let target = words.split([' ', ',']).next().unwrap_or_default();
            ensure!(targets.contains(target), "there is no `make {target}`");
        }
        Ok(named.len())
    })?;
    ensure!(checked > 20, "only {checked} were found");
    Ok(())
}

#[test]
fn every_command_of_ours_on_a_page_exists() -> Result<()> {
    let mut programs = [
        ("mailroute-sidecar", mailroute_sidecar::args::Cli::command()),
        ("mailroute-operator", mailroute_operator::args::Cli::command()),
        ("kubectl mailroute", mailroute_cli::args::Cli::command()),
    ];
    programs.iter_mut().for_each(|(_, command)| command.build());
    let checked = every_page(|page| {
        let mut found = 0;
        // Where cargo is told of a package, that is no command of ours.
        for line in code(page).into_iter().filter(|line| !line.contains("cargo ")) {
            for (name, command) in &programs {
                let Some(at) = line.find(&format!("{name} ")) else { continue };
                exists(command, &line[at + name.len()..]).with_context(|| line.clone())?;
                found += 1;
            }
        }
        Ok(found)
    })?;
    ensure!(checked > 10, "only {checked} were found");
    Ok(())
}

#[test]
fn every_field_of_a_route_on_a_page_exists() -> Result<()> {
    let reference = fs::read_to_string(repository().join("docs/reference/mailroute.md"))?;
    let fields: BTreeSet<_> =
        reference.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let checked = every_page(|page| {
        let spans = inline_code(page);
        let paths = spans.iter().filter_map(|span| span.split([':', ' ', '=']).next()).filter(|path| {
            // Pods and Deployments have a `spec`, too.
            let mut parts = path.split('.');
            let top = (parts.next(), parts.next());
            matches!(top, (Some("spec"), Some(top)) if fields.contains(format!("spec.{top}").as_str()))
        });
        let paths: Vec<_> = paths.collect();
        for path in &paths {
            ensure!(fields.contains(*path), "`{path}` is no field of a MailRoute");
        }
        Ok(paths.len())
    })?;
    ensure!(checked > 30, "only {checked} were found");
    Ok(())
}

#[test]
fn every_metric_on_a_page_exists() -> Result<()> {
    let reference = fs::read_to_string(repository().join("docs/reference/metrics.md"))?;
    let known: BTreeSet<_> =
        reference.lines().filter_map(|line| line.strip_prefix("| `mailroute_")?.split('`').next()).collect();
    every_page(|page| {
        let spans = inline_code(page);
        let named: Vec<_> = spans.iter().filter_map(|span| span.strip_prefix("mailroute_")).collect();
        for metric in &named {
            let name = metric.split(['{', '[', ' ']).next().unwrap_or_default();
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let is_pattern = name.is_empty() || name.contains('<');
            ensure!(
                is_pattern || known.contains(name) || known.contains(base),
                "there is no metric `mailroute_{name}`"
            );
        }
        Ok(named.len())
    })?;
    Ok(())
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let mut sidecar = mailroute_sidecar::args::Cli::command();
    sidecar.build();
    assert!(exists(&sidecar, " check --to a@contoso.com -o json").is_ok());
    assert!(exists(&sidecar, " chekc").is_err());
    assert!(exists(&sidecar, " check --no-such-option").is_err());
}

/// Whether the words behind a program's name are commands and options that it has. Values are not looked at.
fn exists(program: &Command, words: &str) -> Result<()> {
    let mut command = program;
    let mut is_value = false;
    // In a sentence, in a pipe or behind a comment mark, the command is over.
    for word in words.split_whitespace().take_while(|word| !word.starts_with(['|', '#', '>', '&', '\\', '…']))
    {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            let known = command.get_arguments().find(|argument| argument.get_long() == Some(name));
            let known = known.or_else(|| {
                ["help", "version"].contains(&name).then(|| command.get_arguments().next()).flatten()
            });
            let argument = known.with_context(|| format!("{} has no --{name}", command.get_name()))?;
            is_value = argument.get_action().takes_values() && !option.contains('=');
        } else if let Some(option) = word.strip_prefix('-').and_then(|option| option.chars().next()) {
            let known = command.get_arguments().find(|argument| argument.get_short() == Some(option));
            let argument = known.with_context(|| format!("{} has no -{option}", command.get_name()))?;
            is_value = argument.get_action().takes_values();
        } else if std::mem::take(&mut is_value) {
            // A value may be anything.
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else if command.get_positionals().next().is_none() {
            bail!("{} has no command {word:?}", command.get_name());
        }
    }
    Ok(())
}

/// The lines of code of a page: those in fences, without a prompt, and those between back ticks.
fn code(page: &str) -> Vec<String> {
    let fenced = page.split("```").skip(1).step_by(2);
    let lines = fenced.flat_map(str::lines).map(|line| line.trim().trim_start_matches("$ ").to_owned());
    lines.chain(inline_code(page)).collect()
}

fn inline_code(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    // A span does not go beyond its paragraph, so that one odd back tick does not turn the rest of the page around.
    prose
        .split("\n\n")
        .flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

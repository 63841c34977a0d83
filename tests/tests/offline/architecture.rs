//! What ARCHITECTURE.md says of who may know what, held against the source: the crates, the modules, and the map of them.

mod source;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::scene::release::repository;

use self::source::{code, modules};

/// Which crates of this project each crate is made with.
const CRATES: [(&str, &[&str]); 8] = [
    ("crates/route", &[]),
    ("crates/dns", &[]),
    ("crates/limits", &[]),
    ("crates/metrics", &[]),
    ("crates/entra", &["route"]),
    ("operator", &["dns", "entra", "limits", "metrics", "route"]),
    ("sidecar", &["dns", "entra", "limits", "metrics", "route"]),
    ("crates/docgen", &["entra", "metrics", "operator", "route", "sidecar"]),
];

/// Words of a manifest that a crate does without.
const WITHOUT: [(&str, &[&str]); 6] = [
    ("crates/route", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/limits", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/metrics", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/dns", &["kube", "k8s-openapi", "lettre", "hyper"]),
    ("crates/entra", &["kube", "k8s-openapi", "lettre"]),
    ("sidecar", &["kube", "k8s-openapi"]),
];

/// What reads a clock.
const CLOCK: &str = "now()";

/// What holds a client of the API server.
const CALLS: [&str; 2] = ["Client", "Api"];

/// Modules, and what must not be in their code.
const UNKNOWN: &[(&str, &[&str])] = &[
    ("crates/route/src", &["std::fs", CLOCK, "tokio"]),
    ("crates/limits/src", &["std::fs", "std::net", CLOCK, "tokio"]),
    ("crates/metrics/src", &["std::fs", "std::net", CLOCK, "tokio"]),
    ("crates/docgen/src", &["syn", ".rs\""]),
    ("operator/src/crd", &[CALLS[0], CALLS[1], CLOCK]),
    ("operator/src/controller/accept", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/validate", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/build", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/way", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/observe", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/status", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/pods", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/losses", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("operator/src/controller/federation", &[CALLS[0], CALLS[1], CLOCK, "async", "mailroute_entra"]),
    ("operator/src/inject", &[CALLS[0], CALLS[1], CLOCK, "async", "axum", "hyper"]),
    ("operator/src/budget", &[CALLS[0], CALLS[1], CLOCK, "async", "tokio"]),
    ("operator/src/lease", &["crate::controller", "crate::pki"]),
    ("operator/src/pki", &["crate::webhook", "crate::control"]),
    ("operator/src/preflight", &["controller::run", CALLS[0], CALLS[1]]),
    ("sidecar/src/smtp", &["tokio", "std::net", "std::fs", "std::time", "tracing", "async", CLOCK]),
    ("sidecar/src/server", &["crate::{delivery,token,upstream,dispatch,queue,relay,spool}"]),
    ("sidecar/src/spool", &["crate::{smtp,delivery,queue,relay,dispatch,upstream,server,clock}", CLOCK]),
    ("sidecar/src/queue", &["crate::{relay,server,net,token,upstream}", ".mode"]),
    ("sidecar/src/relay", &["crate::{net,token,upstream}", "rustls"]),
    ("sidecar/src/dispatch", &["crate::{relay,queue,spool,server}"]),
    ("sidecar/src/delivery", &["crate::{relay,queue,spool,server,settings,dispatch}"]),
    ("sidecar/src/breaker", &["crate::{relay,queue,dispatch}", CLOCK]),
    ("sidecar/src/budget/holding", &["tokio", CLOCK]),
    ("sidecar/src/budget", &["crate::{delivery,smtp,body,envelope,queue,relay}"]),
    ("sidecar/src/token", &["crate::{smtp,envelope,body,delivery,server}"]),
    ("sidecar/src/net", &["crate::{smtp,envelope,body,delivery,token}"]),
    ("sidecar/src/certificate", &["crate::{net,token,delivery}"]),
    ("sidecar/src/watched", &["crate::{config,token,certificate}"]),
    ("sidecar/src/config", &["crate::{upstream,relay,server,door}"]),
    ("sidecar/src/by_hand", &["crate::{delivery,dispatch,net,token}"]),
];

#[test]
fn the_crates_know_those_below_them_only() -> Result<()> {
    for (name, expected) in CRATES {
        let manifest = fs::read_to_string(repository().join(name).join("Cargo.toml"))?;
        let (_, dependencies) =
            manifest.split_once("\n[dependencies]\n").context("there are dependencies")?;
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let names = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let ours: BTreeSet<_> = names.filter_map(|name| name.strip_prefix("mailroute-")).collect();
        ensure!(ours == expected.iter().copied().collect(), "{name} is made with {ours:?}");
        let without = WITHOUT.iter().filter(|(of, _)| *of == name).flat_map(|(_, words)| *words);
        for word in without {
            let found = dependencies.lines().find(|line| line.split(['.', ' ', '=']).next() == Some(word));
            ensure!(found.is_none(), "{name} is made with {word}");
        }
    }
    Ok(())
}

#[test]
fn operator_and_sidecar_never_name_each_other() -> Result<()> {
    for (program, other) in [("operator", "mailroute_sidecar::"), ("sidecar", "mailroute_operator::")] {
        for folder in ["src", "tests"] {
            for file in code(&format!("{program}/{folder}"))? {
                ensure!(!file.text.contains(other), "{} names {other}", file.path);
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_but_the_program_itself_uses_its_wiring() -> Result<()> {
    for program in ["operator", "sidecar"] {
        for file in code(&format!("{program}/src"))? {
            let inside = file.path.contains("/src/app") || file.path.ends_with("/main.rs");
            ensure!(inside || !file.uses("crate::{app}"), "{} uses app", file.path);
        }
    }
    Ok(())
}

#[test]
fn no_module_knows_what_it_must_not() -> Result<()> {
    let mut wrong = Vec::new();
    for (place, unknown) in UNKNOWN {
        let files = code(place)?;
        ensure!(files.iter().any(|file| file.text.contains("fn ")), "there is no code in {place}");
        for file in &files {
            let known = unknown.iter().filter(|word| file.uses(word));
            wrong.extend(known.map(|word| format!("{} knows {word}", file.path)));
        }
    }
    ensure!(wrong.is_empty(), "ARCHITECTURE.md says otherwise:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn the_code_map_has_every_module_and_no_other() -> Result<()> {
    let page = fs::read_to_string(repository().join("ARCHITECTURE.md"))?;
    for program in ["operator", "sidecar"] {
        let heading = format!("\n### `{program}/`\n");
        let (_, part) = page.split_once(&heading).with_context(|| format!("no part {program}/"))?;
        let part = part.split("\n### ").next().unwrap_or_default();
        let mapped = source::mapped(part);
        let mut present = modules(&format!("{program}/src/lib.rs"))?;
        if program == "operator" {
            present.remove("controller");
            let steps = modules("operator/src/controller/mod.rs")?;
            present.extend(steps.into_iter().map(|step| format!("controller::{step}")));
        }
        let missing: Vec<_> = present.difference(&mapped).collect();
        let gone: Vec<_> = mapped.difference(&present).collect();
        ensure!(missing.is_empty() && gone.is_empty(), "{program}: not there {missing:?}, gone {gone:?}");
    }
    Ok(())
}

#[test]
fn a_name_is_found_as_a_whole_and_a_module_where_it_is_used() {
    let text =
        "use crate::relay::Relay;\nfn ask(client: &Client, at: Instant) { at.elapsed(); clock::now() }"
            .to_owned();
    let code = source::Code { path: String::new(), text };
    for word in ["Client", "Instant", CLOCK, "crate::{queue,relay}", "clock::"] {
        assert!(code.uses(word), "{word}");
    }
    for word in ["Clien", "lock", "crate::{queue,rel}", "kube::"] {
        assert!(!code.uses(word), "{word}");
    }
}

//! What ARCHITECTURE.md says of who may know what, held against the source: the crates, the modules, and the map of them.

mod imports;
mod source;

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::scene::release::repository;

use self::imports::Imports;
use self::source::{code, modules};

/// Which crates of this project each crate is made with.
const CRATES: [(&str, &[&str]); 11] = [
    ("crates/quota", &[]),
    ("crates/route", &["quota"]),
    ("crates/dns", &[]),
    ("crates/metrics", &[]),
    ("crates/entra", &["route"]),
    ("crates/replies", &["route"]),
    ("crates/operator-core", &["route"]),
    ("operator", &["dns", "entra", "metrics", "operator-core", "quota", "route"]),
    ("sidecar", &["dns", "entra", "metrics", "quota", "replies", "route"]),
    ("cli", &["operator-core", "replies", "route"]),
    ("crates/docgen", &["cli", "metrics", "operator", "operator-core", "replies", "route", "sidecar"]),
];

/// Words of a manifest that a crate does without.
const WITHOUT: [(&str, &[&str]); 9] = [
    ("crates/route", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/quota", &["kube", "k8s-openapi", "tokio", "lettre", "hyper", "tracing", "ring"]),
    ("crates/metrics", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/replies", &["kube", "k8s-openapi", "tokio", "lettre", "hyper"]),
    ("crates/dns", &["kube", "k8s-openapi", "lettre", "hyper"]),
    ("crates/entra", &["kube", "k8s-openapi", "lettre"]),
    ("crates/operator-core", &["tokio", "futures", "async-trait", "hyper", "axum", "lettre"]),
    ("sidecar", &["kube", "k8s-openapi"]),
    ("cli", &["lettre", "axum", "prometheus", "mailroute-operator", "mailroute-sidecar"]),
];

/// What reads a clock.
const CLOCK: &str = "now()";

/// What holds a client of the API server.
const CALLS: [&str; 2] = ["Client", "Api"];

/// Modules, and what must not be in their code.
const UNKNOWN: &[(&str, &[&str])] = &[
    ("crates/route/src", &["std::fs", CLOCK, "tokio"]),
    ("crates/quota/src", &["std::fs", "std::net", CLOCK, "async"]),
    ("crates/metrics/src", &["std::fs", "std::net", CLOCK, "tokio"]),
    ("crates/replies/src", &["std::fs", "std::net", CLOCK, "async"]),
    ("crates/docgen/src", &["syn", ".rs\""]),
    ("crates/operator-core/src", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs", "std::net::TcpStream"]),
    ("operator/src/cache/federation_capacity", &[CALLS[0], CALLS[1], CLOCK, "async", "mailroute_entra"]),
    ("operator/src/leader_election", &["crate::controller", "crate::pki"]),
    ("operator/src/pki", &["crate::webhook", "crate::service"]),
    ("operator/src/cache", &["crate::{controller,service,webhook,preflight}"]),
    ("operator/src/preflight", &["controller::run", CALLS[0], CALLS[1]]),
    (
        "sidecar/src/smtp",
        &["tokio", "TcpStream", "TcpListener", "std::fs", "std::time", "tracing", "async", CLOCK],
    ),
    ("sidecar/src/message", &["crate::{smtp,delivery,outcome,queue,spool}"]),
    (
        "sidecar/src/outcome",
        &["crate::{delivery,attempt,accept,queue,metrics,listener}", "async", "tokio::net"],
    ),
    ("sidecar/src/listener", &["crate::{delivery,token,upstream,attempt,queue,accept,spool}"]),
    ("sidecar/src/spool", &["crate::{smtp,delivery,queue,accept,attempt,upstream,listener,clock}", CLOCK]),
    ("sidecar/src/queue", &["crate::{accept,listener,delivery,net,token,upstream}", ".mode"]),
    ("sidecar/src/accept", &["crate::{delivery,net,token,upstream}", "rustls"]),
    ("sidecar/src/attempt", &["crate::{accept,queue,spool,listener,upstream}"]),
    ("sidecar/src/attempt/circuit_breaker", &[CLOCK, "async"]),
    ("sidecar/src/attempt/rejection_cache", &[CLOCK, "async"]),
    ("sidecar/src/delivery", &["crate::{accept,queue,spool,listener,attempt,metrics}"]),
    ("sidecar/src/budget", &["crate::{delivery,outcome,smtp,message,queue,accept}"]),
    ("sidecar/src/token", &["crate::{smtp,message,delivery,outcome,listener}"]),
    ("sidecar/src/net", &["crate::{smtp,message,delivery,token,config}"]),
    ("sidecar/src/file_watcher", &["crate::{config,token,certificate}"]),
    ("sidecar/src/config", &["crate::{upstream,accept,listener}"]),
    ("sidecar/src/cli/queue", &["crate::{delivery,attempt,net,token}"]),
    ("cli/src/explain", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs"]),
    ("cli/src/status/view", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("cli/src/status/print", &[CALLS[0], CALLS[1], CLOCK, "async"]),
    ("cli/src/queue/merge", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs"]),
    ("cli/src/trace/lines", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs"]),
    ("cli/src/trace/story", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs"]),
    ("cli/src/doctor/judge", &[CALLS[0], CALLS[1], CLOCK, "async", "std::fs"]),
];

/// The crates whose modules must not use each other in a circle.
const LAYERED: [&str; 13] = [
    "crates/route",
    "crates/dns",
    "crates/entra",
    "crates/quota",
    "crates/operator-core",
    "crates/metrics",
    "crates/replies",
    "crates/docgen",
    "operator",
    "sidecar",
    "cli",
    "tests",
    "tests/m365",
];

#[test]
fn no_modules_use_each_other_in_a_circle() -> Result<()> {
    for krate in LAYERED {
        let imports = Imports::of(krate)?;
        let cycles = imports.cycles();
        ensure!(cycles.is_empty(), "{krate}: modules use each other in a circle: {cycles:#?}");
    }
    Ok(())
}

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

/// `kube` is made without a client for all, and who calls an API server adds it.
#[test]
fn what_the_operator_decides_is_made_without_a_client() -> Result<()> {
    for (manifest, table) in
        [("Cargo.toml", "[workspace.dependencies]"), ("crates/operator-core/Cargo.toml", "[dependencies]")]
    {
        let text = fs::read_to_string(repository().join(manifest))?;
        let (_, dependencies) = text.split_once(table).with_context(|| format!("{manifest}: no {table}"))?;
        let kube = dependencies.lines().find(|line| line.starts_with("kube"));
        let kube = kube.with_context(|| format!("{manifest} names no kube"))?;
        ensure!(!kube.contains("client") && !kube.contains("runtime"), "{manifest}: {kube}");
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
    for program in ["crates/operator-core", "operator", "sidecar", "cli"] {
        let heading = format!("\n### `{program}/`");
        let (_, part) = page.split_once(&heading).with_context(|| format!("no part {program}/"))?;
        let part = part.split("\n### ").next().unwrap_or_default();
        let mapped = source::mapped(part);
        let present = modules(&format!("{program}/src/lib.rs"))?;
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

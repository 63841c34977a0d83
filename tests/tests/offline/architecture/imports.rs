//! Which modules of a crate's top level use which others, read from the source, and the cycles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;

use anyhow::Result;
use e2e::scene::release::repository;

use super::source::{Code, code};

/// For each module of the top level those that it uses, with a file that does.
#[derive(Debug, Default)]
pub struct Imports(BTreeMap<String, BTreeMap<String, String>>);

impl Imports {
    /// The imports of the crate in the folder `krate`, those of its tests left out.
    pub fn of(krate: &str) -> Result<Self> {
        let mut modules = BTreeSet::new();
        for entry in fs::read_dir(repository().join(krate).join("src"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            modules.insert(name.trim_end_matches(".rs").to_owned());
        }
        let mut imports = Self::default();
        for file in code(&format!("{krate}/src"))? {
            let path = file.path.trim_start_matches(krate).trim_start_matches("/src/");
            imports.add(path, &file, &modules);
        }
        Ok(imports)
    }

    /// Adds the imports of the file at `path` below `src`. Only those of `modules` count.
    fn add(&mut self, path: &str, file: &Code, modules: &BTreeSet<String>) {
        let names: Vec<_> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
        let [own, ..] = names[..] else { return };
        if matches!(own, "lib" | "main" | "bin") {
            return;
        }
        let used = self.0.entry(own.to_owned()).or_default();
        let from_root = "super::".repeat(names.len());
        for name in ["crate::", &from_root].into_iter().flat_map(|root| file.behind(root)) {
            if name != own && modules.contains(name) {
                used.entry(name.to_owned()).or_insert_with(|| path.to_owned());
            }
        }
    }

    /// Every module that is in a cycle, with a shortest one through it: `a → b (a/file.rs) → a (b.rs)`.
    pub fn cycles(&self) -> BTreeMap<&str, String> {
        self.0.keys().filter_map(|module| Some((module.as_str(), self.cycle(module)?))).collect()
    }

    fn cycle(&self, module: &str) -> Option<String> {
        let mut paths = VecDeque::from([(module, module.to_owned())]);
        let mut seen = BTreeSet::new();
        while let Some((at, path)) = paths.pop_front() {
            for (next, file) in self.0.get(at).into_iter().flatten() {
                let longer = format!("{path} → {next} ({file})");
                if next == module {
                    return Some(longer);
                }
                if seen.insert(next) {
                    paths.push_back((next, longer));
                }
            }
        }
        None
    }
}

#[test]
fn a_cycle_is_found_and_named() {
    let modules = ["queue", "metrics", "smtp", "net"].map(str::to_owned).into();
    let mut imports = Imports::default();
    let mut add = |path: &str, text: &str| {
        let file = Code { path: String::new(), text: text.to_owned() };
        imports.add(path, &file, &modules);
    };
    add("queue/worker.rs", "use crate::metrics::Metrics; use super::{index, super::smtp};");
    add("metrics.rs", "use super::queue::Figures; use crate::net;");
    add("smtp/mod.rs", "use crate::{clock, net::{tls, dial}};");
    add("net/mod.rs", "fn smtp() { self::queue() }");
    let cycles = imports.cycles();
    assert_eq!(cycles.keys().copied().collect::<Vec<_>>(), ["metrics", "queue"]);
    assert_eq!(cycles["queue"], "queue → metrics (queue/worker.rs) → queue (metrics.rs)");
    assert!(imports.0["smtp"].contains_key("net"), "{imports:?}");
}

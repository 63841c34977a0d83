//! Source as text: the code of a place without tests and comments, the modules of a file, and the names in a table.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::scene::release::repository;

/// The code of one file.
pub struct Code {
    /// Its path in the repository.
    pub path: String,
    /// Its lines, without comments and without the tests at its end.
    pub text: String,
}

impl Code {
    /// Whether it holds `word`: a name, a part of a line, or as `crate::{one,other}` the use of one of these modules.
    pub fn uses(&self, word: &str) -> bool {
        if let Some(modules) = word.strip_prefix("crate::{").and_then(|rest| rest.strip_suffix('}')) {
            return self.behind("crate::").any(|name| modules.split(',').any(|module| module == name));
        }
        let is_name = names(word).next() == Some(word);
        if is_name { names(&self.text).any(|name| name == word) } else { self.text.contains(word) }
    }

    /// The names that follow `root`, which ends in `::`.
    pub fn behind(&self, root: &str) -> impl Iterator<Item = &str> {
        let mut from = 0;
        let mut found = Vec::new();
        while let Some(at) = self.text[from..].find(root).map(|at| from + at) {
            from = at + root.len();
            // Not the end of a longer path, such as `super::super::` for `super::`.
            let before = self.text[..at].chars().next_back();
            if !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                found.extend(heads(&self.text[from..]));
            }
        }
        found.into_iter()
    }
}

/// The names at the top of a path's end: `one` of `one::two`, or `one` and `two` of `{one::{three}, two}`.
fn heads(path: &str) -> Vec<&str> {
    let Some(group) = path.strip_prefix('{') else {
        return path.split(|letter: char| !letter.is_alphanumeric() && letter != '_').take(1).collect();
    };
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                heads.extend(names(&group[start..at]).next());
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|name| !name.is_empty())
}

/// The code of a folder, or of a module: its file, and what is in the folder of its name. Without that of tests.
pub fn code(place: &str) -> Result<Vec<Code>> {
    let mut files = Vec::new();
    let place = repository().join(place);
    let (file, folder) = (place.with_extension("rs"), place.is_dir());
    if file.is_file() || !folder {
        collect(&file, &mut files)?;
    }
    if folder {
        collect(&place, &mut files)?;
    }
    files.iter().map(|file| read(file)).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("{} is gone", path.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_test = name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs");
        if !is_test && (path.is_dir() || name.ends_with(".rs")) {
            collect(&path, files)?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Code> {
    let text = fs::read_to_string(file)?;
    // Tests in the file are its last part.
    let tests = ["mod", "pub(super) mod", "pub(crate) mod", "pub mod"];
    let text = tests.iter().fold(text.as_str(), |text, tests| {
        text.split(&format!("#[cfg(test)]\n{tests} tests {{")).next().unwrap_or_default()
    });
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let path = file.strip_prefix(repository())?.display().to_string();
    Ok(Code { path, text: lines.collect::<Vec<_>>().join("\n") })
}

/// The modules that a file declares, but for those of tests.
pub fn modules(file: &str) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(repository().join(file))?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    Ok(lines.map(str::to_owned).collect())
}

/// The modules in the first column of the tables of a page, as `one`, or several as `in::{one, other}`.
pub fn mapped(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').step_by(2));
    names.filter(|name| !name.trim_matches([',', ' ']).is_empty()).flat_map(expanded).collect()
}

fn expanded(name: &str) -> Vec<String> {
    match name.strip_suffix('}').and_then(|name| name.split_once("::{")) {
        Some((parent, children)) => children.split(", ").map(|child| format!("{parent}::{child}")).collect(),
        None => vec![name.to_owned()],
    }
}

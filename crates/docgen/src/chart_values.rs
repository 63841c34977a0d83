//! The table of values in a chart's README, written from `values.yaml`: its keys, its defaults and the comments above them.
//!
//! A key with a comment above it is a value, whatever lies below it; one without is a section. The table stands between
//! two marks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::page::between;

const BEGIN: &str = "<!-- from values.yaml: begin -->\n";
const END: &str = "<!-- from values.yaml: end -->\n";

/// A line of the file that is neither empty nor a comment.
struct Line<'a> {
    indent: usize,
    key: &'a str,
    /// What stands behind the key; empty when the value is on the lines below.
    value: &'a str,
    /// The comment above, in one line.
    comment: String,
}

/// The README of a chart, with the table of its values.
pub fn fill_in(root: &Path, chart: &str, page: &str) -> Result<String> {
    let path = format!("charts/{chart}/values.yaml");
    let values = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
    let rows = rows(&lines(&values)?, "").with_context(|| path.clone())?;
    let table = format!("| Key | Default | Meaning |\n| --- | --- | --- |\n{}", rows.concat());
    between(page, (BEGIN, END), &table)
}

fn lines(text: &str) -> Result<Vec<Line<'_>>> {
    let (mut found, mut comment) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(sentence) = trimmed.strip_prefix('#') {
            comment.push(sentence.trim());
        } else if let Some((key, value)) = trimmed.split_once(':') {
            let comment = std::mem::take(&mut comment).join(" ");
            found.push(Line { indent: line.len() - trimmed.len(), key, value: value.trim(), comment });
        } else if trimmed.is_empty() {
            comment.clear();
        } else {
            bail!("neither key nor comment: {line}");
        }
    }
    Ok(found)
}

/// A row for each value of a block.
fn rows(block: &[Line<'_>], path: &str) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for entry in entries(block) {
        let (line, below) = (&entry[0], &entry[1..]);
        let path = [path, line.key].join(".").trim_start_matches('.').to_owned();
        if line.comment.is_empty() {
            ensure!(!below.is_empty(), "no comment above the value {path}");
            rows.extend(self::rows(below, &path)?);
        } else {
            let meaning = line.comment.replace('|', "\\|");
            rows.push(format!("| `{path}` | `{}` | {meaning} |\n", default(entry)));
        }
    }
    Ok(rows)
}

/// Each key of a block with the lines that belong to it.
fn entries<'a>(block: &'a [Line<'a>]) -> Vec<&'a [Line<'a>]> {
    let Some(first) = block.first() else { return Vec::new() };
    let starts: Vec<_> = (0..block.len()).filter(|at| block[*at].indent == first.indent).collect();
    let ends = starts.iter().skip(1).copied().chain([block.len()]);
    starts.iter().zip(ends).map(|(start, end)| &block[*start..end]).collect()
}

/// The value of an entry, on one line.
fn default(entry: &[Line<'_>]) -> String {
    if entry.len() == 1 {
        return entry[0].value.to_owned();
    }
    let below = entries(&entry[1..]).into_iter().map(|entry| format!("{}: {}", entry[0].key, default(entry)));
    format!("{{{}}}", below.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_values_and_defaults_are_told_apart() {
        let text = "# How many.\n# Of them.\nreplicas: 2\n\nimage:\n  # The | tag.\n  tag: \"\"\n\n# Free.\nlabels:\n  a:\n    b: \"1\"\n  c: 2\n";
        let expected = [
            "| `replicas` | `2` | How many. Of them. |\n",
            "| `image.tag` | `\"\"` | The \\| tag. |\n",
            "| `labels` | `{a: {b: \"1\"}, c: 2}` | Free. |\n",
        ];
        assert_eq!(rows(&lines(text).unwrap(), "").unwrap(), expected);
    }
}

//! The files of the repository that are generated: pages of the documentation, their tables, and the
//! CustomResourceDefinitions.
//!
//! Everything in them comes from values that the programs export: reasons, replies, metrics, refusals, the definition of the
//! resource. The other words stand here. Refuses to read Rust source; a page of which only a table is generated is read,
//! and keeps what is around it.

mod annotations;
mod chart_values;
mod messages;
mod metrics;
mod page;
mod plugin;
mod reasons;
mod replies;
mod resource;
mod troubleshooting;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use mailroute_operator_core::crd::definition;

/// What writes all of them again.
pub const COMMAND: &str = "cargo run -p mailroute-docgen -- --write";

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it goes, from the root of the checkout.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

impl File {
    /// Whether this is what the checkout at `root` has. A file that cannot be read is not.
    pub fn is_current(&self, root: &Path) -> bool {
        fs::read_to_string(root.join(self.path)).is_ok_and(|text| text == self.text)
    }

    /// Writes it to its place in the checkout at `root`.
    ///
    /// # Errors
    /// When the file or its folder cannot be written.
    pub fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(self.path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&path, &self.text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Every generated file, as it should be in the checkout at `root`.
///
/// # Errors
/// When a page of which a part is generated cannot be read, or lacks the place for it.
pub fn files(root: &Path) -> Result<Vec<File>> {
    let definitions = definition::manifests()?.into_iter().chain(definition::chart_templates()?);
    let mut files: Vec<_> =
        definitions.map(|definition| File { path: definition.path, text: definition.text }).collect();
    files.extend([
        File { path: "docs/reference/mailroute.md", text: resource::page()? },
        File { path: "docs/reference/reasons.md", text: reasons::page() },
        File { path: "docs/reference/messages.md", text: messages::page()? },
        File { path: "docs/reference/kubectl-mailroute.md", text: plugin::page() },
        File { path: "docs/troubleshooting.md", text: troubleshooting::page() },
    ]);
    for (path, filled) in PARTLY {
        let old = fs::read_to_string(root.join(path)).with_context(|| {
            format!("cannot read {path} in {}; --root names the checkout", root.display())
        })?;
        files.push(File {
            path,
            text: filled(root, &old).with_context(|| format!("{path} cannot be filled in"))?,
        });
    }
    Ok(files)
}

/// Fills in what is generated of a page. Takes the checkout and the page.
type FillIn = fn(&Path, &str) -> Result<String>;

/// Pages of which a part is generated.
const PARTLY: [(&str, FillIn); 6] = [
    ("docs/reference/replies.md", |_, page| replies::of_microsoft(page)),
    ("docs/reference/smtp.md", |_, page| replies::of_the_sidecar(page)),
    ("docs/reference/metrics.md", |_, page| metrics::fill_in(page)),
    ("docs/reference/annotations.md", |_, page| annotations::fill_in(page)),
    ("charts/mailroute/README.md", |root, page| chart_values::fill_in(root, "mailroute", page)),
    ("charts/mailroute-gateway/README.md", |root, page| {
        chart_values::fill_in(root, "mailroute-gateway", page)
    }),
];

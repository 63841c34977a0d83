//! The operator's chart as the real Helm renders it, without a cluster.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::scene::release;
use crate::tools::Tools;

/// Values that switch on whatever the operator's chart has, but for what only another source of the certificate needs.
pub const EVERYTHING: [&str; 6] = [
    "networkPolicy.limitEgress=true",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.podMonitor.enabled=true",
    "monitoring.rules.enabled=true",
    "monitoring.dashboard.enabled=true",
    "watch.namespaces={shop}",
];

/// Helm renders for this version, as it cannot ask a cluster.
pub const KUBERNETES: &str = "1.36.3";

/// The folder of the chart.
pub fn folder() -> PathBuf {
    release::repository().join("charts/mailroute")
}

/// Runs `helm template` for a release in the usual namespace.
///
/// # Errors
/// When Helm cannot be run; what it thinks of the chart is in the output.
pub fn template(release: &str, arguments: &[&str]) -> Result<Output> {
    template_with(&Tools::find()?.helm(), release, arguments)
}

/// The same with another Helm.
///
/// # Errors
/// As for [`template`].
pub fn template_with(helm: &std::path::Path, release: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(helm);
    command.args(["template", release, "--namespace", release::NAMESPACE, "--kube-version", KUBERNETES]);
    Ok(command.args(arguments).arg(folder()).output()?)
}

/// What `helm template` prints.
///
/// # Errors
/// What Helm says when it refuses.
pub fn text(arguments: &[&str]) -> Result<String> {
    printed(template(release::NAME, arguments)?)
}

/// The text of an output that has to be a success.
///
/// # Errors
/// What Helm says otherwise.
pub fn printed(output: Output) -> Result<String> {
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of the chart.
#[derive(Debug)]
pub struct Objects(Vec<Value>);

impl Objects {
    /// Renders the chart with some values set (`replicas=3`, each as for Helm's `--set`).
    ///
    /// # Errors
    /// Helm's refusal, or text that is no YAML.
    pub fn with(values: &[&str]) -> Result<Self> {
        let arguments: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
        Self::parse(&text(&arguments)?)
    }

    /// Reads what Helm printed.
    ///
    /// # Errors
    /// When it is no YAML.
    pub fn parse(text: &str) -> Result<Self> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
        Ok(Self(objects.into_iter().filter(|object| !object.is_null()).collect()))
    }

    /// All of them.
    pub fn all(&self) -> &[Value] {
        &self.0
    }

    /// Those of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The one of a kind.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn only(&self, kind: &str) -> Result<&Value> {
        let found = self.of_kind(kind);
        ensure!(found.len() < 2, "{} objects of the kind {kind}", found.len());
        found.first().copied().with_context(|| format!("no object of the kind {kind}"))
    }
}

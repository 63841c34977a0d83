//! The charts of operator and gateway as the real Helm renders them, without a cluster.

use std::path::{Path, PathBuf};
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

/// Name of the gateway's release, and so of its StatefulSet and of its headless Service.
pub const GATEWAY: &str = "mail-gateway";

/// Namespace of the gateway's release, as of its route.
pub const GATEWAY_NAMESPACE: &str = "shop";

/// The folder of the operator's chart.
pub fn folder() -> PathBuf {
    release::repository().join("charts/mailroute")
}

/// The folder of the gateway's chart.
pub fn gateway_folder() -> PathBuf {
    folder().with_file_name("mailroute-gateway")
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
pub fn template_with(helm: &Path, release: &str, arguments: &[&str]) -> Result<Output> {
    let arguments = [&["template", release, "--namespace", release::NAMESPACE], arguments].concat();
    run(helm, &arguments, &folder())
}

/// Runs `helm template` on the gateway's chart, for a release in the namespace of its route.
///
/// # Errors
/// As for [`template`].
pub fn gateway_with(helm: &Path, release: &str, arguments: &[&str]) -> Result<Output> {
    let arguments = [&["template", release, "--namespace", GATEWAY_NAMESPACE], arguments].concat();
    run(helm, &arguments, &gateway_folder())
}

fn run(helm: &Path, arguments: &[&str], chart: &Path) -> Result<Output> {
    let mut command = Command::new(helm);
    Ok(command.args(arguments).args(["--kube-version", KUBERNETES]).arg(chart).output()?)
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

/// The objects of a chart.
#[derive(Debug)]
pub struct Objects(Vec<Value>);

impl Objects {
    /// Renders the operator's chart with some values set (`replicas=3`, each as for Helm's `--set`).
    ///
    /// # Errors
    /// Helm's refusal, or text that is no YAML.
    pub fn with(values: &[&str]) -> Result<Self> {
        let arguments: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
        Self::parse(&text(&arguments)?)
    }

    /// Renders the gateway's chart for the route `notifications` with some values set.
    ///
    /// # Errors
    /// Helm's refusal, or text that is no YAML.
    pub fn of_gateway(values: &[&str]) -> Result<Self> {
        let values = values.iter().chain(&["route=notifications"]);
        let arguments: Vec<_> = values.flat_map(|value| ["--set", value]).collect();
        Self::parse(&printed(gateway_with(&Tools::find()?.helm(), GATEWAY, &arguments)?)?)
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

    /// All of them as text, in an order that does not depend on how they came.
    pub fn sorted_texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.0.iter().map(Value::to_string).collect();
        texts.sort();
        texts
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

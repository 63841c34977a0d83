//! The operator's chart as text: what the real Helm renders from it, and which values it refuses. No cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use e2e::tools::Tools;
use serde_json::Value;

/// Helm renders for this version, as it cannot ask a cluster.
const KUBERNETES: &str = "1.36.3";

#[test]
fn the_same_values_render_the_same_text() -> Result<()> {
    ensure!(rendered(&[])? == rendered(&[])?, "helm template prints something else the second time");
    Ok(())
}

#[test]
fn neither_a_ca_bundle_nor_secret_data_is_rendered() -> Result<()> {
    let objects = rendered(&[])?;
    for field in ["caBundle:", "data:", "stringData:", "binaryData:"] {
        let found = objects.lines().find(|line| line.trim_start().starts_with(field));
        ensure!(found.is_none(), "the chart would take {field} back from the operator on every upgrade");
    }
    Ok(())
}

#[test]
fn malformed_and_unknown_values_are_refused_by_name() -> Result<()> {
    let refusals = [
        ("imge.tag=1", "imge"),
        ("webhook.failurePolicy=Ignore", "failurePolicy"),
        ("replicas=0", "/replicas"),
        ("certificates.source=Own", "/certificates/source"),
        ("certificates.certManager.duration=90d", "/certificates/certManager/duration"),
        ("logLevel=loud", "/logLevel"),
        ("logFormat=xml", "/logFormat"),
        ("clusterDomain=cluster..local", "/clusterDomain"),
        ("image.repository=registry.example.com/operator:1", "/image/repository"),
        ("image.digest=sha256:12", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("sidecar.image.tag=a/b", "/sidecar/image/tag"),
        ("imagePullSecrets[0]=pull", "/imagePullSecrets/0"),
        ("sidecar.imagePullSecrets[0]=Not_A_Name", "/sidecar/imagePullSecrets/0"),
        ("webhook.excludedNamespaces[0]=Not_A_Name", "/webhook/excludedNamespaces/0"),
        ("resources.limits.memory=256MB", "/resources/limits/memory"),
    ];
    for (value, named) in refusals {
        let output = helm("mailroute", &["--set", value])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{value} is accepted");
        ensure!(told.contains(named), "{value}: the refusal does not name {named}: {told}");
    }
    Ok(())
}

#[test]
fn kubernetes_without_stable_native_sidecars_is_refused() -> Result<()> {
    let output = Command::new(Tools::find()?.helm())
        .args(["template", "mailroute", "--kube-version", "1.32.0"])
        .arg(chart())
        .output()?;
    ensure!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(">=1.33"));
    Ok(())
}

#[test]
fn a_digest_decides_which_image_runs() -> Result<()> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let objects = rendered(&["--set", &format!("image.digest={digest}")])?;
    ensure!(objects.contains(&format!("image: \"mailroute.dev/operator:0.1.0@{digest}\"")), "{objects}");
    ensure!(objects.contains("value: \"mailroute.dev/sidecar:0.1.0\""), "{objects}");
    Ok(())
}

#[test]
fn pull_secrets_of_the_sidecar_are_handed_to_the_operator() -> Result<()> {
    let name = "MAILROUTE_SIDECAR_IMAGE_PULL_SECRETS";
    ensure!(!rendered(&[])?.contains(name), "there are none by default");
    let objects = rendered(&["--set", "sidecar.imagePullSecrets={one,two}"])?;
    ensure!(objects.contains(&format!("- name: {name}\n              value: \"one,two\"")), "{objects}");
    Ok(())
}

#[test]
fn only_what_the_source_of_the_certificate_needs_is_allowed() -> Result<()> {
    let holds = |source: &str, rule: &str| -> Result<bool> {
        let objects = rendered(&["--set", &format!("certificates.source={source}")])?;
        Ok(objects.lines().map(str::trim).collect::<Vec<_>>().join("\n").contains(rule))
    };
    let bundle =
        "resources: [mutatingwebhookconfigurations]\nresourceNames: [mailroute]\nverbs: [list, watch, patch]";
    let secret = "resources: [secrets]\nresourceNames: [mailroute-tls]\nverbs: [list, watch]";
    let create = "resources: [secrets]\nverbs: [create]";
    for (source, allowed) in [
        ("Operator", [true, false, true]),
        ("CertManager", [false, true, false]),
        ("Secret", [true, true, false]),
    ] {
        let found = [holds(source, bundle)?, holds(source, secret)?, holds(source, create)?];
        ensure!(found == allowed, "{source}: {found:?}");
        ensure!(
            holds(source, "cert-manager.io/inject-ca-from: mailroute-system/mailroute")?
                == (source == "CertManager")
        );
    }
    Ok(())
}

#[test]
fn two_releases_share_no_cluster_wide_name() -> Result<()> {
    let names = |release| -> Result<Vec<String>> {
        let objects = printed(helm(release, &[])?)?;
        let cluster_wide = objects.split("\n---\n").filter(|object| !object.contains("\n  namespace:"));
        let name = |object: &str| object.lines().find(|line| line.starts_with("  name:")).map(str::to_owned);
        Ok(cluster_wide.filter_map(name).collect())
    };
    let (one, other) = (names("mailroute")?, names("second")?);
    ensure!(one.len() == 3, "a role, its binding and the webhook are cluster-wide: {one:?}");
    ensure!(one.iter().all(|name| !other.contains(name)), "{one:?} and {other:?}");
    Ok(())
}

#[test]
fn the_cluster_role_reads_no_secret_and_holds_no_wildcard() -> Result<()> {
    let objects = rendered(&[])?;
    let role = objects.split("\n---\n").find(|object| object.contains("\nkind: ClusterRole\n"));
    let role = role.context("the chart has a ClusterRole")?;
    let rules =
        role.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    ensure!(!rules.contains("secrets") && !rules.contains('*'), "{rules}");
    Ok(())
}

#[test]
fn every_value_is_in_the_readme_and_has_a_comment() -> Result<()> {
    let read = |file: &str| std::fs::read_to_string(chart().join(file)).with_context(|| file.to_owned());
    let schema: Value = serde_json::from_str(&read("values.schema.json")?)?;
    let (readme, values) = (read("README.md")?, read("values.yaml")?);
    for key in keys(&schema, &schema, "") {
        ensure!(readme.contains(&format!("`{key}`")), "charts/mailroute/README.md lacks `{key}`");
    }
    let lines: Vec<_> = values.lines().collect();
    for (line, above) in lines.iter().skip(1).zip(&lines) {
        let is_leaf = line.trim_start().split_once(": ").is_some_and(|(key, _)| !key.starts_with('#'));
        let described = line.starts_with("    ") || above.trim_start().starts_with('#');
        ensure!(!is_leaf || described, "charts/mailroute/values.yaml: no comment above {line:?}");
    }
    Ok(())
}

/// Paths of all values that a person sets, as the README writes them; objects of free keys and of Kubernetes' own
/// types count as one.
fn keys(root: &Value, schema: &Value, path: &str) -> Vec<String> {
    let target =
        schema["$ref"].as_str().and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    let schema = target.unwrap_or(schema);
    let own =
        ["image", "sidecar", "sidecar.image", "certificates", "certificates.certManager", "webhook", ""];
    match schema["properties"].as_object() {
        Some(properties) if own.contains(&path) => properties
            .iter()
            .filter(|(name, _)| *name != "global")
            .flat_map(|(name, inner)| keys(root, inner, [path, name].join(".").trim_start_matches('.')))
            .collect(),
        _ => vec![path.to_owned()],
    }
}

fn rendered(arguments: &[&str]) -> Result<String> {
    printed(helm("mailroute", arguments)?)
}

fn printed(output: Output) -> Result<String> {
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn helm(release: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(Tools::find()?.helm());
    command.args(["template", release, "--namespace", "mailroute-system", "--kube-version", KUBERNETES]);
    Ok(command.args(arguments).arg(chart()).output()?)
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mailroute")
}

//! Which namespaces may send as which mailbox, in the chart: what the values become, read by the operator's own parser. No cluster.

use anyhow::{Context, Result, ensure};
use e2e::chart::{Objects, text};
use mailroute_operator_core::resolve::mailbox_rules::MailboxRules;
use serde_json::json;

/// The values that the guide shows.
fn rendered() -> Result<Objects> {
    let page = std::fs::read_to_string(e2e::scene::release::repository().join("docs/guides/limits.md"))?;
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.starts_with("mailboxes:")).context("the values")?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), block)?;
    Objects::parse(&text(&["--values", &file.path().display().to_string()])?)
}

#[test]
fn the_operator_reads_the_rules_of_the_guide_where_the_chart_mounts_them() -> Result<()> {
    let objects = rendered()?;
    let settings = objects.only("ConfigMap")?["data"]["mailboxes.yaml"].as_str().context("the rules")?;
    let rules = MailboxRules::parse(settings)?;
    ensure!(rules.mailboxes.iter().any(|rule| rule.is_for("shop") && rule.has("noreply@contoso.com")));
    ensure!(!rules.mailboxes.iter().any(|rule| rule.is_for("billing") && rule.has("noreply@contoso.com")));
    let pod = &objects.only("Deployment")?["spec"]["template"]["spec"];
    let arguments = pod["containers"][0]["args"].as_array().context("arguments")?;
    ensure!(
        arguments.contains(&json!("--mailbox-rules=/etc/mailroute/mailboxes/mailboxes.yaml")),
        "{arguments:?}"
    );
    let mount = &pod["containers"][0]["volumeMounts"][0];
    ensure!(mount["mountPath"] == "/etc/mailroute/mailboxes" && mount["name"] == "mailboxes", "{mount}");
    ensure!(pod["volumes"][0]["configMap"]["name"] == "mailroute-mailboxes", "{}", pod["volumes"]);
    Ok(())
}

#[test]
fn without_rules_every_namespace_may_name_every_mailbox() -> Result<()> {
    ensure!(!text(&[])?.contains("mailbox-rules"));
    Ok(())
}

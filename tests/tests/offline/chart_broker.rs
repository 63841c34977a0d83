//! The operator's identity in the chart: what its values become, read by the operator's own parser. No cluster.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use e2e::chart::{Objects, folder, template, text};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::resolve::operator_identity::{IdentityNotAllowed, OperatorIdentity, TOKEN_FILE};
use mailroute_route::paths::ENTRA_AUDIENCE;
use serde_json::{Value, json};

/// The values that the guide shows.
fn of_the_guide() -> Result<String> {
    let page = fs::read_to_string(folder().join("../../docs/guides/operator-identity.md"))?;
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.trim_start().starts_with("broker:")).context("the values")?;
    let indent = block.len() - block.trim_start().len();
    Ok(block.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect())
}

/// What Helm makes of values in a file.
fn rendered(values: &str) -> Result<Objects> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(values.as_bytes())?;
    let file = file.path().display().to_string();
    Objects::parse(&text(&["--values", &file, "--set", "networkPolicy.limitEgress=true"])?)
}

fn settings(objects: &Objects) -> Result<OperatorIdentity> {
    let text = objects.only("ConfigMap")?["data"]["broker.yaml"].as_str().context("the settings")?;
    Ok(OperatorIdentity::parse(text)?)
}

fn example(namespace: &str) -> Result<MailRoute> {
    let text = fs::read_to_string(folder().join("../../docs/examples/operator-identity.yaml"))?;
    let mut route: Value = serde_saphyr::from_str(&text)?;
    route["metadata"]["namespace"] = namespace.into();
    Ok(serde_json::from_value(route)?)
}

#[test]
fn the_values_of_the_guide_allow_the_example_route_where_they_say() -> Result<()> {
    let settings = settings(&rendered(&of_the_guide()?)?)?;
    for namespace in ["shop", "billing"] {
        ensure!(settings.application_for(&example(namespace)?)?.is_some(), "{namespace}");
    }
    let elsewhere = settings.application_for(&example("kitchen")?);
    ensure!(matches!(elsewhere, Err(IdentityNotAllowed::Mailbox { .. })), "{elsewhere:?}");
    Ok(())
}

#[test]
fn the_operator_reads_what_the_chart_mounts() -> Result<()> {
    let objects = rendered(&of_the_guide()?)?;
    let spec = &objects.only("Deployment")?["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let arguments = container["args"].as_array().context("arguments")?;
    let file = arguments.iter().find_map(|it| it.as_str()?.strip_prefix("--broker-settings="));
    let mounted = |path: &str| {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let mut found = mounts.filter(|mount| path.starts_with(mount["mountPath"].as_str().unwrap_or("-")));
        let name = found.next().map(|mount| mount["name"].clone());
        let volumes = spec["volumes"].as_array().into_iter().flatten();
        volumes.clone().find(|volume| Some(&volume["name"]) == name.as_ref()).cloned()
    };
    let configuration = mounted(file.context("no --broker-settings")?).context("it is not mounted")?;
    ensure!(configuration["configMap"]["name"] == objects.only("ConfigMap")?["metadata"]["name"]);
    let identity = mounted(TOKEN_FILE).context("the token is not mounted")?;
    let token = json!({"audience": ENTRA_AUDIENCE, "expirationSeconds": 3600, "path": "token"});
    ensure!(identity["projected"]["sources"] == json!([{"serviceAccountToken": token}]), "{identity:#}");
    Ok(())
}

#[test]
fn a_change_of_who_may_restarts_the_operator() -> Result<()> {
    let guide = of_the_guide()?;
    let hash = |values: &str| -> Result<Value> {
        let metadata = rendered(values)?.only("Deployment")?["spec"]["template"]["metadata"].clone();
        Ok(metadata["annotations"]["mailroute.dev/broker-hash"].clone())
    };
    let (before, after) = (hash(&guide)?, hash(&guide.replace("billing", "kitchen"))?);
    ensure!(before.is_string() && before != after, "{before} and {after}");
    ensure!(hash("broker: {applications: []}")? == Value::Null);
    Ok(())
}

#[test]
fn without_applications_the_operator_has_no_identity_for_entra() -> Result<()> {
    let text = text(&[])?;
    for trace in [ENTRA_AUDIENCE, "broker"] {
        ensure!(!text.contains(trace), "{trace}");
    }
    Ok(())
}

#[test]
fn the_network_policy_lets_the_operator_out_to_entra() -> Result<()> {
    let egress = |values: &str| -> Result<Vec<Value>> {
        let policy = rendered(values)?.only("NetworkPolicy")?.clone();
        policy["spec"]["egress"].as_array().context("rules").cloned()
    };
    let to_anywhere = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
        json!({"ports": ports})
    };
    let guide = of_the_guide()?;
    let rules = egress(&guide)?;
    ensure!(rules.contains(&to_anywhere(&[443])), "{rules:#?}");
    let elsewhere =
        guide.replace("      allow:\n", "      authority: {host: 'login.example:8443'}\n      allow:\n");
    ensure!(elsewhere != guide, "the guide has no such line");
    let rules = egress(&elsewhere)?;
    ensure!(rules.contains(&to_anywhere(&[443, 8443])), "{rules:#?}");
    Ok(())
}

/// The values of the guide's second example, which name the proxy.
#[test]
fn the_guide_says_how_the_operator_is_told_of_a_proxy() -> Result<()> {
    let page = fs::read_to_string(folder().join("../../docs/guides/operator-identity.md"))?;
    let mut blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let values = blocks.find(|block| block.trim_start().starts_with("extraEnv:")).context("the values")?;
    let objects = rendered(values)?;
    let environment = &objects.only("Deployment")?["spec"]["template"]["spec"]["containers"][0]["env"];
    let variable = |name: &str| environment.as_array()?.iter().find(|it| it["name"] == name).cloned();
    let proxy = variable("HTTPS_PROXY").context("the proxy")?;
    ensure!(proxy["valueFrom"]["secretKeyRef"]["name"] == "web-proxy", "{proxy}");
    ensure!(variable("NO_PROXY").is_some() && variable("POD_NAME").is_some(), "{environment:#}");
    Ok(())
}

#[test]
fn what_the_operator_would_refuse_helm_refuses() -> Result<()> {
    let application = "broker.applications[0]";
    let good = [
        format!("{application}.tenantId=contoso.com"),
        format!("{application}.clientId=1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"),
        format!("{application}.allow[0].namespaces={{shop}}"),
        format!("{application}.allow[0].mailboxes={{noreply@contoso.com}}"),
    ];
    let refused = |bad: &str| -> Result<bool> {
        let values = good.iter().map(String::as_str).chain([bad]);
        let arguments: Vec<_> = values.flat_map(|value| ["--set", value]).collect();
        Ok(!template("mailroute", &arguments)?.status.success())
    };
    ensure!(!refused("replicas=2")?, "what is good is taken");
    for bad in [
        "clientId=shop-mail",
        "tenantId=a/b",
        "allow[0].namespaces={Sh*p}",
        "allow[0].mailboxes={*}",
        "allow[1].namespaces={shop}",
        "authority.host=https://login.example",
        "endpoint.port=465",
        "clientSecret=x",
    ] {
        ensure!(refused(&format!("{application}.{bad}"))?, "{bad} is taken");
    }
    Ok(())
}

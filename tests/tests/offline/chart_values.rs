//! The operator's chart as text: what the real Helm renders from it, and which values it refuses; and what holds for every
//! chart. No cluster.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::chart::{Objects, folder, gateway_folder, printed, template, template_with, text as rendered};
use e2e::tools::Tools;
use serde_json::Value;

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
        ("entra.audiences[0]=mailroute.dev", "/entra/audiences/0"),
        ("entra.audiences[0]=https://kubernetes.default.svc", "/entra/audiences/0"),
        ("broker.audience=mailroute.dev", "/broker/audience"),
        ("image.digest=sha256:12", "/image/digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("sidecar.image.tag=a/b", "/sidecar/image/tag"),
        ("imagePullSecrets[0]=pull", "/imagePullSecrets/0"),
        ("sidecar.imagePullSecrets[0]=Not_A_Name", "/sidecar/imagePullSecrets/0"),
        ("webhook.excludedNamespaces[0]=Not_A_Name", "/webhook/excludedNamespaces/0"),
        ("resources.limits.memory=256MB", "/resources/limits/memory"),
        ("watch.namespaces[0]=Not_A_Name", "/watch/namespaces/0"),
        ("mailboxes[0].namespaces[0]=shop", "mailboxes"),
        ("mailboxes[0].mailbox=a@contoso.com", "mailbox"),
        ("commonLabels.team=a b", "/commonLabels/team"),
        ("podDisruptionBudget.maxUnavailable=0", "/podDisruptionBudget/maxUnavailable"),
        ("networkPolicy.apiServer.cidrs[0]=api-server", "/networkPolicy/apiServer/cidrs/0"),
        ("networkPolicy.metricsFrom[0].pods=all", "pods"),
        ("topologySpreadConstraints[0].topologyKey=zone", "maxSkew"),
        ("monitoring.podMonitor.interval=often", "/monitoring/podMonitor/interval"),
        ("monitoring.rules.disabled[0]=Watchdog", "/monitoring/rules/disabled/0"),
        ("monitoring.rules.runbookUrl=runbooks/", "/monitoring/rules/runbookUrl"),
    ];
    for (value, named) in refusals {
        let output = template("mailroute", &["--set", value])?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{value} is accepted");
        ensure!(told.contains(named), "{value}: the refusal does not name {named}: {told}");
    }
    Ok(())
}

#[test]
fn values_that_contradict_each_other_or_the_chart_are_refused_with_a_sentence() -> Result<()> {
    let refusals: [(&[&str], &str); 4] = [
        (&["dns.nameserver=8.8.8.8"], "add :53"),
        (&["extraEnv[0].name=POD_IP"], "extraEnv has POD_IP, which the chart sets itself"),
        (&["extraEnv[0].name=MAILROUTE_SIDECAR_IMAGE"], "extraEnv has MAILROUTE_SIDECAR_IMAGE"),
        (
            &["watch.namespaces={shop,crm}", "webhook.excludedNamespaces={crm}"],
            "namespace crm is in watch.namespaces and in webhook.excludedNamespaces",
        ),
    ];
    for (values, said) in refusals {
        let arguments: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
        let output = template("mailroute", &arguments)?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && told.contains(said), "{values:?}: {told}");
    }
    for accepted in ["8.8.8.8:53", "[2001:db8::1]:53"] {
        rendered(&["--set", &format!("dns.nameserver={accepted}")])?;
    }
    Ok(())
}

#[test]
fn kubernetes_without_stable_native_sidecars_is_refused() -> Result<()> {
    let output = Command::new(Tools::find()?.helm())
        .args(["template", "mailroute", "--kube-version", "1.32.0"])
        .arg(folder())
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
fn audiences_that_routes_may_name_are_handed_to_the_operator() -> Result<()> {
    let name = "MAILROUTE_ENTRA_AUDIENCES";
    ensure!(!rendered(&[])?.contains(name), "there are none by default");
    let objects = rendered(&["--set", "entra.audiences={api://one,api://two}"])?;
    ensure!(
        objects.contains(&format!("- name: {name}\n              value: \"api://one,api://two\"")),
        "{objects}"
    );
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
    // The CA of sidecars and gateways is the operator's own in any case.
    let own = "resources: [secrets]\nresourceNames: [mailroute-ca]\nverbs: [list, watch, update]\n- apiGroups: [\"\"]\n\
               resources: [secrets]\nverbs: [create]";
    for (source, allowed) in [
        ("Operator", [true, false, true]),
        ("CertManager", [false, true, true]),
        ("Secret", [true, true, true]),
    ] {
        let found = [holds(source, bundle)?, holds(source, secret)?, holds(source, own)?];
        ensure!(found == allowed, "{source}: {found:?}");
        ensure!(
            holds(source, "cert-manager.io/inject-ca-from: mailroute-system/mailroute")?
                == (source == "CertManager")
        );
    }
    Ok(())
}

#[test]
fn helm_3_renders_the_same_objects_as_helm_4() -> Result<()> {
    let tools = Tools::find()?;
    let on = [
        "--set",
        "networkPolicy.limitEgress=true,watch.namespaces={shop},monitoring.rules.enabled=true,\
         monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true,monitoring.dashboard.enabled=true",
    ];
    let sorted = |helm| -> Result<Vec<String>> {
        let objects = Objects::parse(&printed(template_with(helm, "mailroute", &on)?)?)?;
        Ok(objects.sorted_texts())
    };
    let (three, four) = (sorted(&tools.helm3()?)?, sorted(&tools.helm())?);
    ensure!(three == four, "Helm 3: {three:#?}\nHelm 4: {four:#?}");
    Ok(())
}

/// What the gateway's chart has no default for.
const ROUTE: [&str; 2] = ["--set", "route=notifications"];

#[test]
fn neither_helm_finds_fault_with_the_charts() -> Result<()> {
    let tools = Tools::find()?;
    for helm in [tools.helm3()?, tools.helm()] {
        for (chart, values) in
            [("mailroute", &[][..]), ("mailroute-crds", &[]), ("mailroute-gateway", &ROUTE)]
        {
            let output = Command::new(&helm)
                .args(["lint", "--strict"])
                .args(values)
                .arg(folder().with_file_name(chart))
                .output()?;
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                output.status.success() && told.contains(" 0 chart(s) failed"),
                "{helm:?}, {chart}: {told}"
            );
        }
    }
    Ok(())
}

#[test]
fn two_releases_share_no_cluster_wide_name() -> Result<()> {
    let names = |release| -> Result<Vec<String>> {
        let objects = Objects::parse(&printed(template(release, &[])?)?)?;
        let cluster_wide = objects.all().iter().filter(|object| object["metadata"]["namespace"].is_null());
        Ok(cluster_wide.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect())
    };
    let (one, other) = (names("mailroute")?, names("second")?);
    ensure!(
        one.len() == 15,
        "three roles, a binding, the webhook and five policies with bindings are cluster-wide: {one:?}"
    );
    ensure!(one.iter().all(|name| !other.contains(name)), "{one:?} and {other:?}");
    Ok(())
}

#[test]
fn every_value_is_in_the_schema_and_every_key_of_the_schema_has_a_default() -> Result<()> {
    for chart in [folder(), gateway_folder()] {
        let file = |name: &str| std::fs::read_to_string(chart.join(name));
        let schema: Value = serde_json::from_str(&file("values.schema.json")?)?;
        let values: Value = serde_saphyr::from_str(&file("values.yaml")?)?;
        let mut keys = Vec::new();
        compare(&schema, &schema, &values, "", &mut keys)?;
        ensure!(keys.len() > 40, "the schema is not read right: {keys:?}");
    }
    Ok(())
}

/// Walks schema and values side by side as far as the schema names keys.
fn compare(root: &Value, schema: &Value, values: &Value, path: &str, keys: &mut Vec<String>) -> Result<()> {
    let target = schema["$ref"].as_str().and_then(|to| root.pointer(to.trim_start_matches('#')));
    let schema = target.unwrap_or(schema);
    keys.push(path.to_owned());
    let (Some(properties), Some(set)) = (schema["properties"].as_object(), values.as_object()) else {
        return Ok(());
    };
    let closed = schema["additionalProperties"] == false;
    ensure!(closed, "{path}: unknown keys would pass");
    // What belongs to Kubernetes' own types has no default here.
    if set.is_empty() || path == ".resources" {
        return Ok(());
    }
    for (key, inner) in properties.iter().filter(|(key, _)| *key != "global") {
        let value = set.get(key).with_context(|| format!("values.yaml lacks {path}.{key}"))?;
        compare(root, inner, value, &format!("{path}.{key}"), keys)?;
    }
    Ok(())
}

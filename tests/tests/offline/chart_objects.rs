//! Each template by itself: that it renders when it is asked for, and what of it has to fit the others.

use anyhow::{Context, Result, ensure};
use e2e::chart::{EVERYTHING, Objects, folder, printed, template, text};
use serde_json::{Value, json};

/// Something that the operator's identity is lent for.
const LENT: &str = r#"broker.applications=[{"tenantId": "contoso.com",
    "clientId": "11111111-2222-3333-4444-555555555555", "allow": [{"namespaces": ["shop"], "mailboxes": ["*@contoso.com"]}]}]"#;

/// Who may send as which mailbox.
const RULES: &str = r#"mailboxes=[{"namespaces": ["shop"], "mailboxes": ["*@contoso.com"]}]"#;

fn everything(source: &str) -> Vec<String> {
    let source = format!("certificates.source={source}");
    let set =
        EVERYTHING.into_iter().chain([source.as_str()]).flat_map(|value| ["--set", value].map(str::to_owned));
    let json = [LENT, RULES].into_iter().flat_map(|value| ["--set-json", value].map(str::to_owned));
    set.chain(json).collect()
}

#[test]
fn every_template_renders_what_is_switched_on() -> Result<()> {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder().join("templates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".yaml") {
            continue;
        }
        let source = if name == "certificate.yaml" { "CertManager" } else { "Operator" };
        let shown = format!("templates/{name}");
        let mut arguments = everything(source);
        arguments.extend(["--show-only".to_owned(), shown]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let objects = Objects::parse(&printed(template("mailroute", &arguments)?)?)?;
        ensure!(!objects.all().is_empty(), "{name} renders nothing");
        seen += 1;
    }
    ensure!(seen > 15, "{seen} templates");
    Ok(())
}

#[test]
fn whatever_is_switched_on_the_same_values_render_the_same_text() -> Result<()> {
    for source in ["Operator", "CertManager", "Secret"] {
        let arguments = everything(source);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        ensure!(text(&arguments)? == text(&arguments)?, "{source}: something else the second time");
    }
    Ok(())
}

#[test]
fn the_service_leads_to_ports_of_the_pods_it_selects() -> Result<()> {
    let objects = Objects::with(&[])?;
    let (service, deployment) = (objects.only("Service")?, objects.only("Deployment")?);
    let pod = &deployment["spec"]["template"];
    for (key, value) in service["spec"]["selector"].as_object().context("a selector")? {
        ensure!(pod["metadata"]["labels"][key] == *value, "no pod has {key}={value}");
    }
    ensure!(deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]);
    let open = pod["spec"]["containers"][0]["ports"].as_array().context("ports")?;
    for port in service["spec"]["ports"].as_array().context("ports")? {
        ensure!(open.iter().any(|it| it["name"] == port["targetPort"]), "{} of {open:?}", port["targetPort"]);
    }
    // The API server and sidecars use these.
    let webhook = &objects.only("MutatingWebhookConfiguration")?["webhooks"][1]["clientConfig"]["service"];
    ensure!(webhook["name"] == service["metadata"]["name"] && webhook["port"] == 443, "{webhook}");
    let numbers = service["spec"]["ports"].as_array().into_iter().flatten();
    let numbers: Vec<_> = numbers.map(|port| port["port"].as_u64()).collect();
    ensure!(numbers == [Some(443), Some(8444), Some(8080)], "{numbers:?}");
    Ok(())
}

#[test]
fn what_the_operator_fills_is_rendered_empty() -> Result<()> {
    let objects = Objects::with(&[])?;
    let empty = objects.of_kind("ConfigMap").into_iter().chain(objects.of_kind("Secret"));
    for object in empty.chain(objects.of_kind("Lease")) {
        let found = ["data", "stringData", "binaryData", "spec"].iter().find(|key| !object[**key].is_null());
        ensure!(found.is_none(), "{} {} has {found:?}", object["kind"], object["metadata"]["name"]);
    }
    for source in ["CertManager", "Secret"] {
        let objects = Objects::with(&[&format!("certificates.source={source}")])?;
        // The served certificate is in a Secret that its issuer makes.
        ensure!(names(&objects, "Secret") == ["mailroute-ca"], "{source}: {:?}", names(&objects, "Secret"));
    }
    Ok(())
}

/// The names of the objects of a kind.
fn names(objects: &Objects, kind: &str) -> Vec<String> {
    let all = objects.of_kind(kind).into_iter().filter_map(|object| object["metadata"]["name"].as_str());
    all.map(str::to_owned).collect()
}

#[test]
fn cert_manager_is_asked_for_a_certificate_of_a_ca_of_the_chart() -> Result<()> {
    let objects = Objects::with(&["certificates.source=CertManager", "clusterDomain=cluster.example"])?;
    ensure!(names(&objects, "Issuer") == ["mailroute-self-signed", "mailroute"]);
    ensure!(names(&objects, "Certificate") == ["mailroute-issuer", "mailroute"]);
    let (certificates, issuers) = (objects.of_kind("Certificate"), objects.of_kind("Issuer"));
    let (authority, served) = (&certificates[0]["spec"], &certificates[1]["spec"]);
    ensure!(authority["issuerRef"]["name"] == "mailroute-self-signed" && authority["isCA"] == true);
    // What it signed before its renewal has to stay good after it.
    ensure!(authority["privateKey"]["rotationPolicy"] == "Never", "{authority:#}");
    ensure!(issuers[1]["spec"]["ca"]["secretName"] == authority["secretName"]);
    ensure!(served["issuerRef"]["name"] == "mailroute" && served["duration"] == "2160h", "{served:#}");
    let expected = ["mailroute.mailroute-system.svc", "mailroute.mailroute-system.svc.cluster.example"];
    ensure!(served["dnsNames"] == json!(expected), "{served:#}");
    reads(&objects, &served["secretName"])
}

#[test]
fn cert_manager_is_asked_for_a_certificate_of_the_issuer_that_is_named() -> Result<()> {
    let objects = Objects::with(&[
        "certificates.source=CertManager,certificates.secretName=mail-tls",
        "certificates.certManager.issuerRef.name=corporate,certificates.certManager.issuerRef.kind=ClusterIssuer",
        "certificates.certManager.duration=720h",
    ])?;
    ensure!(objects.of_kind("Issuer").is_empty(), "an issuer of one's own beside the one that is named");
    let certificate = &objects.only("Certificate")?["spec"];
    ensure!(certificate["issuerRef"] == json!({"name": "corporate", "kind": "ClusterIssuer"}));
    ensure!(certificate["secretName"] == "mail-tls" && certificate["duration"] == "720h", "{certificate:#}");
    reads(&objects, &json!("mail-tls"))
}

/// The operator serves the certificate of this Secret.
fn reads(objects: &Objects, secret: &Value) -> Result<()> {
    let deployment = objects.only("Deployment")?;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = arguments.as_array().context("arguments")?;
    let flag = format!("--certificate-secret={}", secret.as_str().context("the name of a Secret")?);
    for flag in ["--certificates=cert-manager", &flag] {
        ensure!(arguments.contains(&json!(flag)), "{flag} is missing: {arguments:?}");
    }
    Ok(())
}

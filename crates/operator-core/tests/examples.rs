//! The example routes of `docs/examples`: the operator can use each, and together they show every field.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mailroute_operator_core::crd::{MailRoute, definition};
use mailroute_operator_core::resolve::{PlatformSettings, resolve};
use serde_json::Value;

fn examples() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut routes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        routes.extend(documents.into_iter().filter(|d| d["kind"] == "MailRoute").map(|d| (name.clone(), d)));
    }
    routes
}

#[test]
fn every_example_can_be_rendered() {
    for (file, mut document) in examples() {
        document["metadata"]["namespace"] = "shop".into();
        document["metadata"]["uid"] = "uid".into();
        let route: MailRoute = serde_json::from_value(document).unwrap();
        let resolved = resolve(&route, &PlatformSettings::default()).route;
        assert!(resolved.is_ok(), "{file}: {resolved:?}");
    }
}

#[test]
fn every_route_that_a_page_shows_can_be_rendered() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut shown = 0;
    let pages = [
        "client-submission",
        "graph",
        "high-volume-email",
        "communication-services",
        "smtp-relay",
        "direct-send",
    ];
    for page in pages.map(|page| format!("methods/{page}.md")) {
        let text = fs::read_to_string(docs.join(&page)).unwrap();
        let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        for block in blocks.filter(|block| block.contains("kind: MailRoute")) {
            let mut document: Value = serde_saphyr::from_str(block).unwrap();
            document["metadata"]["namespace"] = "shop".into();
            document["metadata"]["uid"] = "uid".into();
            let is_example = examples().iter().any(|(_, example)| example["spec"] == document["spec"]);
            assert!(is_example, "{page} shows a route that is no example: {block}");
            let route: MailRoute = serde_json::from_value(document).unwrap();
            let resolved = resolve(&route, &PlatformSettings::default()).route;
            assert!(resolved.is_ok(), "{page}: {resolved:?}");
            shown += 1;
        }
    }
    assert_eq!(shown, 7, "one for each page, and the two kinds of connector");
}

/// What a shell makes of the documents that the way in pipes into `kubectl` and `az`.
#[test]
fn what_the_way_in_applies_is_an_example_and_what_it_trusts_is_what_pods_show() {
    let here = |document: &str| {
        let page =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(document))
                .unwrap();
        let texts =
            page.split("<<EOF\n").skip(1).filter_map(|rest| Some(rest.split_once("EOF\n")?.0.to_owned()));
        texts.collect::<Vec<_>>()
    };
    let values = [
        ("$TENANT", "72f988bf-86f1-41af-91ab-2d7cd011db47"),
        ("$CLIENT", "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"),
        ("$MAILBOX", "noreply@contoso.com"),
        ("$NAMESPACE", "shop"),
        ("$ISSUER", "https://issuer.example/"),
    ];
    let filled =
        |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
    let [route, credential] = &here("getting-started.md")[..] else { panic!("a route and a credential") };
    let route: Value = serde_saphyr::from_str(&filled(route)).unwrap();
    let example = examples().into_iter().find(|(file, _)| file == "workload-identity.yaml").unwrap().1;
    assert_eq!(route["spec"], example["spec"]);

    let [of_the_operator] = &here("guides/operator-identity.md")[..] else { panic!("a credential") };
    for (credential, subject) in [
        (credential, "system:serviceaccount:shop:default"),
        (of_the_operator, "system:serviceaccount:mailroute-system:mailroute"),
    ] {
        let credential: Value = serde_json::from_str(&filled(credential)).unwrap();
        assert_eq!(credential["audiences"], serde_json::json!([mailroute_route::paths::ENTRA_AUDIENCE]));
        assert_eq!(credential["subject"], subject);
        assert_eq!(credential["issuer"], "https://issuer.example/");
    }
}

#[test]
fn every_method_and_credential_has_an_example() {
    let shown = |pointer: &str| -> BTreeSet<String> {
        let values = examples().into_iter().filter_map(|(_, document)| document.pointer(pointer).cloned());
        values.map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(shown("/spec/method"), set(&["ClientSubmission", "Graph", "SmtpRelay", "DirectSend"]));
    let services = ["ExchangeOnline", "HighVolumeEmail", "CommunicationServices"];
    assert_eq!(shown("/spec/clientSubmission/service"), set(&services));
    assert_eq!(
        shown("/spec/clientSubmission/credential/type"),
        set(&["WorkloadIdentity", "ClientSecret", "ClientCertificate", "Password"])
    );
}

#[test]
fn together_the_examples_show_every_field_and_no_other() {
    let definition = serde_json::to_value(definition::definition().unwrap()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut known = BTreeSet::new();
    fields("spec", schema, &mut known);
    let mut shown = BTreeSet::new();
    for (_, document) in examples() {
        written("spec", &document["spec"], &mut shown);
    }
    assert_eq!(shown, known);
}

fn fields(path: &str, schema: &Value, into: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields(&path, field, into);
        into.insert(path);
    }
}

fn written(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        written(&path, field, into);
        into.insert(path);
    }
}

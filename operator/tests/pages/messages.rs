//! `docs/reference/messages.md`: every sentence by which the operator and the API server tell people what is wrong, as a
//! heading that a search finds.
//!
//! Written from the values that make the sentences ([`said`]), with names such as `<route>` where others stand in earnest.

mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mailroute_operator_core::crd::definition::definition;
use mailroute_operator_core::webhook_configuration::ConfigurationFinding;
use mailroute_route::condition::Reason;
use serde_json::Value;

use crate::page::{PLACEHOLDERS, absolute, check, read};

const HEAD: &str = "\
<!-- Written from the code; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# Messages of the operator

Search this page for a text from `kubectl apply`, from an Event, or from a route's conditions. Texts about the connection to Microsoft 365
are in [troubleshooting](../troubleshooting.md). Names such as `<route>` stand for yours.
";

#[test]
fn the_page_says_what_the_code_says() {
    check("docs/reference/messages.md", &page());
}

#[test]
fn every_refusal_of_a_pod_is_said() {
    let listed: BTreeSet<_> = said::refusals().iter().map(|refusal| refusal.reason()).collect();
    let source = read("crates/operator-core/src/inject/refusal.rs");
    let (_, arms) = source.split_once("pub const fn reason").unwrap();
    let in_code: BTreeSet<_> =
        arms.split_once("\n    }\n").unwrap().0.split('"').skip(1).step_by(2).collect();
    assert_eq!(listed, in_code);
}

#[test]
fn every_way_in_which_a_route_cannot_be_used_is_said() {
    for (path, name, listed) in [
        ("crates/operator-core/src/resolve/invalid.rs", "Invalid", said::invalid().len()),
        (
            "crates/operator-core/src/resolve/operator_identity.rs",
            "IdentityNotAllowed",
            said::not_allowed().len(),
        ),
        ("operator/src/controller/apply.rs", "Error", said::unwritten().len() + 1),
    ] {
        let source = read(path);
        let (_, variants) = source.split_once(&format!("pub enum {name} {{")).unwrap();
        let in_code = variants.split_once("\n}\n").unwrap().0.matches("#[error(").count();
        // One of the last kind passes on what the API server says.
        assert_eq!(listed, in_code, "{name} of {path}");
    }
}

#[test]
fn every_finding_about_the_webhook_configuration_is_said() {
    let listed: Vec<_> = said::findings().iter().map(ConfigurationFinding::reason).collect();
    assert_eq!(listed, ConfigurationFinding::REASONS);
}

#[test]
fn every_event_of_the_operator_is_said() {
    let mut in_code = BTreeSet::new();
    for file in sources(&absolute("operator/src")) {
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for call in code.split("events.warn(").skip(1).chain(code.split("events.note(").skip(1)) {
            let call = call.split(';').next().unwrap_or_default();
            in_code.extend(
                call.split(", ")
                    .nth(1)
                    .and_then(|it| it.strip_prefix('"')?.strip_suffix('"'))
                    .map(str::to_owned),
            );
        }
    }
    let listed: BTreeSet<_> = said::EVENTS.iter().map(|(reason, ..)| (*reason).to_owned()).collect();
    assert_eq!(listed, in_code);
}

#[test]
fn what_the_policies_are_said_to_answer_stands_in_the_chart() {
    let folder = absolute("charts/mailroute/templates");
    let chart = ["validatingadmissionpolicy.yaml", "warnings.yaml"];
    let chart: String = chart.iter().map(|file| fs::read_to_string(folder.join(file)).unwrap()).collect();
    let chart = chart.split_whitespace().collect::<Vec<_>>().join(" ");
    for (sentence, _) in said::POLICIES {
        assert!(chart.contains(sentence.trim_end_matches(" …")), "no policy of the chart says {sentence:?}");
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str(
        "\n## A MailRoute that the API server refuses\n\n`kubectl apply` prints `The MailRoute \"<route>\" is invalid`, \
         the field, and one of these. Types, limits and allowed values are in [the reference](mailroute.md).\n",
    );
    for (sentence, fields) in rules() {
        entry(&mut page, &sentence, &format!("At {}.", fields.join(", ")));
    }
    page.push_str(
        "\n## A MailRoute that the operator cannot use\n\nThe condition `Accepted` is False. Some of these would be \
         refused by the API server, unless the route was stored under an older definition.\n",
    );
    let reason =
        |reason: Reason| format!("Reason [{reason}](reasons.md#{}).", reason.as_str().to_lowercase());
    for invalid in said::invalid() {
        entry(&mut page, &invalid.to_string(), &reason(Reason::Invalid));
    }
    for not_allowed in said::not_allowed() {
        let why = Reason::OperatorIdentityNotAllowed;
        entry(
            &mut page,
            &not_allowed.to_string(),
            &format!("{} {}", reason(why), prose(&why.remedy(&PLACEHOLDERS))),
        );
    }
    let why = Reason::MailboxNotAllowed;
    let remedy = format!("{} {}", reason(why), prose(&why.remedy(&PLACEHOLDERS)));
    entry(&mut page, &said::mailbox_not_allowed().to_string(), &remedy);
    for unwritten in said::unwritten() {
        entry(&mut page, &unwritten.to_string(), &reason(Reason::RenderFailed));
    }
    page.push_str(
        "\n## A pod that is refused\n\n`admission webhook \"inject.mailroute.dev\" denied the request: MailRoute: …`, in \
         the Event `FailedCreate` of the pod's controller, and in an Event of the MailRoute.\n",
    );
    for refusal in said::refusals() {
        entry(
            &mut page,
            &refusal.to_string(),
            &format!("`{}`. {}", refusal.reason(), prose(&refusal.remedy())),
        );
    }
    for (sentence, remedy) in said::POLICIES.iter().chain(said::WARNINGS).chain(said::NOT_ASKED) {
        entry(&mut page, sentence, remedy);
    }
    page.push_str("\n## Events\n\nOther Events are named after a [reason](reasons.md), or after the reason of a refused pod above.\n");
    for (reason, of, meaning) in said::EVENTS {
        entry(&mut page, reason, &format!("On {of}. {meaning}"));
    }
    for finding in said::findings() {
        let meaning = prose(&finding.to_string());
        entry(&mut page, finding.reason(), &format!("On the MutatingWebhookConfiguration. {meaning}"));
    }
    page
}

fn entry(page: &mut String, heading: &str, text: &str) {
    page.push_str(&format!("\n### `{heading}`\n\n{text}\n"));
}

/// Text outside of code, where a bare `<` would begin a tag.
fn prose(text: &str) -> String {
    text.replace('<', "\\<").replace('*', "\\*")
}

/// The sentence of each rule, with links to the fields it is at.
fn rules() -> BTreeMap<String, Vec<String>> {
    let definition = serde_json::to_value(definition().unwrap()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut found = BTreeMap::new();
    rules_below("", schema, &mut found);
    found
}

fn rules_below(path: &str, schema: &Value, found: &mut BTreeMap<String, Vec<String>>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let sentence = rule["message"].as_str().unwrap_or_default().to_owned();
        let own = rule["fieldPath"].as_str().unwrap_or_default();
        found.entry(sentence).or_default().push(link(&format!("{path}{own}")));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        rules_below(&path, property, found);
    }
}

fn link(field: &str) -> String {
    match field {
        "" => "`metadata.name`".to_owned(),
        field => format!("[`{field}`](mailroute.md#{})", field.replace('.', "").to_lowercase()),
    }
}

/// Every `.rs` file below a folder that is no test of its own.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    let mut found: Vec<_> = files.into_iter().filter(|file| !file.ends_with("tests.rs")).collect();
    found.extend(below);
    found
}

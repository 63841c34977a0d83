//! The `caBundle` of our entry in the MutatingWebhookConfiguration: reading it, and owning it and nothing else.
//!
//! The entry is found by its name, never by its position. The write is a server-side apply that holds that one field,
//! so that whatever others keep in the object (AKS rewrites `namespaceSelector`, for example) stays theirs.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::Api;
use kube::api::{Patch, PatchParams};
pub use mailroute_operator_core::webhook_configuration::{NAMESPACE_WEBHOOK, WEBHOOK, entry};
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::settings::FIELD_MANAGER;

/// Name of our entry in `webhooks[]` that warns of workloads.
pub const WARNINGS: &str = "workloads.mailroute.dev";

/// The bundle of our entry as PEM text, empty when nobody has set it. `None` when the configuration has no entry of ours,
/// so that nothing calls us.
pub fn live_pem(configuration: &MutatingWebhookConfiguration) -> Option<String> {
    let bundle = entry(configuration)?.client_config.ca_bundle.as_ref();
    Some(bundle.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default())
}

/// Whether every entry of ours has the bundle that `holds`.
pub fn is_everywhere(configuration: &MutatingWebhookConfiguration, holds: impl Fn(&str) -> bool) -> bool {
    ours(configuration).all(|entry| {
        let bundle = entry.client_config.ca_bundle.as_ref().map(|bytes| String::from_utf8_lossy(&bytes.0));
        holds(&bundle.unwrap_or_default())
    })
}

fn ours(configuration: &MutatingWebhookConfiguration) -> impl Iterator<Item = &MutatingWebhook> {
    let is_ours =
        |webhook: &&MutatingWebhook| [WEBHOOK, NAMESPACE_WEBHOOK, WARNINGS].contains(&webhook.name.as_str());
    configuration.webhooks.iter().flatten().filter(is_ours)
}

/// The bundle that API servers check our certificate with, when the authorities are our own. One that cannot be read
/// counts as empty: it lets nobody in.
pub fn live(configuration: &MutatingWebhookConfiguration) -> Option<Bundle> {
    live_pem(configuration).map(|pem| Bundle::from_pem(&pem).unwrap_or_default())
}

/// Who else claims the bundle of our entry, by the name under which it writes.
pub fn other_owner(configuration: &MutatingWebhookConfiguration) -> Option<&str> {
    let path = format!("/f:webhooks/k:{{\"name\":\"{WEBHOOK}\"}}/f:clientConfig/f:caBundle");
    let claims = configuration
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|claim| claim.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer(&path).is_some()));
    claims.filter_map(|claim| claim.manager.as_deref()).find(|manager| *manager != FIELD_MANAGER)
}

/// The apply document that sets the bundle of our entries to this PEM text.
///
/// It carries the uid of the object that was seen: should that be deleted meanwhile, the apply fails in place of
/// creating another.
pub fn apply_document(configuration: &MutatingWebhookConfiguration, pem: &str) -> Value {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
    let entries =
        ours(configuration).map(|entry| json!({"name": entry.name, "clientConfig": {"caBundle": encoded}}));
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": configuration.metadata.name, "uid": configuration.metadata.uid},
        "webhooks": entries.collect::<Vec<_>>(),
    })
}

/// Sets the bundle of our entry, taking the field over from whoever wrote it last.
///
/// # Errors
/// As the API server answers.
pub async fn publish(
    api: &Api<MutatingWebhookConfiguration>,
    configuration: &MutatingWebhookConfiguration,
    pem: &str,
) -> Result<MutatingWebhookConfiguration, kube::Error> {
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let document = apply_document(configuration, pem);
    api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&document)).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::authority::Authority;
    use super::*;

    fn bundle() -> Bundle {
        let authority = Authority::mint(Timestamp::UNIX_EPOCH, Duration::from_secs(3600)).unwrap();
        Bundle::from_iter([authority.certificate().clone()])
    }

    fn configuration(webhooks: &Value) -> MutatingWebhookConfiguration {
        serde_json::from_value(json!({"metadata": {"name": "mailroute", "uid": "u-1"}, "webhooks": webhooks}))
            .unwrap()
    }

    fn entry(name: &str, ca_bundle: Option<&str>) -> Value {
        use base64::Engine as _;
        let encoded = ca_bundle.map(|pem| base64::engine::general_purpose::STANDARD.encode(pem));
        json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
               "clientConfig": {"caBundle": encoded}})
    }

    #[test]
    fn our_entry_is_found_by_name_wherever_it_stands() {
        let ours = bundle();
        let entries = json!([
            entry("other.example.com", Some(&bundle().to_pem())),
            entry(WEBHOOK, Some(&ours.to_pem())),
        ]);
        assert_eq!(live(&configuration(&entries)), Some(ours));
    }

    #[test]
    fn a_missing_or_damaged_bundle_trusts_nobody() {
        for pem in
            [None, Some(""), Some("\n"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")]
        {
            assert_eq!(live(&configuration(&json!([entry(WEBHOOK, pem)]))), Some(Bundle::default()));
        }
    }

    #[test]
    fn without_our_entry_there_is_nothing_to_publish_to() {
        assert_eq!(live(&configuration(&json!([entry("other.example.com", None)]))), None);
        assert_eq!(live(&MutatingWebhookConfiguration::default()), None);
    }

    #[test]
    fn another_writer_of_the_bundle_is_named() {
        let claim = |manager: &str, field: &str| {
            json!({"manager": manager, "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1":
                {"f:webhooks": {"k:{\"name\":\"inject.mailroute.dev\"}": {"f:clientConfig": {field: {}}}}}})
        };
        let owners = |claims: &[Value]| {
            let configuration: MutatingWebhookConfiguration =
                serde_json::from_value(json!({"metadata": {"managedFields": claims}})).unwrap();
            other_owner(&configuration).map(str::to_owned)
        };
        let ours = claim(FIELD_MANAGER, "f:caBundle");
        assert_eq!(owners(&[ours.clone(), claim("helm", "f:service")]), None);
        assert_eq!(owners(&[ours, claim("kubectl-replace", "f:caBundle")]), Some("kubectl-replace".into()));
    }

    #[test]
    fn every_entry_of_ours_gets_the_bundle() {
        let pem = bundle().to_pem();
        let holds = |live: &str| live == pem;
        let entries = json!([
            entry(NAMESPACE_WEBHOOK, None),
            entry(WEBHOOK, Some(&pem)),
            entry(WARNINGS, None),
            entry("other.example.com", None),
        ]);
        let upgraded = configuration(&entries);
        assert!(!is_everywhere(&upgraded, holds), "the chart has added an entry");
        let document = apply_document(&upgraded, &pem);
        let names: Vec<_> = document["webhooks"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(names, [NAMESPACE_WEBHOOK, WEBHOOK, WARNINGS]);
        assert!(is_everywhere(
            &configuration(&json!([entry(WEBHOOK, Some(&pem)), entry(WARNINGS, Some(&pem))])),
            holds
        ));
        assert!(
            is_everywhere(&configuration(&json!([entry(WEBHOOK, Some(&pem))])), holds),
            "of an older chart"
        );
    }

    #[test]
    fn the_apply_document_holds_the_bundle_and_nothing_else() {
        let document = apply_document(&configuration(&json!([entry(WEBHOOK, None)])), &bundle().to_pem());
        let webhook = document["webhooks"][0].as_object().unwrap();
        assert_eq!(webhook.keys().collect::<Vec<_>>(), ["clientConfig", "name"]);
        assert_eq!(webhook["clientConfig"].as_object().unwrap().keys().collect::<Vec<_>>(), ["caBundle"]);
        assert_eq!(document["metadata"], json!({"name": "mailroute", "uid": "u-1"}));
        let round_trip: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "webhooks": [{"name": WEBHOOK, "admissionReviewVersions": [], "sideEffects": "None",
                          "clientConfig": webhook["clientConfig"]}],
        }))
        .unwrap();
        assert!(!live(&round_trip).unwrap().is_empty());
    }
}

//! The defaults: those that an API server fills in are those of the types.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::MailRoute;
use super::definition::definition;
use super::sidecar::ResourceList;
use mailroute_route::file::DeliveryMode;

/// The parts of a spec that may be left out.
const PARTS: [&str; 4] = ["delivery", "limits", "listen", "sidecar"];

/// A route of which nothing is written that may be left out.
fn bare() -> MailRoute {
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop"},
        "spec": {
            "method": "DirectSend",
            "tenant": {"id": "72f988bf-86f1-41af-91ab-2d7cd011db47", "acceptedDomains": ["contoso.com"]},
            "directSend": {},
        },
    }))
    .unwrap()
}

#[test]
fn every_default_of_the_types_is_in_the_schema() {
    let definition = serde_json::to_value(definition().unwrap()).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let bare = serde_json::to_value(bare()).unwrap();
    for part in PARTS {
        assert_eq!(spec[part]["default"], bare["spec"][part], "{part}");
        for (field, schema) in spec[part]["properties"].as_object().unwrap() {
            assert_eq!(schema["default"], bare["spec"][part][field], "{part}.{field}");
        }
    }
}

#[test]
fn what_the_schema_fills_in_is_read_as_if_it_were_left_out() {
    let definition = serde_json::to_value(definition().unwrap()).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let mut filled = serde_json::to_value(bare()).unwrap();
    for part in PARTS {
        filled["spec"][part] = spec[part]["default"].clone();
    }
    let filled: MailRoute = serde_json::from_value(filled).unwrap();
    assert_eq!(filled, bare());
    assert_eq!(filled.spec.delivery.mode, DeliveryMode::DeliverOrQueue);
    assert_eq!(filled.spec.sidecar.resources.requests.memory, Some(Quantity("32Mi".to_owned())));
}

#[test]
fn a_quantity_may_be_written_as_a_number() {
    let list: ResourceList = serde_json::from_value(json!({"cpu": 1, "ephemeral-storage": "1Gi"})).unwrap();
    assert_eq!(list.cpu, Some(Quantity("1".to_owned())));
    assert_eq!(list.ephemeral_storage, Some(Quantity("1Gi".to_owned())));
}

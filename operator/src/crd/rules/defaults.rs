//! What the schema fills in is what the types fill in.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::submission;
use crate::crd::MailRoute;
use crate::crd::definition::definition;
use crate::crd::delivery::DeliveryMode;
use crate::crd::sidecar::ResourceList;

/// The parts of the spec that may be left out.
const PARTS: [&str; 4] = ["delivery", "limits", "listen", "sidecar"];

/// A route as somebody writes it who leaves out what may be.
fn bare() -> MailRoute {
    let mut object = submission();
    let spec = object["spec"].as_object_mut().unwrap();
    spec.retain(|part, _| !PARTS.contains(&part.as_str()));
    serde_json::from_value(object).unwrap()
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let filled: MailRoute = serde_json::from_value(submission()).unwrap();
    let route = bare();
    assert_eq!(route, filled);
    assert_eq!(route.spec.delivery.mode, DeliveryMode::DeliverOrQueue);
    assert_eq!(route.spec.sidecar.resources.requests.memory, Some(Quantity("32Mi".to_owned())));
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
fn a_quantity_may_be_written_as_a_number() {
    let list: ResourceList = serde_json::from_value(json!({"cpu": 1, "ephemeral-storage": "1Gi"})).unwrap();
    assert_eq!(list.cpu, Some(Quantity("1".to_owned())));
    assert_eq!(list.ephemeral_storage, Some(Quantity("1Gi".to_owned())));
}

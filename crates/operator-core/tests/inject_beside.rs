//! Beside the webhooks of Azure workload identity, Istio and Linkerd: what each of them does to a pod is in
//! `inject/beside/`, and is done before ours and after it, as the API server may call them in either order. The whole pods
//! that come out are golden files.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;

use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::names::VOLUMES;
use mailroute_operator_core::inject::{self, SidecarSettings};
use mailroute_operator_core::resolve::{PlatformSettings, resolve};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const ALL: [&str; 6] = [
    "azure_workload_identity",
    "azure_identity_binding",
    "istio_native",
    "istio_classic",
    "linkerd_native",
    "linkerd_classic",
];

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(name);
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// What another webhook does to the pod. Called again, it does nothing, as those webhooks do.
fn theirs(mut pod: Value, webhook: &str) -> Value {
    let does: Value = read(&format!("beside/{webhook}.yaml"));
    if names(&pod, "volumes").contains(&does["volumes"][0]["name"].as_str().unwrap().to_owned()) {
        return pod;
    }
    for (list, added) in [("initContainers", "initContainersFirst"), ("containers", "containersFirst")] {
        for container in does[added].as_array().into_iter().flatten().rev() {
            items(&mut pod["spec"], list).insert(0, container.clone());
        }
    }
    for (list, added) in
        [("initContainers", "initContainersLast"), ("containers", "containersLast"), ("volumes", "volumes")]
    {
        items(&mut pod["spec"], list).extend(does[added].as_array().into_iter().flatten().cloned());
    }
    for (field, added) in does["everyContainer"].as_object().into_iter().flatten() {
        for list in ["initContainers", "containers"] {
            for container in items(&mut pod["spec"], list) {
                items(container, field).extend(added.as_array().unwrap().iter().cloned());
            }
        }
    }
    for field in ["labels", "annotations"] {
        let added = does[field].as_object().cloned().unwrap_or_default();
        let present = pod["metadata"].as_object_mut().unwrap();
        let present = present.entry(field).or_insert_with(|| Map::new().into());
        present.as_object_mut().unwrap().extend(added);
    }
    pod
}

/// What ours does.
fn ours(mut pod: Value) -> Value {
    let route: MailRoute = read("route.yaml");
    let route = resolve(&route, &PlatformSettings::default()).route.unwrap();
    let digest = "0".repeat(64);
    let platform = SidecarSettings {
        image: format!("mailroute.dev/sidecar@sha256:{digest}"),
        control_address: Some("mailroute.mailroute-system.svc:8444".into()),
        ..SidecarSettings::default()
    };
    let plan = inject::plan(&pod, &route, &platform).unwrap();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert!(inject::plan(&pod, &route, &platform).unwrap().is_empty(), "a second pass adds nothing");
    pod
}

fn items<'a>(holder: &'a mut Value, list: &str) -> &'a mut Vec<Value> {
    let list = holder.as_object_mut().unwrap().entry(list).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap()
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().into_iter().flatten();
    items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn pod() -> Value {
    read("stateful.yaml")
}

fn sidecar(pod: &Value) -> &Value {
    let mut found =
        pod["spec"]["initContainers"].as_array().unwrap().iter().filter(|c| c["name"] == "mailroute");
    let sidecar = found.next().unwrap();
    assert!(found.next().is_none(), "one sidecar");
    sidecar
}

/// The pod after theirs and ours, and after ours and theirs and, as the API server asks once more, ours.
fn both(webhooks: &[&str]) -> [Value; 2] {
    let all_theirs = |pod: Value| webhooks.iter().fold(pod, |pod, webhook| theirs(pod, webhook));
    let [first, last] = [ours(all_theirs(pod())), ours(all_theirs(ours(pod())))];
    assert_eq!(all_theirs(first.clone()), first, "they have nothing to add to it either");
    [first, last]
}

macro_rules! golden {
    ($($name:ident: $($webhook:literal)+;)*) => {
        $(#[test]
        fn $name() {
            let [theirs_first, ours_first] = both(&[$($webhook),+]);
            insta::with_settings!({omit_expression => true}, {
                for (order, pod) in [("theirs_first", theirs_first), ("ours_first", ours_first)] {
                    let name = format!("{}_{order}", stringify!($name));
                    insta::assert_snapshot!(name, serde_saphyr::to_string(&pod).unwrap());
                }
            });
        })*
    };
}

golden! {
    azure_workload_identity: "azure_workload_identity";
    azure_identity_binding: "azure_identity_binding";
    istio_native: "istio_native";
    istio_classic: "istio_classic";
    linkerd_native: "linkerd_native";
    linkerd_classic: "linkerd_classic";
    azure_and_linkerd_and_istio: "azure_workload_identity" "linkerd_native" "istio_native";
}

#[test]
fn the_order_of_the_webhooks_makes_no_difference_to_what_the_pod_has() {
    for webhook in ALL {
        let [one, two] = both(&[webhook]).map(|pod| {
            ["initContainers", "containers", "volumes"].map(|list| {
                let mut names = names(&pod, list);
                names.sort_unstable();
                names
            })
        });
        assert_eq!(one, two, "{webhook}");
    }
}

/// Pods as people and controllers make them: bare, without any array, with init containers and volumes of their own.
const PODS: [&str; 6] = [
    "stateful.yaml",
    "bare_pod.yaml",
    "absent_arrays.yaml",
    "of_a_deployment.yaml",
    "job_with_init_container.yaml",
    "restricted_pod.yaml",
];

/// The same webhooks in every order, ours wherever it comes, and ours once more where another one followed it.
#[test]
fn in_every_order_a_pod_has_the_same_and_a_further_call_changes_nothing() {
    let has = |pod: &Value| {
        ["initContainers", "containers", "volumes"].map(|list| {
            let mut names = names(pod, list);
            names.sort_unstable();
            names
        })
    };
    for meshes in [["linkerd_native", "istio_native"], ["linkerd_classic", "istio_classic"]] {
        let all = ["ours", "azure_identity_binding", meshes[0], meshes[1]];
        let one = |pod, name: &&str| if *name == "ours" { adding(pod) } else { theirs(pod, name) };
        for name in PODS {
            let theirs_first = all[1..].iter().chain(&all[..1]).fold(read(name), one);
            for order in orders(&all) {
                let once = order.iter().fold(read(name), one);
                let again = adding(order.iter().fold(once.clone(), one));
                assert_eq!(has(&again), has(&theirs_first), "{name}: {order:?}");
                assert_eq!(again, adding(once), "{name}: {order:?}: a second round changes nothing");
                assert_eq!(sidecar(&again)["restartPolicy"], "Always", "{name}: {order:?}");
            }
        }
    }
}

/// Ours, which leaves every other container and volume as it is and where it is among its like.
fn adding(pod: Value) -> Value {
    let others = |pod: &Value| {
        ["initContainers", "containers", "volumes"].map(|list| {
            let items = pod["spec"][list].as_array().into_iter().flatten();
            let is_ours =
                |item: &Value| item["name"].as_str().is_some_and(|name| name.starts_with("mailroute"));
            items.filter(|item| !is_ours(item)).cloned().collect::<Vec<_>>()
        })
    };
    let before = others(&pod);
    let after = ours(pod);
    assert_eq!(before, others(&after));
    after
}

/// All orders of these names.
fn orders<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    if names.is_empty() {
        return vec![vec![]];
    }
    let first = |at: usize| {
        let rest = [&names[..at], &names[at + 1..]].concat();
        orders(&rest).into_iter().map(move |rest| [vec![names[at]], rest].concat())
    };
    (0..names.len()).flat_map(first).collect()
}

#[test]
fn the_sidecar_follows_a_native_proxy_and_precedes_the_users_init_containers() {
    for webhook in ALL {
        for pod in both(&[webhook]) {
            let names = names(&pod, "initContainers");
            let at = |name: &str| names.iter().position(|container| container == name);
            assert!(at("mailroute") < at("migrate"), "{webhook}: {names:?}");
            for proxy in ["istio-proxy", "linkerd-proxy"] {
                assert!(at(proxy).is_none() || at(proxy) < at("mailroute"), "{webhook}: {names:?}");
            }
        }
    }
}

/// A probe from the node would have to pass a proxy that does not run before the sidecar has started.
#[test]
fn no_probe_of_the_sidecar_passes_the_network() {
    for webhook in ALL {
        for pod in both(&[webhook]) {
            for probe in ["startupProbe", "livenessProbe"] {
                let kinds: Vec<_> = ["httpGet", "tcpSocket", "grpc"]
                    .into_iter()
                    .filter(|kind| sidecar(&pod)[probe].get(kind).is_some())
                    .collect();
                assert!(kinds.is_empty() && sidecar(&pod)[probe]["exec"].is_object(), "{webhook}: {probe}");
            }
        }
    }
}

#[test]
fn what_they_add_to_the_sidecar_stays_and_none_gets_what_is_ours() {
    for webhook in ALL {
        for pod in both(&[webhook]) {
            let lists = [&pod["spec"]["initContainers"], &pod["spec"]["containers"]];
            for container in lists.into_iter().flat_map(|list| list.as_array().unwrap()) {
                let mounts = container["volumeMounts"].as_array().into_iter().flatten();
                let ours =
                    mounts.filter(|mount| VOLUMES.iter().any(|volume| mount["name"] == *volume)).count();
                assert_eq!(ours > 0, container["name"] == "mailroute", "{webhook}: {}", container["name"]);
            }
        }
    }
    let [_, ours_first] = both(&["azure_identity_binding"]);
    for variable in ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_KUBERNETES_TOKEN_PROXY"] {
        assert!(sidecar(&ours_first)["env"].to_string().contains(variable));
    }
}

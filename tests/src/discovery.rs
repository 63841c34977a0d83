//! Who a Prometheus of the Prometheus operator would scrape for the chart's monitors, on a cluster as it is.
//!
//! Debian's Prometheus is built without discovery in Kubernetes, so what the Prometheus operator and the discovery make of a
//! monitor together is done here, as far as the chart's monitors need it: namespaces, selector, the port by its name among
//! all containers of a pod, init containers too, the labels that both give, and relabelings that copy one label. Anything
//! else in a monitor is an error, so that nothing is passed over.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::prometheus::Target;

/// The targets of a `ServiceMonitor` or a `PodMonitor`.
///
/// # Errors
/// When the monitor asks for something that is not known here, or the API server does not answer.
pub async fn targets(client: &Client, monitor: &Value) -> Result<Vec<Target>> {
    let spec = &monitor["spec"];
    let of_pods = monitor["kind"] == "PodMonitor";
    known(
        spec,
        &["selector", "namespaceSelector", if of_pods { "podMetricsEndpoints" } else { "endpoints" }],
    )?;
    let selector: LabelSelector = serde_json::from_value(spec["selector"].clone())?;
    let listed = ListParams::default().labels(&Selector::try_from(selector)?.to_string());
    let mut found = Vec::new();
    for namespace in namespaces(monitor)? {
        if of_pods {
            for pod in api::<Pod>(client, namespace.as_deref()).list(&listed).await? {
                found.extend(of_pod(&pod, spec)?);
            }
        } else {
            for service in api::<Service>(client, namespace.as_deref()).list(&listed).await? {
                found.extend(of_service(client, &service, spec).await?);
            }
        }
    }
    Ok(found)
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name))
}

/// Where a monitor looks: its own namespace unless it says otherwise; `None` stands for all.
fn namespaces(monitor: &Value) -> Result<Vec<Option<String>>> {
    let wanted = &monitor["spec"]["namespaceSelector"];
    if wanted["any"] == true {
        return Ok(vec![None]);
    }
    if let Some(names) = wanted["matchNames"].as_array() {
        return Ok(names.iter().map(|name| name.as_str().map(str::to_owned)).collect());
    }
    let own = monitor["metadata"]["namespace"].as_str().context("a monitor has a namespace")?;
    Ok(vec![Some(own.to_owned())])
}

/// One for each container port with the name of an endpoint, in a pod that has an address and has not ended.
fn of_pod(pod: &Pod, spec: &Value) -> Result<Vec<Target>> {
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|it| it.phase.as_deref()), Some("Succeeded" | "Failed"));
    let Some(address) = status.and_then(|it| it.pod_ip.as_deref()).filter(|_| !ended) else {
        return Ok(Vec::new());
    };
    let address: IpAddr = address.parse()?;
    let pod_spec = pod.spec.as_ref().context("a pod has a spec")?;
    let containers = pod_spec.init_containers.iter().flatten().chain(&pod_spec.containers);
    let ports = containers.flat_map(|it| it.ports.iter().flatten());
    let mut found = Vec::new();
    for endpoint in spec["podMetricsEndpoints"].as_array().into_iter().flatten() {
        for port in ports.clone().filter(|port| port.name.as_deref() == endpoint["port"].as_str()) {
            let mut target = Target {
                address: SocketAddr::new(address, u16::try_from(port.container_port)?),
                labels: labels(&pod.namespace().context("a pod has a namespace")?, &pod.name_any()),
                honor_labels: endpoint["honorLabels"] == true,
            };
            answers_at(&mut target, endpoint)?;
            relabel(&mut target, endpoint, pod)?;
            found.push(target);
        }
    }
    Ok(found)
}

/// One for each address behind the port with the name of an endpoint.
async fn of_service(client: &Client, service: &Service, spec: &Value) -> Result<Vec<Target>> {
    let slices: Api<EndpointSlice> = api(client, service.namespace().as_deref());
    let of_it = format!("kubernetes.io/service-name={}", service.name_any());
    let mut found = Vec::new();
    for slice in slices.list(&ListParams::default().labels(&of_it)).await? {
        for endpoint in spec["endpoints"].as_array().into_iter().flatten() {
            let ports = slice.ports.iter().flatten();
            for port in ports.filter(|port| port.name.as_deref() == endpoint["port"].as_str()) {
                let port = u16::try_from(port.port.context("a port has a number")?)?;
                for behind in &slice.endpoints {
                    let pod =
                        behind.target_ref.as_ref().and_then(|it| it.name.as_deref()).unwrap_or_default();
                    let address = behind.addresses.first().context("an endpoint has an address")?.parse()?;
                    let labels = labels(&service.namespace().unwrap_or_default(), pod);
                    let honor_labels = endpoint["honorLabels"] == true;
                    let address = SocketAddr::new(address, port);
                    let mut target = Target { address, labels, honor_labels };
                    answers_at(&mut target, endpoint)?;
                    ensure!(endpoint["relabelings"].is_null(), "relabelings of a Service are not known here");
                    found.push(target);
                }
            }
        }
    }
    Ok(found)
}

fn labels(namespace: &str, pod: &str) -> BTreeMap<String, String> {
    [("namespace", namespace), ("pod", pod)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Scheme and path, in the form in which files of targets have them.
fn answers_at(target: &mut Target, endpoint: &Value) -> Result<()> {
    known(endpoint, &["port", "path", "scheme", "interval", "relabelings", "honorLabels"])?;
    for (key, label, unless_said) in
        [("scheme", "__scheme__", "http"), ("path", "__metrics_path__", "/metrics")]
    {
        let value = endpoint[key].as_str().unwrap_or(unless_said);
        target.labels.insert(label.to_owned(), value.to_owned());
    }
    Ok(())
}

/// The relabelings of an endpoint, each of which copies a label of the pod.
fn relabel(target: &mut Target, endpoint: &Value, pod: &Pod) -> Result<()> {
    let met: BTreeMap<_, _> = pod.labels().iter().map(|(key, value)| (meta(key), value)).collect();
    for relabeling in endpoint["relabelings"].as_array().into_iter().flatten() {
        known(relabeling, &["sourceLabels", "targetLabel"])?;
        let [source] = relabeling["sourceLabels"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            bail!("several labels in one are not known here: {relabeling}");
        };
        let copied = met.get(source.as_str().unwrap_or_default());
        let label = relabeling["targetLabel"].as_str().context("a relabeling has a target")?;
        // An empty one is none.
        target.labels.insert(label.to_owned(), copied.map_or_else(String::new, |value| (*value).clone()));
    }
    Ok(())
}

/// A label of a pod as the discovery names it.
fn meta(label: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("__meta_kubernetes_pod_label_{}", label.chars().map(allowed).collect::<String>())
}

fn known(object: &Value, keys: &[&str]) -> Result<()> {
    let found = object.as_object().with_context(|| format!("no object: {object}"))?;
    let other = found.keys().find(|key| !keys.contains(&key.as_str()));
    ensure!(other.is_none(), "{other:?} is not known here");
    Ok(())
}

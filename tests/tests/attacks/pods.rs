//! Pods that never run, with the tokens that the kubelet would mount into them.

use anyhow::{Context, Result};
use e2e::Cluster;
use e2e::scene::workload;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::paths::CONTROL_AUDIENCE;
use serde_json::{Value, json};

/// A route for client submission as this mailbox of this tenant.
pub async fn route(
    client: &Client,
    namespace: &str,
    name: &str,
    mailbox: (&str, &str),
    limits: Value,
) -> Result<()> {
    let mut route = workload::route(name, namespace);
    route["spec"]["tenant"] = json!({"id": mailbox.0, "acceptedDomains": ["contoso.com"]});
    route["spec"]["clientSubmission"]["mailbox"] = json!(mailbox.1);
    route["spec"]["limits"] = limits;
    if let Some(spec) = route["spec"].as_object_mut() {
        spec.remove("endpoint");
    }
    let routes: Api<MailRoute> = Api::namespaced(client.clone(), namespace);
    routes.patch(name, &PatchParams::apply("attacks").force(), &Patch::Apply(&route)).await?;
    Ok(())
}

/// A labelled pod with this address, which is where its connections come from.
pub async fn pod(client: &Client, namespace: &str, name: &str, route: &str, address: &str) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = workload::pod(name, route, &workload::pod_spec("true"));
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    Ok(pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?)
}

/// The token for the control service that is bound to a pod.
pub async fn token(cluster: &Cluster, namespace: &str, pod: &Pod) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![CONTROL_AUDIENCE.to_owned()],
        expiration_seconds: Some(3600),
        bound_object_ref: Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    Ok(granted.status.context("a granted token")?.token)
}

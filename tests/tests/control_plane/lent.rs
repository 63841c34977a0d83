//! The operator's identity at the simulator: who trusts it, what it is lent for, and the tokens that prove who asks.

use anyhow::{Context, Result};
use e2e::Cluster;
use e2e::scene::{release, workload};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use mailroute_m365::Simulator;
use mailroute_m365::directory::{FederatedCredential, Issuer};
use mailroute_m365::keys::KeySource;
use mailroute_route::paths::ENTRA_AUDIENCE;
use serde_json::{Value, json};

/// A federated credential for the operator's ServiceAccount of this cluster, and no other.
pub(crate) async fn trust_the_cluster(m365: &Simulator, cluster: &Cluster) -> Result<()> {
    let read = async |path: &str| -> Result<Value> {
        let request = hyper::Request::get(path).body(Vec::new())?;
        Ok(cluster.client().request(request).await?)
    };
    let discovery = read("/.well-known/openid-configuration").await?;
    let issuer = discovery["issuer"].as_str().context("an issuer")?.to_owned();
    let keys = KeySource::Inline(serde_json::from_value(read("/openid/v1/jwks").await?)?);
    m365.directory(|directory| {
        directory.issuers.push(Issuer { name: "cluster".into(), issuer: Some(issuer), keys });
        directory.tenants[0].applications[0].federated_credentials = vec![FederatedCredential {
            name: "operator".into(),
            issuer: "cluster".into(),
            subject: format!("system:serviceaccount:{}:{}", release::NAMESPACE, release::NAME),
            audience: ENTRA_AUDIENCE.into(),
        }];
    });
    Ok(())
}

/// The broker's settings, as JSON, which is YAML.
pub(crate) fn settings_for(m365: &Simulator, namespace: &str) -> String {
    json!({"applications": [{
        "tenantId": workload::TENANT,
        "clientId": workload::CLIENT_ID,
        "authority": {"host": format!("localhost:{}", m365.login_address().port()), "caPem": m365.ca_pem()},
        "endpoint": {"host": "smtp.m365.example", "port": 587, "caPem": m365.ca_pem()},
        "allow": [{"namespaces": [namespace], "mailboxes": [workload::MAILBOX]}],
    }]})
    .to_string()
}

/// A token of a ServiceAccount of the cluster, bound to an object or to none.
pub(crate) async fn token(
    cluster: &Cluster,
    (namespace, account): (&str, &str),
    audience: &str,
    bound: Option<BoundObjectReference>,
) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), namespace);
    let spec = TokenRequestSpec {
        audiences: vec![audience.to_owned()],
        expiration_seconds: Some(3600),
        bound_object_ref: bound,
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let granted = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(granted.status.context("a granted token")?.token)
}

/// A token of the operator's own, as Entra is shown it.
pub(crate) async fn identity(cluster: &Cluster) -> Result<String> {
    token(cluster, (release::NAMESPACE, release::NAME), ENTRA_AUDIENCE, None).await
}

/// A route that uses the operator's identity.
pub(crate) fn route(name: &str) -> Value {
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": workload::TENANT},
            "clientSubmission": {
                "mailbox": workload::MAILBOX,
                "credential": {"type": "WorkloadIdentity", "subject": "Operator", "clientId": workload::CLIENT_ID},
            },
        },
    })
}

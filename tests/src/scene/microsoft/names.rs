//! The simulator's name server in the place of the internet's, for pods that are to find the smart host by MX record.

use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use mailroute_m365::dns::zone::{Data, Record};
use serde_json::{Value, json};

use super::Microsoft;
use crate::scene::release;

impl Microsoft {
    /// Publishes the MX record of its domain, with Microsoft's own kind of name, and the address behind that name. What
    /// comes back makes a pod ask this name server alone (`dnsPolicy` and `dnsConfig` of its spec); so it knows the
    /// operator's Service too.
    ///
    /// # Errors
    /// When the control API cannot be reached, or a Service is not there.
    pub async fn publish_names(&self) -> Result<Value> {
        let (mx, dns) = (self.address_of("mx").await?, self.address_of("dns").await?);
        let operator = Data::from(address(&self.client, release::NAMESPACE, release::NAME).await?);
        let operator =
            Record { name: format!("{}.{}.svc", release::NAME, release::NAMESPACE), data: operator };
        self.configure(|config| {
            config.directory.tenants.iter_mut().for_each(|tenant| tenant.mx_hosts.clear());
            config.dns.addresses = vec![mx];
            config.dns.records = vec![operator];
        })
        .await?;
        Ok(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": [dns]}}))
    }

    async fn address_of(&self, service: &str) -> Result<IpAddr> {
        address(&self.client, &self.namespace, service).await
    }
}

async fn address(client: &Client, namespace: &str, service: &str) -> Result<IpAddr> {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let address = services.get(service).await?.spec.and_then(|spec| spec.cluster_ip);
    Ok(address.with_context(|| format!("the address of Service {service}"))?.parse()?)
}

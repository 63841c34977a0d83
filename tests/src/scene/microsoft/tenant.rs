//! What administrators decide: the tenant, its application and mailboxes, and what the service allows them.

use std::time::Duration;

use anyhow::Result;
use mailroute_m365::Config;
use mailroute_m365::directory::{FederatedCredential, Mailbox, Tenant};
use serde_json::{Value, json};

use super::Microsoft;

impl Microsoft {
    /// Lets the sample application be used by the tokens of a service account of this cluster.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn trust_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        self.configure(|config| {
            for application in config.directory.tenants.iter_mut().flat_map(|t| &mut t.applications) {
                application.federated_credentials.push(FederatedCredential {
                    name: format!("{namespace}-{name}"),
                    issuer: "cluster".into(),
                    subject: subject.clone(),
                    audience: "api://AzureADTokenExchange".into(),
                });
            }
        })
        .await
    }

    /// Gives its tenant another id.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn rename_tenant(&self, id: &str) -> Result<()> {
        self.configure(|config| config.directory.tenants.iter_mut().for_each(|tenant| tenant.id = id.into()))
            .await
    }

    /// Takes the permission on the mailbox from the application.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn revoke_mailbox_permission(&self) -> Result<()> {
        self.configure(|config| {
            for application in config.directory.tenants.iter_mut().flat_map(|t| &mut t.applications) {
                application.mailboxes.clear();
            }
        })
        .await
    }

    /// `Set-CASMailbox -SmtpClientAuthenticationDisabled $true`.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn disable_smtp_auth_of_the_mailbox(&self) -> Result<()> {
        self.configure(|config| each_mailbox(config, |m| m.smtp_auth_disabled = Some(true))).await
    }

    /// `Set-TransportConfig -SmtpClientAuthenticationDisabled $true`, and no mailbox that overrides it.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn disable_smtp_auth_of_the_tenant(&self) -> Result<()> {
        self.configure(|config| {
            config
                .directory
                .tenants
                .iter_mut()
                .for_each(|tenant: &mut Tenant| tenant.smtp_auth_disabled = true);
            each_mailbox(config, |m| m.smtp_auth_disabled = None);
        })
        .await
    }

    /// Replaces the client secret of the application; the old one is worth nothing from now on.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn replace_client_secret(&self, value: &str) -> Result<()> {
        self.configure(|config| {
            let applications = config.directory.tenants.iter_mut().flat_map(|t| &mut t.applications);
            applications.flat_map(|a| &mut a.client_secrets).for_each(|secret| secret.value = value.into());
        })
        .await
    }

    /// A Secret of type `kubernetes.io/tls` with a certificate that connectors trust, for a name and a time.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn relay_certificate(&self, secret: &str, name: &str, lifetime: Duration) -> Result<Value> {
        let path = format!("sample/relay-certificate?name={name}&seconds={}", lifetime.as_secs());
        let issued: Value = self.json(&path).await?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": secret},
            "stringData": {"tls.crt": issued["chain"], "tls.key": issued["key"]},
        }))
    }

    /// How long each message takes from now on.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn take_for_each_message(&self, time: Duration) -> Result<()> {
        let milliseconds = u64::try_from(time.as_millis())?;
        self.configure(|config| config.pace.message_milliseconds = milliseconds).await
    }

    /// How long the access tokens from now on live.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn token_lifetime(&self, lifetime: Duration) -> Result<()> {
        self.configure(|config| config.tokens.lifetime_seconds = lifetime.as_secs()).await
    }
}

fn each_mailbox(config: &mut Config, mut change: impl FnMut(&mut Mailbox)) {
    config.directory.tenants.iter_mut().flat_map(|t| &mut t.mailboxes).for_each(&mut change);
}

//! The simulator as a pod of the cluster, and its control API, reached through the API server's service proxy.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use kube::{Api, Client};
use mailroute_m365::directory::{FederatedCredential, Mailbox, Tenant};
use mailroute_m365::{Config, Faults, Line, Message, Rule, SmtpAction, Stage, TokenExchange, Violation};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{PATIENCE, release};
use crate::wait::is_available;
use crate::{Cluster, wait_for};

/// Name of the simulator's Deployment in `tests/m365/deploy/m365.yaml`.
const DEPLOYMENT: &str = "m365";

/// Service and port of the control API.
const CONTROL: &str = "control:8080";

/// A simulator in a namespace.
pub struct Microsoft {
    client: Client,
    namespace: String,
}

impl Microsoft {
    /// Deploys a simulator into a namespace (made when it is not there), with the sample directory, trusting the
    /// cluster's issuer and the namespace's default service account.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn deploy(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let path = release::repository().join("tests/m365/deploy/m365.yaml");
        let manifests = std::fs::read_to_string(&path)?.replace("m365.svc", &format!("{namespace}.svc"));
        let manifests = manifests.replace("namespace: m365", &format!("namespace: {namespace}"));
        let manifests =
            manifests.replacen("name: m365 # namespace", &format!("name: {namespace} # namespace"), 1);
        cluster.apply(namespace, &manifests).await?;
        let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
        wait_for(deployments, DEPLOYMENT, is_available, PATIENCE)
            .await
            .context("the simulator does not come up")?;
        let simulator = Self { client: cluster.client(), namespace: namespace.to_owned() };
        simulator.trust_service_account(namespace, "default").await?;
        Ok(simulator)
    }

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

    /// Writes its CA to the ConfigMap that routes of a namespace name in `caBundleRef`.
    ///
    /// # Errors
    /// When the control API cannot be reached, or the API server refuses the ConfigMap.
    pub async fn publish_ca(&self, namespace: &str) -> Result<()> {
        let ca = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m365-ca"},
            "data": {"ca.crt": self.ca_pem().await?},
        });
        let config_maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        config_maps.patch("m365-ca", &PatchParams::apply("scene").force(), &Patch::Apply(&ca)).await?;
        Ok(())
    }

    /// The CA that its certificates chain to, PEM.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn ca_pem(&self) -> Result<String> {
        self.request("GET", "ca.pem", None).await
    }

    /// What arrived so far.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn messages(&self) -> Result<Vec<Message>> {
        self.json("messages").await
    }

    /// Waits until at least `count` messages have arrived.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_messages(&self, count: usize) -> Result<()> {
        let seconds = PATIENCE.as_secs();
        // Asked for in slices, as a proxied request may not take too long.
        for _ in 0..seconds.div_ceil(20) {
            let arrived: Vec<Message> = self.json(&format!("messages?wait={count}&timeout=20")).await?;
            if arrived.len() >= count {
                return Ok(());
            }
        }
        anyhow::bail!("{} of {count} messages arrived within {seconds} s", self.messages().await?.len())
    }

    /// Waits until messages whose subjects are exactly these have arrived, in whatever order, each once.
    ///
    /// # Errors
    /// When they do not in time, or another message or a second copy is among them.
    pub async fn wait_for_numbers(&self, numbers: Range<u32>) -> Result<Vec<Message>> {
        self.wait_for_messages(numbers.len()).await?;
        let messages = self.messages().await?;
        let mut arrived: Vec<_> = messages.iter().filter_map(|message| message.header("Subject")).collect();
        arrived.sort_by_key(|subject| subject.parse::<u32>().unwrap_or(u32::MAX));
        let sent: Vec<_> = numbers.map(|number| number.to_string()).collect();
        ensure!(arrived == sent, "sent {sent:?}, arrived {arrived:?}");
        Ok(messages)
    }

    /// What clients did that Exchange would refuse, each a sentence.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn violations(&self) -> Result<Vec<String>> {
        let found: Vec<Violation> = self.json("violations").await?;
        Ok(found.into_iter().map(|violation| violation.detail).collect())
    }

    /// Who asked for an access token, and what became of it.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn exchanges(&self) -> Result<Vec<TokenExchange>> {
        self.json("tokens").await
    }

    /// How many access tokens were issued.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn tokens_issued(&self) -> Result<usize> {
        let exchanges = self.exchanges().await?;
        Ok(exchanges.iter().filter(|e| e.outcome == "Issued").count())
    }

    /// Forgets the messages of earlier runs.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn forget(&self) -> Result<()> {
        self.request("DELETE", "messages", None).await.map(drop)
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

    /// Closes the submission port.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn go_down(&self) -> Result<()> {
        let mut faults = Faults::default();
        faults.submission.down = true;
        self.faults(&faults).await
    }

    /// Ends each connection after a message has been taken, so that every message comes over a new one.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn hang_up_after_each_message(&self) -> Result<()> {
        self.faults(&hanging_up()).await
    }

    /// The same, and the next log-in is refused as one with an unknown token, which a client answers with another token.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn refuse_the_next_token(&self) -> Result<()> {
        let mut faults = hanging_up();
        let refusal = SmtpAction::Reply(Line::AuthUnsuccessful.into());
        faults.submission.rules.push(Rule::times(Stage::Auth, refusal, 1));
        self.faults(&faults).await
    }

    /// Ends every fault.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn come_back(&self) -> Result<()> {
        self.faults(&Faults::default()).await
    }

    /// Replaces what is switched on.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn faults(&self, faults: &Faults) -> Result<()> {
        self.request("PUT", "faults", Some(serde_json::to_vec(faults)?)).await.map(drop)
    }

    /// Changes the configuration as a whole.
    ///
    /// # Errors
    /// When the control API cannot be reached, or refuses the new one.
    pub async fn configure(&self, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut config: Config = self.json("config").await?;
        change(&mut config);
        self.request("PUT", "config", Some(serde_json::to_vec(&config)?)).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let text = self.request("GET", path, None).await?;
        serde_json::from_str(&text).with_context(|| format!("/{path} answered {text}"))
    }

    async fn request(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<String> {
        let uri = format!("/api/v1/namespaces/{}/services/{CONTROL}/proxy/{path}", self.namespace);
        let request =
            hyper::Request::builder().method(method).uri(uri).header("content-type", "application/json");
        let response = self.client.send(request.body(Body::from(body.unwrap_or_default()))?).await?;
        let status = response.status();
        let text = String::from_utf8(response.into_body().collect().await?.to_bytes().into())?;
        ensure!(status.is_success(), "{method} /{path} answered {status}: {text}");
        Ok(text)
    }
}

fn hanging_up() -> Faults {
    let mut faults = Faults::default();
    for face in [&mut faults.submission, &mut faults.relay] {
        face.rules = vec![Rule::always(Stage::EndOfData, SmtpAction::CutAfterReply)];
    }
    faults
}

fn each_mailbox(config: &mut Config, mut change: impl FnMut(&mut Mailbox)) {
    config.directory.tenants.iter_mut().flat_map(|t| &mut t.mailboxes).for_each(&mut change);
}

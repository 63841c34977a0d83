//! The ground: a control plane with the chart, the operator as a process of its own, the victims, and what attackers know.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::review;
use e2e::replica::program::Operator;
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::PATIENCE;
use e2e::{Cluster, Namespace, Tier, wait_for};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, Config};
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_TENANT};
use mailroute_operator::pki::Lifetimes;
use mailroute_route::RouteFile;
use mailroute_route::file::ControlService;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tempfile::TempDir;

use crate::admission::Questions;
use crate::pods;
use crate::victims::{LIMIT, SIDECARS, Victims};
use crate::wire::{ATTACKER, Wire};

/// The victims' route.
pub const ROUTE: &str = "sender";

/// The tenant and mailbox that the victims send as.
pub const MAILBOX: (&str, &str) = (SAMPLE_TENANT, SAMPLE_MAILBOX);

/// The domain of mailboxes that everybody may name.
const FRESH: &str = "fresh.contoso.com";

/// Everything that stands before an attack.
pub struct Ground {
    /// The control plane, and the victims' namespace.
    pub stage: Stage,
    /// Who is attacked.
    pub operator: Operator,
    /// Who suffers.
    pub victims: Victims,
    reviewer: Config,
    open: Client,
    wire: Wire,
    _folder: TempDir,
}

/// What an attacker has: a namespace of its own, and what any pod can reach.
pub struct Attackers {
    /// Their cluster.
    pub cluster: Cluster,
    /// Where they may do as they like.
    pub namespace: String,
    /// How they reach the operator.
    pub wire: Wire,
    /// The webhook's port.
    pub webhook: SocketAddr,
    /// The control service's port.
    pub control: SocketAddr,
    /// The port of probes and metrics.
    pub admin: SocketAddr,
}

impl Ground {
    /// Prepares it; mail flows at the pace of the limit when this returns.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub async fn prepare() -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        as_many_files_as_can_be()?;
        let cluster = Cluster::start(Tier::ControlPlane).await?;
        let folder = tempfile::tempdir()?;
        let rules = folder.path().join("mailboxes.yaml").display().to_string();
        let flags = [
            ["--dns-preflight", "false"],
            ["--check-source-address", "true"],
            ["--mailbox-rules", rules.as_str()],
        ];
        let stage = Stage::on(cluster, &[], &flags.concat(), Lifetimes::default()).await?;
        std::fs::write(&rules, mailbox_rules(stage.namespace.name()))?;
        let operator =
            Operator::start(&stage, &program("MAILROUTE_OPERATOR", "mailroute-operator")?, 0).await?;
        operator.is_ready().await?;
        operator.serve(&stage).await?;

        let (client, namespace) = (stage.client(), stage.namespace.name());
        let limits = json!({"messagesPerMinute": LIMIT, "recipientsPerDay": 1_000_000});
        pods::route(&client, namespace, ROUTE, MAILBOX, limits).await?;
        let control = control_service(&client, namespace).await?;
        let (mut tokens, address) = (Vec::new(), operator.webhook.ip().to_string());
        for number in 0..SIDECARS {
            let pod = pods::pod(&client, namespace, &format!("sender-{number}"), ROUTE, &address).await?;
            tokens.push(pods::token(&stage.cluster, namespace, &pod).await?);
        }
        let wire = Wire::new(&control.address, &control.ca_pem)?;
        let victims = Victims::start(&tokens, &control, operator.control).await?;
        victims.are_in_step().await?;
        let reviewer = stage.reviewer_config(operator.webhook).await?;
        let open = Client::try_from(reviewer.clone())?;
        Ok(Self { stage, operator, victims, reviewer, open, wire, _folder: folder })
    }

    /// What is asked of the webhook.
    pub fn questions(&self) -> Questions {
        let mut pod = labelled_pod();
        pod["metadata"]["labels"]["mailroute.dev/route"] = json!(ROUTE);
        let (open, reviewer) = (self.open.clone(), self.reviewer.clone());
        let fresh = Box::new(move || Ok(Client::try_from(reviewer.clone())?));
        Questions { open, fresh, review: Arc::new(review(self.stage.namespace.name(), &pod)) }
    }

    /// A new namespace, and attackers in it.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn attackers(&self) -> Result<(Namespace, Attackers)> {
        let made = self.stage.cluster.namespace("evil", &[]).await?;
        let namespace = made.name().to_owned();
        let Operator { webhook, control, admin, .. } = self.operator;
        let (cluster, wire) = (self.stage.cluster.clone(), self.wire.clone());
        Ok((made, Attackers { cluster, namespace, wire, webhook, control, admin }))
    }

    /// The end of it.
    ///
    /// # Errors
    /// When the operator has ended before, or more was sent than the mailbox may.
    pub async fn finish(self) -> Result<()> {
        self.victims.ensure_within_limits()?;
        drop(self.victims);
        self.operator.stop().await?;
        self.stage.namespace.finish()
    }
}

impl Attackers {
    /// A client with every right; what is done with it is what the owner of a namespace may do in it.
    pub fn client(&self) -> Client {
        self.cluster.client()
    }

    /// A route of their own.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn route(&self, name: &str, mailbox: (&str, &str), limits: serde_json::Value) -> Result<()> {
        pods::route(&self.client(), &self.namespace, name, mailbox, limits).await
    }

    /// A pod of their own, at the address that their connections come from.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn pod(&self, name: &str, route: &str) -> Result<Pod> {
        pods::pod(&self.client(), &self.namespace, name, route, &ATTACKER.to_string()).await
    }

    /// The token of such a pod.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn token(&self, pod: &Pod) -> Result<String> {
        pods::token(&self.cluster, &self.namespace, pod).await
    }
}

/// The victims' mailbox is theirs alone, as the chart's value `mailboxes` has it. Without that others have a fair part of it,
/// which is no attack. JSON, which is YAML.
fn mailbox_rules(namespace: &str) -> String {
    json!({"mailboxes": [
        {"namespaces": [namespace], "mailboxes": [MAILBOX.1]},
        {"namespaces": ["*"], "mailboxes": [format!("*@{FRESH}")]},
    ]})
    .to_string()
}

/// The control service as the operator names it to the victims' route.
async fn control_service(client: &Client, namespace: &str) -> Result<ControlService> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let control = |map: &ConfigMap| {
        let json = map.data.as_ref()?.get("route.json")?;
        RouteFile::parse(json.as_bytes()).ok()?.control
    };
    let map = wait_for(maps, &format!("mailroute-{ROUTE}"), |map| control(map).is_some(), PATIENCE).await;
    control(&map.context("the route is not rendered")?).context("it was just seen")
}

/// A program as a variable names it (`make test` names those that are shipped), or as cargo has built it last.
pub fn program(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(variable).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let this = std::env::current_exe()?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    let found =
        found.with_context(|| format!("no {name}: `cargo build --bin {name}`, or name it in {variable}"))?;
    ensure!(found.is_absolute(), "{}", found.display());
    Ok(found)
}

/// A thousand connections are a thousand open files, here and in the operator that is started from here.
fn as_many_files_as_can_be() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A mailbox that is nobody's.
pub fn fresh_mailbox(number: usize) -> String {
    format!("fresh-{number}@{FRESH}")
}

//! The operator in this process, behind the chart on a control plane, and everything that can go wrong with it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::prometheus::{Prometheus, Target};
use e2e::replica::asking::presented_until;
use e2e::replica::{Running, announce, flags, install_chart, until};
use e2e::scene::{PATIENCE, release, workload};
use e2e::{Cluster, Namespace, Tier, wait_for};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use mailroute_operator::pki::{Lifetimes, trust};
use mailroute_operator_core::crd::{MailRoute, MailRouteStatus};
use mailroute_operator_core::inject::names::INJECTED;
use mailroute_route::condition::{ConditionType, Reason};
use serde_json::{Value, json};

use super::borrower::{self, Lender};
use crate::lent;

/// A control plane with the chart, a route, and a replica that serves them.
pub(crate) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) namespace: Namespace,
    pub(super) running: Vec<Running>,
    lender: Lender,
}

impl Stage {
    pub(crate) async fn set() -> Result<Self> {
        let cluster = Cluster::start(Tier::ControlPlane).await?;
        release::install_definitions(&cluster).await?;
        install_chart(&cluster, &[]).await?;
        let namespace = cluster.namespace("monitored", &[]).await?;
        let lender = Lender::to(&cluster, namespace.name()).await?;
        let mut stage = Self { cluster, namespace, running: Vec::new(), lender };
        stage.route("notifications").await?;
        stage.apply(borrower::ROUTE, lent::route(borrower::ROUTE)).await?;
        stage.replica(Lifetimes::default()).await?;
        announce(&stage.cluster, 0, stage.running[0].flags.webhook_listen).await?;
        let accepted = |route: &MailRoute| holds(route, ConditionType::Accepted);
        for route in ["notifications", borrower::ROUTE] {
            wait_for(stage.routes(), route, accepted, PATIENCE).await?;
        }
        Ok(stage)
    }

    async fn replica(&mut self, lifetimes: Lifetimes) -> Result<()> {
        let number = u16::try_from(self.running.len())?;
        let [settings, identity] = self.lender.flags();
        let more = ["--dns-preflight=false", "--silent-after=1", &settings, &identity];
        let flags = flags(&self.cluster, number, &more)?;
        self.running.push(Running::start(&self.cluster, flags, lifetimes).await?);
        Ok(())
    }

    /// One whose certificate is for a few minutes only.
    pub(crate) async fn second_replica(&mut self) -> Result<()> {
        let [authority, leaf, settle] = [3600, 300, 60].map(Duration::from_secs);
        self.replica(Lifetimes::new(authority, leaf, settle)?).await
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |replica: &Running| {
            super::pod(replica.flags.admin_listen, release::NAMESPACE, &replica.flags.pod_name, None)
        };
        self.running.iter().map(target).collect()
    }

    /// The end of the certificate that a replica presents is what it tells Prometheus.
    pub(crate) async fn certificate_ends_as_told(&self, prometheus: &Prometheus) -> Result<()> {
        let presented = presented_until(&self.cluster.client(), self.webhook()?).await?;
        let metric = "mailroute_certificate_expiry_timestamp_seconds{certificate=\"leaf\"}";
        let told = prometheus.query(metric).await?;
        let told = told.first().and_then(|row| row["value"][1].as_str()).context("an expiry")?;
        ensure!(told.parse::<f64>()? == presented as f64, "told {told}, presented {presented}");
        Ok(())
    }

    /// The namespace of a sample is the route's, not the operator's.
    pub(crate) async fn samples_of_routes_name_the_route(&self, prometheus: &Prometheus) -> Result<()> {
        let silent = prometheus.query("mailroute_route_sidecars{state=\"silent\"} > 0").await?;
        let named = |row: &Value| row["metric"]["namespace"] == self.namespace.name();
        ensure!(!silent.is_empty() && silent.iter().all(named), "{silent:?}");
        Ok(())
    }

    /// Has a labelled pod admitted that is not made.
    pub(crate) async fn admit(&self) -> Result<()> {
        until(async || self.pod("notifications", true).await.map(drop)).await.context("pods are not admitted")
    }

    pub(crate) async fn make_trouble(&self) -> Result<()> {
        // It never runs here.
        let pod = self.pod("notifications", false).await?;
        self.not_ready(&pod).await?;
        self.outdated(&pod).await?;
        self.silent_pod().await?;
        self.pod_that_ends_with_mail().await?;
        for _ in 0..3 {
            let refused = self.pod("no-such-route", false).await;
            ensure!(refused.is_err(), "a pod without a route is admitted");
            self.ask(self.webhook()?, "/inject", "Bearer none", b"no review".to_vec()).await?;
            self.ask(self.control()?, "/v1/report", "Bearer none", b"{}".to_vec()).await?;
        }
        self.lender.is_not_trusted_any_more();
        self.ask_in_vain_for_a_token().await?;
        self.excused_pod().await?;
        self.foreign_config_map().await?;
        self.unreadable_route().await?;
        self.rewritten_webhook().await
    }

    /// The pod was injected by an operator that added something else.
    async fn outdated(&self, pod: &Pod) -> Result<()> {
        let annotations = pod.metadata.annotations.as_ref().context("annotations")?;
        let mut record: Value = serde_json::from_str(annotations.get(INJECTED).context("a record")?)?;
        record["hash"] = json!("another");
        let patch = Patch::Merge(json!({"metadata": {"annotations": {INJECTED: record.to_string()}}}));
        self.pods().patch(name(pod)?, &PatchParams::default(), &patch).await?;
        self.status_becomes(|status| status.sidecars.outdated == 1).await
    }

    /// A pod whose sidecar runs and never reports.
    async fn silent_pod(&self) -> Result<()> {
        let pod = self.pod("notifications", false).await?;
        let status = json!({"status": {"initContainerStatuses": [{
            "name": "mailroute", "image": "mailroute", "imageID": "", "restartCount": 0, "ready": true,
            "started": true, "state": {"running": {}},
        }]}});
        self.pods().patch_status(name(&pod)?, &PatchParams::default(), &Patch::Merge(status)).await?;
        let counted = |status: &MailRouteStatus| status.sidecars.silent == 1;
        self.status_becomes(counted).await
    }

    /// A pod that is deleted while a message waits in it.
    async fn pod_that_ends_with_mail(&self) -> Result<()> {
        let pod = self.pod("notifications", false).await?;
        let queue = json!({"messages": 1, "oldestSeconds": 60, "deadLetters": 0});
        self.report(&pod, json!({"queue": queue})).await?;
        self.status_becomes(|status| status.queue.messages == 1).await?;
        self.pods().delete(name(&pod)?, &DeleteParams::default().grace_period(0)).await?;
        self.status_becomes(|status| status.queue.lost == 1).await
    }

    async fn status_becomes(&self, wanted: impl Fn(&MailRouteStatus) -> bool + Copy) -> Result<()> {
        let has = |route: &MailRoute| route.status.as_ref().is_some_and(wanted);
        wait_for(self.routes(), "notifications", has, PATIENCE).await.map(drop)
    }

    /// The pod's sidecar reports this.
    async fn report(&self, pod: &Pod, more: Value) -> Result<()> {
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", name(pod)?];
        let asked = ["create", "token", "default", "--namespace", self.namespace.name()];
        let token =
            self.cluster.kubectl(&[&asked[..], &["--audience", "mailroute.dev"], &bound].concat()).await?;
        let bearer = format!("Bearer {}", token.trim());
        let mut report = json!({"route": "notifications", "generation": 1, "sidecarVersion": "0.1.0"});
        report
            .as_object_mut()
            .into_iter()
            .for_each(|it| it.extend(more.as_object().cloned().unwrap_or_default()));
        let report = report.to_string();
        until(async || {
            let status =
                self.ask(self.control()?, "/v1/report", &bearer, report.clone().into_bytes()).await?;
            ensure!(status == 200, "the report is answered {status}");
            Ok(())
        })
        .await
    }

    /// The pod's sidecar cannot log in.
    async fn not_ready(&self, pod: &Pod) -> Result<()> {
        let observation = json!({
            "condition": "Authenticated", "holds": false, "reason": Reason::SmtpAuthDisabledMailbox,
            "message": "535 5.7.139", "at": jiff::Timestamp::now().as_second(),
        });
        self.report(pod, json!({"observations": [observation]})).await?;
        let failed = |route: &MailRoute| {
            let conditions = route.status.iter().flat_map(|status| &status.conditions);
            conditions.clone().any(|condition| condition.type_ == "Ready" && condition.status == "False")
        };
        wait_for(self.routes(), "notifications", failed, PATIENCE).await.map(drop)
    }

    /// A pod that starts without its sidecar.
    async fn excused_pod(&self) -> Result<()> {
        let mut pod = workload::pod("excused", "notifications", &workload::pod_spec("true"));
        pod["metadata"]["annotations"] = json!({"mailroute.dev/allow-without-sidecar": "true"});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    /// A ConfigMap of the name that a route's would have, and is not ours.
    async fn foreign_config_map(&self) -> Result<()> {
        let namespace = self.namespace.name();
        self.cluster.kubectl(&["create", "configmap", "mailroute-taken", "--namespace", namespace]).await?;
        self.route("taken").await
    }

    /// A route that was stored under a definition that took anything.
    async fn unreadable_route(&self) -> Result<()> {
        let anything = json!([{
            "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema",
            "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }]);
        let name = "mailroutes.mailroute.dev";
        self.cluster
            .kubectl(&["patch", "crd", name, "--type=json", "--patch", &anything.to_string()])
            .await?;
        let mut route = workload::route("unreadable", self.namespace.name());
        route["spec"]["method"] = json!("Pigeon");
        until(async || self.cluster.apply(self.namespace.name(), &route.to_string()).await.map(drop)).await
    }

    /// Another actor that lets failing calls pass, and that takes the bundle away again and again.
    async fn rewritten_webhook(&self) -> Result<()> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.cluster.client());
        let patch = |path: &str, value: &str| -> Result<Patch<()>> {
            let path = format!("/webhooks/1/{path}");
            Ok(Patch::Json(serde_json::from_value(json!([{"op": "replace", "path": path, "value": value}]))?))
        };
        for _ in 0..5 {
            let emptied = patch("clientConfig/caBundle", "")?;
            configurations.patch(release::NAME, &PatchParams::default(), &emptied).await?;
            let filled = |configuration: &MutatingWebhookConfiguration| {
                trust::live(configuration).is_some_and(|bundle| !bundle.is_empty())
            };
            wait_for(configurations.clone(), release::NAME, filled, PATIENCE).await?;
        }
        configurations
            .patch(release::NAME, &PatchParams::default(), &patch("failurePolicy", "Ignore")?)
            .await?;
        Ok(())
    }

    /// Takes the rights in the release namespace away, the one on the Lease among them.
    pub(crate) async fn lose_the_lease(&self) -> Result<()> {
        let binding = ["delete", "rolebinding", release::NAME, "--namespace", release::NAMESPACE];
        self.cluster.kubectl(&binding).await.map(drop)
    }

    /// Ends every replica.
    pub(crate) async fn end(self) -> Result<()> {
        for replica in self.running {
            replica.kill().await;
        }
        self.namespace.finish()
    }

    async fn route(&self, name: &str) -> Result<()> {
        self.apply(name, workload::route(name, self.namespace.name())).await
    }

    async fn apply(&self, name: &str, route: Value) -> Result<()> {
        self.routes().patch(name, &PatchParams::apply("test"), &Patch::Apply(route)).await?;
        Ok(())
    }

    async fn pod(&self, route: &str, dry_run: bool) -> Result<Pod> {
        let mut pod = workload::pod("", route, &workload::pod_spec("true"));
        pod["metadata"] = json!({"generateName": "web-", "labels": pod["metadata"]["labels"]});
        let params = PostParams { dry_run, ..PostParams::default() };
        Ok(self.pods().create(&params, &serde_json::from_value::<Pod>(pod)?).await?)
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), self.namespace.name())
    }

    pub(super) fn routes(&self) -> Api<MailRoute> {
        Api::namespaced(self.cluster.client(), self.namespace.name())
    }

    fn webhook(&self) -> Result<std::net::SocketAddr> {
        self.running.first().map(|replica| replica.flags.webhook_listen).context("a replica")
    }

    /// The control service of the first replica, which leads.
    fn control(&self) -> Result<std::net::SocketAddr> {
        self.running.first().map(|replica| replica.flags.control_listen).context("a replica")
    }

    /// Asks a replica something over its own TLS; returns the status of the answer.
    pub(super) async fn ask(
        &self,
        at: std::net::SocketAddr,
        path: &str,
        bearer: &str,
        body: Vec<u8>,
    ) -> Result<u16> {
        let mut config = Config::new(format!("https://{at}").parse()?);
        config.accept_invalid_certs = true;
        let request = hyper::Request::post(path)
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .body(kube::client::Body::from(body))?;
        Ok(Client::try_from(config)?.send(request).await?.status().as_u16())
    }
}

fn name(pod: &Pod) -> Result<&str> {
    pod.metadata.name.as_deref().context("a pod has a name")
}

fn holds(route: &MailRoute, condition: ConditionType) -> bool {
    let mut conditions = route.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|met| met.type_ == condition.as_str() && met.status == "True")
}

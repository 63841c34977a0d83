//! A namespace for one test: removed at the end, and described when the test fails.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{self, ServiceAccount};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::cluster::Cluster;
use crate::secrets;
use crate::wait::wait_for;

/// The default ServiceAccount, without which no pod is admitted, follows a namespace within a second; at the very start
/// of a cluster its controller needs longer.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(60);

/// Lines of each container's log in a report.
const LOG_LINES: &str = "--tail=80";

/// A namespace of one's own. Dropping it removes it; unless [`Namespace::finish`] was called before, a report of its pods,
/// logs and events is printed first, which a test runner shows when the test fails.
pub struct Namespace {
    cluster: Cluster,
    name: String,
    finished: bool,
}

impl Cluster {
    /// Makes a namespace of one's own, whose name starts with the given one, and waits until pods can be made in it.
    ///
    /// # Errors
    /// When the API server refuses it or its ServiceAccount does not appear.
    pub async fn namespace(&self, prefix: &str, labels: &[(&str, &str)]) -> Result<Namespace> {
        Namespace::create(self.clone(), prefix, labels).await
    }
}

impl Namespace {
    async fn create(cluster: Cluster, prefix: &str, labels: &[(&str, &str)]) -> Result<Self> {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let generate_name = Some(format!("{prefix}-"));
        let metadata = ObjectMeta { generate_name, labels: Some(labels), ..ObjectMeta::default() };
        let wanted = v1::Namespace { metadata, ..v1::Namespace::default() };
        let made = Api::all(cluster.client()).create(&PostParams::default(), &wanted).await?;
        let name = made.metadata.name.context("the API server names what it generates")?;
        let namespace = Self { cluster, name, finished: false };
        let accounts: Api<ServiceAccount> = Api::namespaced(namespace.cluster.client(), &namespace.name);
        wait_for(accounts, "default", |_| true, ACCOUNT_WITHIN).await?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The test has passed: no report is needed when the namespace goes, unless anything in it shows a secret.
    ///
    /// # Errors
    /// When a log, an Event, a ConfigMap or a status shows one.
    pub fn finish(mut self) -> Result<()> {
        let shown = self.described("--tail=-1")
            + &self.cluster.kubectl_blocking(&[
                "get",
                "events,configmaps,mailroutes",
                "--output=yaml",
                "--namespace",
                &self.name,
            ]);
        let found = secrets::find(&shown);
        ensure!(found.is_empty(), "namespace {} shows {}", self.name, found.join(", "));
        self.finished = true;
        Ok(())
    }

    /// Pods, events and the end of every container's log, for a person who wants to know why a test failed.
    pub fn report(&self) -> String {
        self.described(LOG_LINES)
    }

    /// Pods, events and so much of every container's log.
    fn described(&self, lines: &str) -> String {
        let ask = |arguments: &[&str]| {
            let mut all = vec!["--namespace", &self.name];
            all.extend_from_slice(arguments);
            self.cluster.kubectl_blocking(&all)
        };
        let mut report = format!("--- namespace {}\n", self.name);
        report += &ask(&["get", "pods,jobs,mailroutes", "--ignore-not-found", "--output=wide"]);
        report +=
            &format!("--- events\n{}", ask(&["get", "events", "--sort-by=.metadata.creationTimestamp"]));
        for pod in ask(&["get", "pods", "--output=name"]).lines().filter(|line| line.starts_with("pod/")) {
            report += &format!("--- {pod}\n{}", ask(&["logs", pod, "--all-containers", "--prefix", lines]));
        }
        report
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done with a report that cannot be written.
            let _ = writeln!(io::stderr(), "{}", self.report());
        }
        self.cluster.kubectl_blocking(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

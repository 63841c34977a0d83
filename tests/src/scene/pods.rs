//! Pods and Jobs of a scene: followed to the state that a scenario waits for, their logs, and scripts in them.

use anyhow::{Context, Result, ensure};
use futures::{AsyncBufReadExt, AsyncReadExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{ListParams, LogParams};

use super::{PATIENCE, Scene, workload};
use crate::wait::{has_ended, is_complete};
use crate::{wait_for, wait_for_all};

impl Scene {
    /// Runs a shell script in a pod's container `app` and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error shows what it printed.
    pub async fn run(&self, pod: &str, script: &str) -> Result<String> {
        self.exec(pod, "app", &["/bin/sh", "-ec", script]).await
    }

    pub(super) async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<String> {
        let mut arguments =
            vec!["--namespace", self.namespace.name(), "exec", pod, "--container", container, "--"];
        arguments.extend_from_slice(command);
        self.cluster.kubectl(&arguments).await
    }

    /// Waits until a pod has succeeded: all its containers have ended, each with exit code 0.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn pod_succeeds(&self, name: &str) -> Result<Pod> {
        let succeeded = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
        wait_for(self.api::<Pod>(), name, succeeded, PATIENCE).await
    }

    /// Waits until there is a pod with a label, and returns its name.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn pod_appears(&self, selector: &str) -> Result<String> {
        let pods = wait_for_all(self.api::<Pod>(), selector, |pods| !pods.is_empty(), PATIENCE).await?;
        pods.into_iter().find_map(|pod| pod.metadata.name).context("a stored pod has a name")
    }

    /// The only pod with a label.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod_labelled(&self, selector: &str) -> Result<Pod> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(selector)).await?;
        pods.items.into_iter().next().with_context(|| format!("no pod is labelled {selector}"))
    }

    /// A pod for the route `notifications` that waits to be told what to send; it runs and is ready.
    ///
    /// # Errors
    /// When the API server refuses it, or it does not become ready in time.
    pub async fn waiting_pod(&self, name: &str) -> Result<Pod> {
        self.apply::<Pod>(&workload::pod(name, "notifications", &workload::pod_spec(workload::WAIT))).await?;
        self.pod_ready(name).await
    }

    /// Waits until a pod runs with all its containers ready.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn pod_ready(&self, name: &str) -> Result<Pod> {
        wait_for(self.api::<Pod>(), name, is_ready, PATIENCE).await
    }

    /// Waits for a Job to complete and returns its pod's log of the container `app`.
    ///
    /// # Errors
    /// When the Job fails or does not end in time.
    pub async fn job_completes(&self, name: &str) -> Result<String> {
        let (job, log) = self.job_ends(name).await?;
        ensure!(is_complete(&job), "Job {name} failed; its log: {log}");
        Ok(log)
    }

    /// Waits for a Job to fail and returns its pod's log of the container `app`.
    ///
    /// # Errors
    /// When the Job succeeds or does not end in time.
    pub async fn job_fails(&self, name: &str) -> Result<String> {
        let (job, log) = self.job_ends(name).await?;
        ensure!(!is_complete(&job), "Job {name} succeeded; its log: {log}");
        Ok(log)
    }

    async fn job_ends(&self, name: &str) -> Result<(Job, String)> {
        let job = wait_for(self.api::<Job>(), name, has_ended, PATIENCE).await?;
        let pod = self.pod_labelled(&format!("batch.kubernetes.io/job-name={name}")).await?;
        let pod = pod.metadata.name.context("a stored pod has a name")?;
        Ok((job, self.log(&pod, "app").await?))
    }

    /// The log of a container so far.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn log(&self, pod: &str, container: &str) -> Result<String> {
        let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(self.api::<Pod>().logs(pod, &params).await?)
    }

    /// Waits until a container's log has a line with `text`.
    ///
    /// # Errors
    /// When it has none in time, or the container ends without it.
    pub async fn log_shows(&self, pod: &str, container: &str, text: &str) -> Result<()> {
        self.container_runs(pod, container).await?;
        let params =
            LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
        let mut lines = self.api::<Pod>().log_stream(pod, &params).await?.lines();
        let seen = async {
            while let Some(line) = lines.try_next().await? {
                if line.contains(text) {
                    return Ok(());
                }
            }
            anyhow::bail!("the log of {container} ended without {text:?}")
        };
        tokio::time::timeout(PATIENCE, seen)
            .await
            .with_context(|| format!("no {text:?} in the log of {container}"))?
    }

    /// The log of a container from its start to its end, which is waited for.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn whole_log(&self, pod: &str, container: &str) -> Result<String> {
        let params =
            LogParams { container: Some(container.to_owned()), follow: true, ..LogParams::default() };
        let mut lines = self.api::<Pod>().log_stream(pod, &params).await?;
        let mut log = String::new();
        tokio::time::timeout(PATIENCE, lines.read_to_string(&mut log))
            .await
            .with_context(|| format!("{container} did not end; its log: {log}"))??;
        Ok(log)
    }

    async fn container_runs(&self, pod: &str, container: &str) -> Result<()> {
        let begun = |pod: &Pod| {
            let all = |status: &PodStatus| {
                let (init, others) = (&status.init_container_statuses, &status.container_statuses);
                init.iter().chain(others).flatten().cloned().collect::<Vec<_>>()
            };
            pod.status.iter().flat_map(all).filter(|s| s.name == container).any(|s| {
                s.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            })
        };
        wait_for(self.api::<Pod>(), pod, begun, PATIENCE).await.map(drop)
    }
}

/// Whether the kubelet calls a pod ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

//! A command of the sidecar's program in its container, beside the one that serves.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, LogParams};
use mailroute_operator_core::inject::names::CONTAINER;
use mailroute_route::paths::PROGRAM;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::Cluster;
use crate::error::{Error, Right};
use crate::terminal::clean_lines;

/// Longest output that is read, octets: as long as the longest message.
const MAX_OUTPUT: u64 = 160 * 1024 * 1024;

/// Longest error output that is kept, octets.
const MAX_ERROR: u64 = 16 * 1024;

/// Longest log that is read of one container, octets.
const MAX_LOG: i64 = 64 * 1024 * 1024;

/// What a command came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// What it printed.
    pub out: Vec<u8>,
    /// What it complained of.
    pub err: String,
    /// Its exit code.
    pub code: i32,
}

impl Ran {
    /// What it printed, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its complaint, or else what it printed, in one line.
    pub fn complaint(&self) -> String {
        let text = if self.err.trim().is_empty() { self.text() } else { self.err.clone() };
        let text = text.trim().trim_start_matches("Error: ").replace('\n', "; ");
        if text.is_empty() { format!("exit code {}", self.code) } else { clean_lines(&text) }
    }
}

/// The part of a log that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Not older than so many seconds.
    pub seconds: Option<i64>,
    /// That of the container before it was started again.
    pub previous: bool,
}

impl Cluster {
    /// Runs a command of the sidecar's program in a pod.
    ///
    /// # Errors
    /// When the pod cannot be reached, the right is missing, or it takes longer than `limit`. Not when the command fails.
    pub async fn sidecar(
        &self,
        namespace: &str,
        pod: &str,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Ran, Error> {
        let failed = |why: String| Error::Exec { pod: pod.to_owned(), why };
        match timeout(limit, self.ran(namespace, pod, arguments)).await {
            Ok(ran) => ran,
            Err(_) => Err(failed(format!("no answer within {} seconds", limit.as_secs()))),
        }
    }

    async fn ran(&self, namespace: &str, pod: &str, arguments: &[&str]) -> Result<Ran, Error> {
        let failed = |why: String| Error::Exec { pod: pod.to_owned(), why };
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let command = std::iter::once(PROGRAM).chain(arguments.iter().copied());
        let params = AttachParams {
            container: Some(CONTAINER.to_owned()),
            max_stdout_buf_size: Some(64 * 1024),
            ..AttachParams::default()
        };
        let command: Vec<&str> = command.collect();
        let mut process = pods.exec(pod, command, &params).await.map_err(|error| {
            match Error::of(&error, Right::new("create", "pods", Some(namespace)).of("exec")) {
                denied @ Error::Denied { .. } => denied,
                other => failed(other.to_string()),
            }
        })?;
        let status = process.take_status();
        let (out, err) = tokio::join!(read(process.stdout(), MAX_OUTPUT), read(process.stderr(), MAX_ERROR));
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let code = code(status.as_ref()).map_err(failed)?;
        Ok(Ran { out, err: clean_lines(&String::from_utf8_lossy(&err)), code })
    }

    /// The log of the sidecar of a pod.
    ///
    /// # Errors
    /// When it cannot be read, or the right is missing.
    pub async fn log(&self, namespace: &str, pod: &str, since: Since) -> Result<String, Error> {
        let params = LogParams {
            container: Some(CONTAINER.to_owned()),
            since_seconds: since.seconds,
            previous: since.previous,
            limit_bytes: Some(MAX_LOG),
            ..LogParams::default()
        };
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        pods.logs(pod, &params).await.map_err(|error| {
            match Error::of(&error, Right::new("get", "pods", Some(namespace)).of("log")) {
                denied @ Error::Denied { .. } => denied,
                other => Error::Exec { pod: pod.to_owned(), why: format!("its log cannot be read: {other}") },
            }
        })
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut octets = Vec::new();
    if let Some(stream) = stream {
        // What came before an error is all that there is.
        let _ = stream.take(most).read_to_end(&mut octets).await;
    }
    octets
}

/// The exit code that a kubelet reports; an error when the command did not run.
fn code(status: Option<&Status>) -> Result<i32, String> {
    let Some(status) = status else { return Err("the connection to the pod broke off".into()) };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_deref());
    match code.and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(clean_lines(status.message.as_deref().unwrap_or("the command did not run"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exit_code_is_told_from_a_command_that_did_not_run() {
        let read = |value| code(Some(&serde_json::from_value(value).unwrap()));
        assert_eq!(read(json!({"status": "Success"})), Ok(0));
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated",
            "details": {"causes": [{"reason": "ExitCode", "message": "1"}]}});
        assert_eq!(read(failed), Ok(1));
        let gone = json!({"status": "Failure", "message": "container not\x1b found"});
        assert_eq!(read(gone), Err("container not\u{fffd} found".into()));
        assert!(code(None).is_err());
    }

    #[test]
    fn a_complaint_is_one_line() {
        let ran = Ran { out: b"text".into(), err: "Error: no message\nx\n".into(), code: 1 };
        assert_eq!(ran.complaint(), "no message; x");
        assert_eq!(Ran { code: 137, ..Ran::default() }.complaint(), "exit code 137");
    }
}

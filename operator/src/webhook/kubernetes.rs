//! Which Kubernetes the API server is: whether a native sidecar may be given to it.
//!
//! Asks at the start and from time to time, since clusters are upgraded under a running operator. [`NativeSidecars::of`] judges the
//! answer and says why the version matters.

use std::time::Duration;

use kube::Client;
use mailroute_operator_core::kubernetes_version::{NativeSidecars, OLDEST};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api_error::ApiError;

/// When to ask.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After an answer.
    pub again: Duration,
    /// After none.
    pub retry: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { again: Duration::from_secs(5 * 60), retry: Duration::from_secs(2) }
    }
}

/// Asks the API server for ever, and tells its standing.
pub async fn follow(client: Client, pace: Pace, told: watch::Sender<NativeSidecars>) {
    loop {
        let pause = match client.apiserver_version().await {
            Ok(info) => {
                tell(NativeSidecars::of(&info), &info.git_version, &told);
                pace.again
            }
            // It does not say which it is, to anybody like us.
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                tell(NativeSidecars::Fit, "unknown", &told);
                pace.again
            }
            Err(error) => {
                tracing::warn!(error = %ApiError::from(error), "cannot get the API server's version");
                pace.retry
            }
        };
        sleep(pause).await;
    }
}

fn tell(standing: NativeSidecars, version: &str, told: &watch::Sender<NativeSidecars>) {
    if told.send_replace(standing) == standing {
        return;
    }
    match standing {
        NativeSidecars::TooOld(_) => tracing::error!(
            version,
            oldest = %OLDEST,
            "this Kubernetes is too old for native sidecars: pods with a route's label are refused"
        ),
        NativeSidecars::Fit | NativeSidecars::Unknown => tracing::info!(version, "Kubernetes"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Json;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use serde_json::{Value, json};

    use super::*;
    use mailroute_operator_core::kubernetes_version::Version;

    /// What an API server answers from now on.
    type Answer = Arc<Mutex<(StatusCode, Value)>>;

    async fn followed(answer: &Answer) -> watch::Receiver<NativeSidecars> {
        let answer = Arc::clone(answer);
        let version = move || {
            let (status, body) = answer.lock().unwrap().clone();
            async move { (status, Json(body)) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/version", get(version));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = kube::Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        let (told, standing) = watch::channel(NativeSidecars::default());
        let pace = Pace { again: Duration::from_millis(5), retry: Duration::from_millis(5) };
        tokio::spawn(follow(Client::try_from(config).unwrap(), pace, told));
        standing
    }

    async fn becomes(standing: &mut watch::Receiver<NativeSidecars>, wanted: NativeSidecars) {
        let seen = standing.wait_for(|standing| *standing == wanted);
        tokio::time::timeout(Duration::from_secs(30), seen).await.expect("in time").unwrap();
    }

    fn version_of(minor: &str) -> (StatusCode, Value) {
        let mut body = json!({"major": "1", "minor": minor});
        for field in
            ["gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"]
        {
            body[field] = json!("x");
        }
        (StatusCode::OK, body)
    }

    #[tokio::test]
    async fn an_api_server_is_asked_until_it_answers_and_again_after_an_upgrade() {
        let answer = Arc::new(Mutex::new((StatusCode::SERVICE_UNAVAILABLE, json!({}))));
        let mut standing = followed(&answer).await;
        assert_eq!(*standing.borrow(), NativeSidecars::Unknown);
        *answer.lock().unwrap() = version_of("32");
        becomes(&mut standing, NativeSidecars::TooOld(Version { major: 1, minor: 32 })).await;
        *answer.lock().unwrap() = version_of("33");
        becomes(&mut standing, NativeSidecars::Fit).await;
    }

    #[tokio::test]
    async fn a_version_that_is_kept_from_us_is_no_reason_against() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "message": "forbidden"});
        let mut standing = followed(&Arc::new(Mutex::new((StatusCode::FORBIDDEN, status)))).await;
        becomes(&mut standing, NativeSidecars::Fit).await;
    }
}

//! Which Kubernetes the API server is: whether a native sidecar may be given to it.
//!
//! An API server that does not know `restartPolicy` of an init container drops it, and the sidecar that is left holds the pod
//! back for ever. Kubelets need not be asked: one may be three minor versions older than its API server and no more
//! (Kubernetes, "Version Skew Policy"), and those of 1.30 know native sidecars. [`Standing::of`] judges, a pure function;
//! [`follow`] asks, at the start and from time to time, since clusters are upgraded under a running operator.

use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api_error::ApiError;
use crate::inject::Refusal;

/// The oldest that is supported: native sidecars are stable in it. The chart says the same.
pub const OLDEST: Version = Version { major: 1, minor: 33 };

/// A version of Kubernetes, without its patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1, so far.
    pub major: u32,
    /// What counts.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is known of the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// Sidecars may be given to it, as far as it tells.
    Fit,
    /// They may not.
    TooOld(Version),
}

impl Standing {
    /// Judges by what an API server says of itself. One that emulates an older version behaves like that one. What
    /// cannot be read is no reason against it: the chart was installed, which needs [`OLDEST`], too.
    pub fn of(info: &Info) -> Self {
        let emulated = version(info.emulation_major.as_deref(), info.emulation_minor.as_deref());
        match emulated.or_else(|| version(Some(&info.major), Some(&info.minor))) {
            Some(version) if version < OLDEST => Self::TooOld(version),
            _ => Self::Fit,
        }
    }

    /// Refuses to give a sidecar to an API server that is too old.
    ///
    /// # Errors
    /// [`Refusal::KubernetesTooOld`].
    pub const fn check(self) -> Result<(), Refusal> {
        match self {
            Self::TooOld(version) => Err(Refusal::KubernetesTooOld { version }),
            Self::Unknown | Self::Fit => Ok(()),
        }
    }
}

/// Providers write what is theirs behind the number: `33+`.
fn version(major: Option<&str>, minor: Option<&str>) -> Option<Version> {
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    Some(Version { major: number(major?)?, minor: number(minor?)? })
}

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
pub async fn follow(client: Client, pace: Pace, told: watch::Sender<Standing>) {
    loop {
        let pause = match client.apiserver_version().await {
            Ok(info) => {
                tell(Standing::of(&info), &info.git_version, &told);
                pace.again
            }
            // It does not say which it is, to anybody like us.
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                tell(Standing::Fit, "unknown", &told);
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

fn tell(standing: Standing, version: &str, told: &watch::Sender<Standing>) {
    if told.send_replace(standing) == standing {
        return;
    }
    match standing {
        Standing::TooOld(_) => tracing::error!(
            version,
            oldest = %OLDEST,
            "this Kubernetes is too old for native sidecars: pods with a route's label are refused"
        ),
        Standing::Fit | Standing::Unknown => tracing::info!(version, "Kubernetes"),
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

    fn info(minor: &str) -> Info {
        Info { major: "1".into(), minor: minor.into(), ..Info::default() }
    }

    #[test]
    fn native_sidecars_are_for_versions_in_which_they_are_stable() {
        for (minor, fit) in [
            ("27", false),
            // Dropped without a word.
            ("28", false),
            // There, and switched on, but not stable.
            ("29", false),
            ("32", false),
            ("32+", false),
            ("33", true),
            ("33+", true),
            ("34-rc.1", true),
            ("40", true),
            // Not to be read, or of a fork: no reason against it.
            ("", true),
            ("x", true),
        ] {
            assert_eq!(Standing::of(&info(minor)) == Standing::Fit, fit, "{minor:?}");
        }
        let next = Info { major: "2".into(), ..info("0") };
        assert_eq!(Standing::of(&next), Standing::Fit);
    }

    #[test]
    fn an_api_server_is_what_it_emulates() {
        let emulating = |minor: &str| Info {
            emulation_major: Some("1".into()),
            emulation_minor: Some(minor.into()),
            ..info("34")
        };
        assert_eq!(Standing::of(&emulating("33")), Standing::Fit);
        assert_eq!(Standing::of(&emulating("32")), Standing::TooOld(Version { major: 1, minor: 32 }));
    }

    /// What an API server answers from now on.
    type Answer = Arc<Mutex<(StatusCode, Value)>>;

    async fn followed(answer: &Answer) -> watch::Receiver<Standing> {
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
        let (told, standing) = watch::channel(Standing::default());
        let pace = Pace { again: Duration::from_millis(5), retry: Duration::from_millis(5) };
        tokio::spawn(follow(Client::try_from(config).unwrap(), pace, told));
        standing
    }

    async fn becomes(standing: &mut watch::Receiver<Standing>, wanted: Standing) {
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
        assert_eq!(*standing.borrow(), Standing::Unknown);
        *answer.lock().unwrap() = version_of("32");
        becomes(&mut standing, Standing::TooOld(Version { major: 1, minor: 32 })).await;
        *answer.lock().unwrap() = version_of("33");
        becomes(&mut standing, Standing::Fit).await;
    }

    #[tokio::test]
    async fn a_version_that_is_kept_from_us_is_no_reason_against() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "message": "forbidden"});
        let mut standing = followed(&Arc::new(Mutex::new((StatusCode::FORBIDDEN, status)))).await;
        becomes(&mut standing, Standing::Fit).await;
    }

    #[test]
    fn a_refusal_names_both_versions_and_what_to_do() {
        let refusal = Standing::of(&info("31")).check().unwrap_err();
        let told = format!("{refusal} {}", refusal.remedy());
        assert!(told.contains("1.31") && told.contains("1.33") && told.contains("Upgrade"), "{told}");
        assert_eq!((Standing::Fit.check(), Standing::Unknown.check()), (Ok(()), Ok(())));
    }
}

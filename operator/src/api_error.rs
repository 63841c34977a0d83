//! What may be shown of an API server's answer: enough to act on, and nothing of a body that was not understood.
//!
//! The Kubernetes client puts the whole body of an answer that it cannot read into its errors, and a proxy in between, or
//! the answer to a TokenReview or about a Secret, may have a credential in it. So its errors are converted to this one at
//! once, and never reach a log, Event or status themselves.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use kube::core::Status;
use kube::runtime::watcher;

/// How the Kubernetes client marks a `Status` that it made up because the body was none.
const NOT_A_STATUS: &str = "Failed to parse error data";

/// Longest message of an API server that is passed on, bytes.
const MAX_MESSAGE_BYTES: usize = 512;

/// Why a call to the API server failed, in words that hold nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ApiError(String);

impl From<&kube::Error> for ApiError {
    fn from(error: &kube::Error) -> Self {
        Self(match error {
            kube::Error::Api(status) => refusal(status),
            kube::Error::SerdeError(error) => unreadable(error),
            kube::Error::HyperError(error) => unreachable(error),
            kube::Error::Service(error) => unreachable(error.as_ref()),
            kube::Error::ReadEvents(error) => format!("the answer broke off ({})", error.kind()),
            kube::Error::FromUtf8(_) => "the API server's answer is not text".to_owned(),
            kube::Error::Auth(_) => {
                "cannot log in to the API server; check the token or the kubeconfig".to_owned()
            }
            // Each of the others is about the client itself. Their texts are not ours to vouch for.
            _ => "the request could not be made".to_owned(),
        })
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&watcher::Error> for ApiError {
    fn from(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::from(error),
            watcher::Error::WatchError(status) => Self(refusal(status)),
            watcher::Error::NoResourceVersion => Self("the answer has no resourceVersion".to_owned()),
        }
    }
}

fn refusal(status: &Status) -> String {
    let Status { code, reason, message, .. } = status;
    if reason == NOT_A_STATUS {
        return format!("the API server, or a proxy before it, answers {code} and not in Kubernetes' format");
    }
    let message = if message.is_empty() { "no message" } else { message };
    let cut = message.floor_char_boundary(MAX_MESSAGE_BYTES);
    format!("the API server answers {code} {reason}: {}", &message[..cut])
}

/// Where the JSON is wrong. serde's own text holds the value that it did not expect.
fn unreadable(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!(
        "the API server's answer cannot be read ({:?} error at line {line}, column {column})",
        error.classify()
    )
}

/// The causes that the network, TLS and HTTP layers name. Others, such as a log-in program's, are left out.
fn unreachable(error: &(dyn Error + 'static)) -> String {
    let mut text = "the API server cannot be reached".to_owned();
    let mut next = Some(error);
    while let Some(error) = next {
        let is_transport = error.is::<hyper::Error>()
            || error.is::<hyper_util::client::legacy::Error>()
            || error.is::<io::Error>()
            || error.is::<rustls::Error>();
        if is_transport {
            // Writing to a String does not fail.
            let _ = write!(text, ": {error}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "hunter2-in-the-body";

    fn told(error: kube::Error) -> String {
        format!("{error} {error:?}").contains(SECRET).then_some(()).expect("the client's error holds it");
        let told = ApiError::from(error);
        let text = format!("{told} {told:?}");
        assert!(!text.contains(SECRET), "{text}");
        told.to_string()
    }

    #[test]
    fn json_of_another_shape_is_told_of_by_its_place() {
        let body = format!("{{\"items\": \"{SECRET}\"}}");
        let error = serde_json::from_str::<k8s_openapi::List<k8s_openapi::api::core::v1::Pod>>(&body);
        let text = told(kube::Error::SerdeError(error.unwrap_err()));
        assert!(text.contains("cannot be read") && text.contains("line 1"), "{text}");
    }

    #[test]
    fn a_body_that_is_no_status_is_told_of_by_its_code() {
        let status = Status::failure(SECRET, NOT_A_STATUS).with_code(502);
        assert!(told(kube::Error::Api(status.boxed())).contains("answers 502"));
    }

    #[test]
    fn a_log_in_program_is_not_quoted() {
        let error = kube::Error::Service(format!("cannot parse {SECRET}").into());
        assert_eq!(told(error), "the API server cannot be reached");
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let status = Status::failure("leases \"mailroute\" is forbidden", "Forbidden").with_code(403);
        let text = ApiError::from(kube::Error::Api(status.boxed())).to_string();
        assert_eq!(text, "the API server answers 403 Forbidden: leases \"mailroute\" is forbidden");
    }

    #[test]
    fn a_refused_connection_says_so() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let text = ApiError::from(kube::Error::Service(refused.into())).to_string();
        assert_eq!(text, "the API server cannot be reached: connection refused");
    }
}

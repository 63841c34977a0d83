//! Whose ServiceAccount token has a client shown? The operator has the API server review it.
//!
//! Owns one question and the meaning of its answer. Whom the gateway lets in is decided in `tokens`.

use async_trait::async_trait;
use bytes::Bytes;
use mailroute_route::control::{REVIEW_PATH, ReviewReply, ReviewRequest};
use mailroute_route::file::ControlService;
use tokio::sync::watch;

use super::tokens::ReviewTokens;
use crate::config::Config;
use crate::net::control_service::{self, ServiceError};
use crate::net::https::Answer;
use crate::secret::Secret;

/// Why it is not known whose token it is.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The operator cannot be asked.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The operator has not had the token reviewed.
    #[error("{0}")]
    NotReviewed(String),
    /// Its answer makes no sense.
    #[error("the operator's answer is not understood")]
    Answer,
}

/// Whose token it is; nobody's when the API server does not accept it, or it is not bound to a pod.
///
/// # Errors
/// When that could not be checked.
pub async fn review(
    service: &ControlService,
    route: &str,
    token: &str,
) -> Result<Option<ReviewReply>, ReviewError> {
    let request = ReviewRequest { route: route.to_owned(), token: token.to_owned() };
    let body = serde_json::to_vec(&request).map_err(|_| ReviewError::Answer)?;
    read(&control_service::post(service, None, REVIEW_PATH, Bytes::from(body)).await?)
}

fn read(answer: &Answer) -> Result<Option<ReviewReply>, ReviewError> {
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map(Some).map_err(|_| ReviewError::Answer),
        422 => Ok(None),
        _ => Err(ReviewError::NotReviewed(control_service::refusal(answer).0)),
    }
}

/// Asks the operator of the route in use.
pub struct ReviewByOperator {
    config: watch::Receiver<Config>,
}

impl ReviewByOperator {
    /// Whose route and control service these are.
    pub const fn new(config: watch::Receiver<Config>) -> Self {
        Self { config }
    }
}

#[async_trait]
impl ReviewTokens for ReviewByOperator {
    async fn review(&self, token: &Secret) -> Result<Option<ReviewReply>, String> {
        let route = self.config.borrow().route.clone().ok_or("there is no valid route")?;
        let service = route.control.as_ref().ok_or("the route has no control service")?;
        review(service, &route.name, token.expose()).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn an_answer_says_whose_token_it_is_or_that_it_is_nobodys() {
        let body = r#"{"namespace":"shop","serviceAccount":"grafana","pod":"grafana-0"}"#;
        let reply = read(&answer(200, body)).unwrap().unwrap();
        assert_eq!((reply.namespace.as_str(), reply.pod.as_str()), ("shop", "grafana-0"));
        assert!(read(&answer(422, r#"{"message":"no"}"#)).unwrap().is_none());
    }

    #[test]
    fn what_could_not_be_checked_is_not_taken_for_a_refusal() {
        for (status, body) in
            [(200, "{}"), (401, ""), (403, "{}"), (429, r#"{"message":"slower"}"#), (503, "")]
        {
            assert!(read(&answer(status, body)).is_err(), "{status}");
        }
        let error = read(&answer(429, r#"{"message":"slower"}"#)).unwrap_err();
        assert_eq!(error.to_string(), "the operator answered HTTP 429: slower");
    }

    #[tokio::test]
    async fn an_operator_that_cannot_be_asked_is_an_error() {
        let nobody = ControlService {
            address: "localhost:1".into(),
            ca_pem: String::new(),
            token_file: "/nonexistent".into(),
            leases: false,
        };
        assert!(review(&nobody, "mail", "e30.e30.c2ln").await.is_err());
    }
}

//! One eviction, against a server that stands in for the API server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use kube::{Client, Config};
use mailroute_operator::controller::evict::{EvictionOutcome, evict};
use serde_json::{Value, json};

type Asked = Arc<Mutex<Vec<Value>>>;

/// A client of a server that answers every eviction of `web-1` with this, and what it was asked. As in the operator, the
/// client does not repeat by itself what was refused.
async fn answering(code: u16, reason: &'static str) -> (Client, Asked) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, Json(body): Json<Value>| async move {
        asked.lock().unwrap().push(body);
        let status = if code < 300 { "Success" } else { "Failure" };
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let told = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status, "reason": reason,
            "code": code, "message": message});
        (StatusCode::from_u16(code).unwrap(), Json(told))
    };
    let router = Router::new()
        .route("/api/v1/namespaces/shop/pods/web-1/eviction", post(answer))
        .with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    (Client::try_from(config).unwrap(), asked)
}

#[tokio::test]
async fn the_pod_of_that_uid_is_evicted_and_no_other_of_its_name() {
    let (client, asked) = answering(201, "").await;
    assert_eq!(evict(client, "shop", "web-1", "uid-1").await, Ok(EvictionOutcome::Evicted));
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["metadata"]["name"], "web-1");
    assert_eq!(asked[0]["deleteOptions"], json!({"preconditions": {"uid": "uid-1"}}));
    assert_eq!((&asked[0]["kind"], &asked[0]["apiVersion"]), (&json!("Eviction"), &json!("policy/v1")));
}

#[tokio::test]
async fn a_budget_and_a_pod_that_is_gone_are_no_errors() {
    for (code, reason, expected) in [
        (429, "TooManyRequests", EvictionOutcome::NotNow),
        (404, "NotFound", EvictionOutcome::Gone),
        (409, "Conflict", EvictionOutcome::Gone),
    ] {
        let (client, asked) = answering(code, reason).await;
        assert_eq!(evict(client, "shop", "web-1", "uid-1").await, Ok(expected));
        assert_eq!(asked.lock().unwrap().len(), 1, "{code} is not repeated");
    }
}

#[tokio::test]
async fn what_a_person_has_to_see_to_is_an_error_with_the_api_servers_words() {
    for (code, reason) in [(403, "Forbidden"), (500, "InternalError")] {
        let (client, _) = answering(code, reason).await;
        let error = evict(client, "shop", "web-1", "uid-1").await.unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("disruption budget"), "{error}");
    }
}

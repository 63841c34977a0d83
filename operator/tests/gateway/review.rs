//! Whose token a client of a gateway has shown.

use axum::http::StatusCode;
use serde_json::json;

use crate::stage::{GATEWAY, GRAFANA, Stage, WEB, jwt, signed};

#[tokio::test]
async fn a_gateway_is_told_whose_token_it_is_and_the_api_server_is_asked_once() {
    let stage = Stage::start().await;
    for _ in 0..3 {
        let answer = stage.review(GATEWAY, "mail", &jwt(GRAFANA)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(
            answer.body,
            json!({"namespace": "shop", "serviceAccount": "default", "pod": "grafana-0"})
        );
    }
    assert_eq!(stage.asked(), 2, "for the gateway's own token, and for the client's");
    stage.counted("mailroute_review_requests_total{outcome=\"accepted\"} 3");
}

#[tokio::test]
async fn a_token_that_the_api_server_refuses_is_refused_and_asked_for_once() {
    let stage = Stage::start().await;
    for _ in 0..3 {
        let answer = stage.review(GATEWAY, "mail", &signed(GRAFANA, "mailroute.dev", "forged")).await;
        answer.refused(StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(stage.asked(), 2);
    stage.counted("mailroute_review_requests_total{outcome=\"refused\"} 3");
}

#[tokio::test]
async fn what_cannot_be_a_pods_token_for_us_costs_no_call() {
    let stage = Stage::start().await;
    for token in [
        "",
        "hunter2",
        "a.b.c",
        &signed(GRAFANA, "https://kubernetes.default.svc", "good"),
        &"x".repeat(8193),
    ] {
        let answer = stage.review(GATEWAY, "mail", token).await;
        let message = answer.refused(StatusCode::UNPROCESSABLE_ENTITY);
        assert!(token.is_empty() || !message.contains(token), "{message}");
    }
    assert_eq!(stage.asked(), 1, "for the gateway's own");
}

#[tokio::test]
async fn only_a_gateway_of_the_route_may_ask() {
    let stage = Stage::start().await;
    let answer = stage.review(WEB, "mail", &jwt(GRAFANA)).await;
    assert_eq!(answer.refused(StatusCode::FORBIDDEN), "only gateways have tokens reviewed");
    stage.review(GATEWAY, "reports", &jwt(GRAFANA)).await.refused(StatusCode::FORBIDDEN);
    stage.review("nobody", "mail", &jwt(GRAFANA)).await.refused(StatusCode::UNAUTHORIZED);
    stage.counted("mailroute_review_requests_total{outcome=\"forbidden\"} 2");
}

#[tokio::test]
async fn a_gateway_under_attack_is_slowed_down_alone() {
    let stage = Stage::start().await;
    let mut reviewed = 0;
    let throttled = loop {
        let guess = signed(GRAFANA, "mailroute.dev", &format!("guess{reviewed}"));
        let answer = stage.review(GATEWAY, "mail", &guess).await;
        if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
            break answer;
        }
        reviewed += 1;
    };
    throttled.refused(StatusCode::TOO_MANY_REQUESTS);
    assert!(reviewed >= 50 && stage.asked() == reviewed + 1, "{reviewed} of {}", stage.asked());
    let answer = stage.review(crate::stage::BILLING_GATEWAY, "mail", &jwt(GRAFANA)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn what_is_not_understood_is_not_repeated() {
    let stage = Stage::start().await;
    let answer = stage.review(GATEWAY, "mail", "").await;
    answer.refused(StatusCode::UNPROCESSABLE_ENTITY);
    let canary = jwt(GRAFANA);
    for body in [json!(canary), json!({"route": {canary.clone(): 1}, "token": [canary]})] {
        let answer = stage.review_raw(GATEWAY, &body).await;
        assert!(!answer.refused(StatusCode::BAD_REQUEST).contains(&canary), "{answer:?}");
    }
}

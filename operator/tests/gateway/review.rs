//! Whose token a client of a gateway has shown.

use axum::http::StatusCode;
use serde_json::json;

use crate::stage::{BILLING, BILLING_GATEWAY, GATEWAY, GRAFANA, LEGACY, Stage, WEB, jwt, signed};

/// The audience of tokens for the gateway of `shop`.
const NAMED: &str = "mailroute.dev/gateway/shop/mail";

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
async fn a_token_of_another_namespace_is_good_at_the_gateway_that_its_audience_names_and_nowhere_else() {
    let stage = Stage::start().await;
    for (gateway, token, is_good) in [
        (GATEWAY, signed(LEGACY, NAMED, "good"), true),
        (GATEWAY, signed(GRAFANA, NAMED, "good"), true),
        // What the owner of a gateway could show to others, or to the control service.
        (GATEWAY, jwt(LEGACY), false),
        (GATEWAY, jwt(BILLING), false),
        (BILLING_GATEWAY, signed(LEGACY, NAMED, "good"), false),
        (BILLING_GATEWAY, signed(BILLING, NAMED, "good"), false),
        (BILLING_GATEWAY, jwt(BILLING), true),
    ] {
        let answer = stage.review(gateway, "mail", &token).await;
        let expected = if is_good { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
        assert_eq!(answer.status, expected, "{gateway}: {answer:?}");
    }
    // Once for each gateway's own token, and for each that is good.
    assert_eq!(stage.asked(), 5);
}

#[tokio::test]
async fn what_one_gateway_was_told_of_a_token_is_not_told_to_another() {
    let stage = Stage::start().await;
    let both = jwt(GRAFANA);
    assert_eq!(stage.review(GATEWAY, "mail", &both).await.status, StatusCode::OK);
    stage.review(BILLING_GATEWAY, "mail", &both).await.refused(StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_token_for_a_gateway_is_good_for_nothing_else() {
    let stage = Stage::start().await;
    for pod in [WEB, GATEWAY] {
        let answer = stage.review(&signed(pod, NAMED, "good"), "mail", &jwt(GRAFANA)).await;
        answer.refused(StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.asked(), 0);
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
    let answer = stage.review(BILLING_GATEWAY, "mail", &jwt(BILLING)).await;
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

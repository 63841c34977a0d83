//! Who is given a token, and who is not.

use axum::http::StatusCode;
use mailroute_m365::Options;
use mailroute_route::condition::Reason::{OperatorRefused, OperatorUnavailable};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::stage::{OPERATOR, Stage, WEB, lent};

#[tokio::test]
async fn a_pod_of_the_route_gets_a_token_had_with_the_operators_identity() {
    let stage = Stage::start().await;
    let answer = stage.ask(WEB, "notifications").await;
    let reply = answer.token();
    assert!((3500..=3600).contains(&reply.expires_in), "{reply:?}");
    assert_eq!(
        (&answer.headers["cache-control"], &answer.headers["pragma"]),
        (&"no-store".parse().unwrap(), &"no-cache".parse().unwrap())
    );
    let exchanges = stage.m365.exchanges();
    assert_eq!(exchanges.len(), 1, "{exchanges:#?}");
    assert_eq!(
        (exchanges[0].assertion_subject.as_deref(), exchanges[0].outcome.as_str()),
        (Some(OPERATOR), "Issued")
    );
    assert!(stage.number("mailroute_token_requests_total{outcome=\"granted\"} 1"));
    assert!(stage.number("mailroute_operator_token_exchanges_total{reason=\"TokenAcquired\"} 1"));
}

#[tokio::test]
async fn nobody_gets_a_token_for_a_route_that_is_not_the_pods_own() {
    let routes =
        vec![lent("shop", "notifications"), lent("shop", "reports"), lent("billing", "notifications")];
    let stage = Stage::with(Options::default(), routes).await;
    for (token, route) in [
        // A pod of another route of the same namespace, and one that asks for another.
        ("shop/worker-1/uid-2", "notifications"),
        (WEB, "reports"),
        // A pod without a route, one of another namespace, one that is gone and came again under the same name.
        ("shop/batch-1/uid-9", "notifications"),
        ("billing/web-1/uid-1", "notifications"),
        ("shop/web-1/uid-0", "notifications"),
        (WEB, ""),
    ] {
        let refusal = stage.ask(token, route).await.refusal(StatusCode::FORBIDDEN, OperatorRefused);
        assert!(refusal.message.contains("mailroute.dev/route"), "{refusal:?}");
    }
    assert!(stage.m365.exchanges().is_empty(), "and Entra is not asked");
    assert!(stage.number("mailroute_token_requests_total{outcome=\"forbidden\"} 6"));
}

#[tokio::test]
async fn a_route_gets_nothing_that_the_platform_has_not_listed() {
    let change = |change: fn(&mut Value)| {
        let mut route = lent("shop", "notifications");
        change(&mut route);
        route
    };
    for (route, told) in [
        (
            change(|r| r["spec"]["clientSubmission"]["credential"]["subject"] = "Pod".into()),
            "does not use the operator's identity",
        ),
        (
            change(|r| r["spec"]["clientSubmission"]["mailbox"] = "ceo@contoso.com".into()),
            "may not send as ceo@contoso.com",
        ),
        (change(|r| r["spec"]["tenant"]["id"] = "fabrikam.com".into()), "no identity for the application"),
        (change(|r| r["spec"]["tenant"]["cloud"] = "China".into()), "no identity for the application"),
        (
            change(|r| {
                r["spec"]["clientSubmission"]["credential"]["clientId"] =
                    "00000000-0000-4000-8000-000000000000".into()
            }),
            "no identity for the application",
        ),
    ] {
        let stage = Stage::with(Options::default(), vec![route]).await;
        let refusal = stage.ask(WEB, "notifications").await.refusal(StatusCode::FORBIDDEN, OperatorRefused);
        assert!(refusal.message.contains(told), "{refusal:?}");
        assert!(stage.m365.exchanges().is_empty());
    }
    let stage = Stage::with(Options::default(), vec![]).await;
    let refusal = stage.ask(WEB, "notifications").await.refusal(StatusCode::FORBIDDEN, OperatorRefused);
    assert!(refusal.message.contains("no such MailRoute"), "{refusal:?}");
}

#[tokio::test]
async fn a_route_that_names_another_authority_does_not_lead_the_assertion_there() {
    // As an older schema may have let it through.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut route = lent("shop", "notifications");
    let host = format!("localhost:{}", elsewhere.local_addr().unwrap().port());
    route["spec"]["tenant"]["authority"] = json!({"host": host, "scope": "https://evil.example/.default"});
    route["spec"]["endpoint"] = json!({"host": "smtp.evil.example"});
    let stage = Stage::with(Options::default(), vec![route]).await;
    stage.ask(WEB, "notifications").await.token();
    assert_eq!(stage.m365.exchanges().len(), 1, "asked where the settings say");
    let asked =
        std::future::poll_fn(|context| std::task::Poll::Ready(elsewhere.poll_accept(context).is_ready()));
    assert!(!asked.await, "and nowhere else");
}

#[tokio::test]
async fn who_is_not_known_is_told_nothing() {
    let stage = Stage::start().await;
    let body = || br#"{"route":"notifications"}"#.to_vec();
    stage.post(None, body()).await.refusal(StatusCode::UNAUTHORIZED, OperatorRefused);
    stage.post(Some("stolen"), body()).await.refusal(StatusCode::UNAUTHORIZED, OperatorRefused);
    stage.post(Some(WEB), b"{}".to_vec()).await.refusal(StatusCode::BAD_REQUEST, OperatorUnavailable);
    stage.post(Some(WEB), vec![b' '; 5000]).await.refusal(StatusCode::PAYLOAD_TOO_LARGE, OperatorUnavailable);
    assert!(stage.m365.exchanges().is_empty());
}

#[tokio::test]
async fn a_pod_that_asks_too_often_is_told_to_wait_and_the_others_are_not() {
    let routes = vec![lent("shop", "notifications"), lent("shop", "reports")];
    let stage = Stage::with(Options::default(), routes).await;
    let throttled = loop {
        let answer = stage.ask(WEB, "notifications").await;
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    let refusal = throttled.refusal(StatusCode::TOO_MANY_REQUESTS, OperatorUnavailable);
    assert_eq!(refusal.retry_after_seconds, Some(10));
    stage.ask("shop/worker-1/uid-2", "reports").await.token();
    assert_eq!(stage.m365.exchanges().len(), 1, "one token for both routes");
}

//! What Entra does, and what the pods hear of it.

use axum::http::StatusCode;
use mailroute_entra::web_proxy::WebProxy;
use mailroute_m365::{self as m365, LoginAction, Options, Simulator};
use mailroute_route::condition::Reason::{
    OperatorIdentityMissing, TokenServiceThrottled, TokenServiceUnavailable, WaitingForPropagation,
};
use mailroute_route::control::TokenRequest;
use ring::digest::{SHA256, digest};

use crate::stage::{OPERATOR, Stage, WEB, lent, until};

fn fingerprint(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn many_pods_at_once_are_one_question_to_entra() {
    let stage = Stage::start().await;
    stage.entra(LoginAction::Delay(300), Some(1));
    let answers = futures::future::join_all((0..8).map(|_| stage.ask(WEB, "notifications"))).await;
    let tokens: Vec<_> = answers.iter().map(|answer| answer.token().access_token).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(stage.m365.exchanges().len(), 1);
}

#[tokio::test]
async fn entras_refusal_reaches_the_pod_with_what_was_shown() {
    let stage = Stage::start().await;
    stage.m365.directory(|directory| {
        directory.tenants[0].applications[0].federated_credentials[0].subject =
            "system:serviceaccount:a:b".into();
    });
    let refusal =
        stage.ask(WEB, "notifications").await.refusal(StatusCode::BAD_GATEWAY, WaitingForPropagation);
    assert!(refusal.message.contains("the operator's token has issuer"), "{refusal:?}");
    assert!(refusal.message.contains(OPERATOR) && refusal.message.contains("AADSTS700213"), "{refusal:?}");
    assert!(stage.number("mailroute_token_requests_total{outcome=\"not_issued\"} 1"));
}

#[tokio::test]
async fn throttling_is_passed_on_with_its_time_and_obeyed() {
    let stage = Stage::start().await;
    stage.entra(LoginAction::TooManyRequests(60), None);
    for _ in 0..3 {
        let refusal =
            stage.ask(WEB, "notifications").await.refusal(StatusCode::BAD_GATEWAY, TokenServiceThrottled);
        assert_eq!(refusal.retry_after_seconds, Some(60));
    }
    assert_eq!(stage.m365.exchanges().len(), 1, "Entra is left alone");
}

#[tokio::test]
async fn an_outage_of_entra_ends_and_the_token_in_use_outlives_it() {
    let stage = Stage::start().await;
    stage.entra(LoginAction::BadGateway, None);
    stage.ask(WEB, "notifications").await.refusal(StatusCode::BAD_GATEWAY, TokenServiceUnavailable);
    stage.m365.set_faults(<_>::default());
    let first = until(&stage, |answer| answer.status == StatusCode::OK).await.token();
    stage.entra(LoginAction::BadGateway, None);
    assert_eq!(stage.ask(WEB, "notifications").await.token().access_token, first.access_token);
}

#[tokio::test]
async fn an_operator_without_its_own_token_says_so() {
    let stage = Stage::start().await;
    stage.identity(false);
    let refusal =
        stage.ask(WEB, "notifications").await.refusal(StatusCode::BAD_GATEWAY, OperatorIdentityMissing);
    assert!(refusal.message.contains("service-account token"), "{refusal:?}");
    stage.identity(true);
    until(&stage, |answer| answer.status == StatusCode::OK).await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced() {
    let mut options = Options::default();
    options.config.tokens.lifetime_seconds = 6;
    let stage = Stage::with(options, vec![lent("shop", "notifications")]).await;
    let first = stage.ask(WEB, "notifications").await.token();
    assert!(first.expires_in <= 6);
    let next = until(&stage, |answer| {
        answer.status == StatusCode::OK && answer.token().access_token != first.access_token
    });
    assert!(next.await.token().expires_in > 0);
}

#[tokio::test]
async fn a_refused_token_is_asked_for_anew_once_and_not_by_everybody() {
    let routes = vec![lent("shop", "notifications"), lent("shop", "reports")];
    let stage = Stage::with(Options::default(), routes).await;
    let refused =
        |token: &str| TokenRequest { route: "notifications".into(), refused: Some(fingerprint(token)) };
    let first = stage.ask(WEB, "notifications").await.token().access_token;
    // Another token than the one in use: nothing to do.
    assert_eq!(stage.send(WEB, &refused("older")).await.token().access_token, first);
    let second = stage.send(WEB, &refused(&first)).await.token().access_token;
    assert_ne!(second, first);
    assert_eq!(stage.send(WEB, &refused(&second)).await.token().access_token, second, "once a minute");
    assert_eq!(stage.ask("shop/worker-1/uid-2", "reports").await.token().access_token, second);
    assert_eq!(stage.m365.exchanges().len(), 2);
}

#[tokio::test]
async fn a_refused_token_stays_in_use_for_the_others_while_entra_is_down() {
    let stage = Stage::start().await;
    let first = stage.ask(WEB, "notifications").await.token().access_token;
    stage.entra(LoginAction::BadGateway, None);
    let request = TokenRequest { route: "notifications".into(), refused: Some(fingerprint(&first)) };
    assert_eq!(stage.send(WEB, &request).await.token().access_token, first);
    assert_eq!(stage.ask(WEB, "notifications").await.token().access_token, first);
}

#[tokio::test]
async fn tokens_are_asked_for_through_the_proxy_of_the_operators_environment() {
    let proxy = m365::WebProxy::start().await.unwrap();
    // Only the proxy can resolve it.
    let authority = "login.contoso.test";
    let url = format!("http://app:pass@{}", proxy.address);
    let stage = async |no_proxy: &str| {
        let options = Options { names: vec![authority.into()], ..Options::default() };
        let m365 = Simulator::start(options).await.unwrap();
        proxy.lead_to(m365.login_address());
        let of_environment = WebProxy::of(Some(&url), Some(no_proxy));
        Stage::asking(authority, of_environment, m365, vec![lent("shop", "notifications")]).await
    };
    let direct = stage(".contoso.test").await.ask(WEB, "notifications").await;
    let refusal = direct.refusal(StatusCode::BAD_GATEWAY, TokenServiceUnavailable);
    assert!(!refusal.message.contains("proxy"), "{refusal:?}");
    assert!(proxy.requests().is_empty());
    stage(".svc").await.ask(WEB, "notifications").await.token();
    let requests = proxy.requests();
    assert!(requests[0].starts_with("CONNECT login.contoso.test:443 HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[0].contains("Proxy-Authorization: Basic YXBwOnBhc3M=\r\n"), "{requests:?}");
}

#[tokio::test]
async fn a_proxy_that_is_away_or_cannot_be_used_is_named_without_its_password() {
    for (url, expected) in [
        ("http://app:canary@127.0.0.1:1", "through the proxy 127.0.0.1:1"),
        ("https://app:canary@127.0.0.1:1", "is not an http:// URL"),
    ] {
        let m365 = Simulator::start(Options::default()).await.unwrap();
        let proxy = WebProxy::of(Some(url), None);
        let stage =
            Stage::asking("login.contoso.test", proxy, m365, vec![lent("shop", "notifications")]).await;
        let answer = stage.ask(WEB, "notifications").await;
        let refusal = answer.refusal(StatusCode::BAD_GATEWAY, TokenServiceUnavailable);
        assert!(refusal.message.contains(expected), "{refusal:?}");
        assert!(!refusal.message.contains("canary"), "{refusal:?}");
    }
}

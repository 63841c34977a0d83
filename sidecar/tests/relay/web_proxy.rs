//! A pod that reaches Entra through a proxy alone: that of `HTTPS_PROXY`, or that of its route.

use mailroute_m365::WebProxy;
use mailroute_route::condition::Reason;

use crate::client::message;
use crate::graph::graph;
use crate::route::by_graph;
use crate::scene::{PATIENCE, Scene, intervals, submission};

/// A name that only the proxy can resolve.
const AUTHORITY: &str = "login.contoso.test";

/// A scene whose authority has a name that nobody resolves, with these variables, and this proxy in the route.
async fn scene(variables: &[&str], of_route: Option<String>, proxy: &WebProxy) -> Scene {
    Scene::run(
        variables,
        intervals(),
        |options| options.names.push(AUTHORITY.into()),
        |m365, route| {
            let authority = &mut submission(route).authority;
            (authority.host, authority.proxy) = (AUTHORITY.into(), of_route);
            proxy.lead_to(m365.login_address());
        },
    )
    .await
}

#[track_caller]
fn assert_asked(requests: &[String]) {
    let start = format!("CONNECT {AUTHORITY}:443 HTTP/1.1\r\n");
    assert!(!requests.is_empty() && requests.iter().all(|head| head.starts_with(&start)), "{requests:?}");
}

#[tokio::test]
async fn tokens_are_asked_for_through_the_proxy_and_mail_goes_without_it() {
    let proxy = WebProxy::start().await.unwrap();
    let url = format!("http://app:pass@{}", proxy.address);
    let scene = scene(&["--https-proxy", &url, "--no-proxy", "10.0.0.0/8,.svc"], None, &proxy).await;
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("tunnelled")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene.m365.wait_for_messages(1, PATIENCE).await;
    let requests = proxy.requests();
    assert_asked(&requests);
    assert!(requests[0].contains("Proxy-Authorization: Basic YXBwOnBhc3M=\r\n"), "{requests:?}");
    scene.assert_careful();
}

#[tokio::test]
async fn graph_is_reached_through_the_proxy() {
    const GRAPH: &str = "graph.contoso.test";
    let proxy = WebProxy::start().await.unwrap();
    let url = format!("http://{}", proxy.address);
    let scene = Scene::run(
        &["--https-proxy", &url],
        intervals(),
        |options| options.names.push(GRAPH.into()),
        |m365, route| {
            by_graph(m365, route, false);
            (graph(route).endpoint.host, graph(route).endpoint.port) = (GRAPH.into(), 443);
            proxy.lead_to(m365.graph_address());
        },
    )
    .await;
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("tunnelled")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let requests = proxy.requests();
    assert_eq!(requests.len(), 1, "one tunnel for the probe and the message: {requests:?}");
    assert!(requests[0].starts_with("CONNECT graph.contoso.test:443 HTTP/1.1\r\n"), "{requests:?}");
}

#[tokio::test]
async fn the_proxy_of_the_route_comes_before_that_of_the_container() {
    let (proxy, other) = (WebProxy::start().await.unwrap(), WebProxy::start().await.unwrap());
    let (url, of_container) =
        (format!("http://{}", proxy.address), format!("http://app:pass@{}", other.address));
    let scene = scene(&["--https-proxy", &of_container], Some(url), &proxy).await;
    scene.well().await;
    let requests = proxy.requests();
    assert_asked(&requests);
    assert!(!requests.concat().contains("Proxy-Authorization"), "{requests:?}");
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn no_proxy_is_obeyed_and_a_proxy_that_is_away_is_named() {
    let proxy = WebProxy::start().await.unwrap();
    let url = format!("http://{}", proxy.address);
    for of_route in [None, Some(url.clone())] {
        let direct = scene(&["--https-proxy", &url, "--no-proxy", ".contoso.test"], of_route, &proxy).await;
        let told = direct.told(Reason::TokenServiceUnavailable).await;
        assert!(told.message.contains("cannot resolve"), "{told:?}");
        assert!(proxy.requests().is_empty());
    }
    // Discard (RFC 863), where nobody listens. A port that was free a moment ago may be another test's by now.
    let closed = "127.0.0.1:9";
    let away = scene(&["--https-proxy", &format!("http://app:canary@{closed}")], None, &proxy).await;
    let told = away.told(Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains(&format!("through the proxy {closed}")), "{told:?}");
    assert!(!told.message.contains("canary"), "{told:?}");
}

//! The route file changes under a running sidecar.

use crate::client::message;
use crate::scene::{Scene, submission};

#[tokio::test]
async fn an_invalid_route_keeps_the_last_good_one_and_shows() {
    let scene = Scene::start().await;
    scene.well().await;
    std::fs::write(scene.files.path("route.json"), "{ not json").unwrap();
    let report = scene.report(|report| report.config_error.is_some()).await;
    assert_eq!(report.generation, 1);
    assert!(scene.metrics().await.contains("mailroute_config_valid_status 0"));
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("still")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene.files.write_route(&scene.route);
    scene.report(|report| report.config_error.is_none()).await;
}

#[tokio::test]
async fn a_new_generation_with_the_same_method_keeps_the_token() {
    let scene = Scene::start().await;
    scene.well().await;
    let mut route = scene.route.clone();
    (route.generation, route.limits.max_message_bytes) = (2, 2000);
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    let mut client = scene.client().await;
    let ehlo = client.command("EHLO app.example").await;
    assert!(ehlo.lines.iter().any(|line| line == "SIZE 2000"), "{ehlo}");
    assert_eq!(client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("same")).await.code, 250);
    assert_eq!(scene.m365.exchanges().len(), 1);
}

#[tokio::test]
async fn a_mended_route_works_without_a_restart_and_within_a_session() {
    let scene = Scene::with(|_| {}, |_, route| submission(route).mailbox = "nobody@contoso.com".into()).await;
    let mut client = scene.client().await;
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("wrong")).await;
    assert_eq!(reply.code, 451, "{reply}");
    let mut route = scene.route.clone();
    submission(&mut route).mailbox = "noreply@contoso.com".into();
    route.generation = 2;
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    scene.well().await;
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("right")).await;
    assert_eq!(reply.code, 250, "{reply}");
}

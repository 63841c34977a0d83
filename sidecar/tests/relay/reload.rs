//! The route file changes under a running sidecar.

use std::sync::atomic::Ordering;

use clap::Parser;
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::check;
use mailroute_sidecar::cli::queue;
use mailroute_sidecar::route_deleted::{NOTE, RouteDeleted};

use crate::client::message;
use crate::scene::{PATIENCE, Scene, submission};

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

#[tokio::test]
async fn a_pod_whose_route_was_deleted_goes_on_sending_and_check_and_queue_say_so() {
    let scene = Scene::start().await;
    scene.well().await;
    // The route file goes with the ConfigMap, where the kubelet does not leave it.
    std::fs::remove_file(scene.files.path("route.json")).unwrap();
    scene.control.route_deleted.store(true, Ordering::Relaxed);
    scene.report(|report| report.config_error.is_some()).await;
    let deleted = RouteDeleted::new(&scene.files.path(""));
    let noted = async {
        while !deleted.is_noted() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, noted).await.expect("the sidecar notes it");
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("still")).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert_eq!(scene.m365.messages().len(), 1);

    scene.files.write_route(&scene.route);
    let (route, spool) = (scene.files.path("route.json"), scene.files.path(""));
    let words = ["x", "check", "--route", route.to_str().unwrap(), "--spool-dir", spool.to_str().unwrap()];
    let Command::Check(options) = Cli::parse_from(words).into_command() else {
        panic!("the command is check")
    };
    let findings = check::walk(&options).await.unwrap();
    assert!(check::print::print(&findings, options.output).ends_with(&format!("{NOTE}\n")));
    let words = ["x", "queue", "list", "--spool-dir", spool.to_str().unwrap()];
    let Command::Queue(options) = Cli::parse_from(words).into_command() else {
        panic!("the command is queue")
    };
    let mut printed = Vec::new();
    queue::run(&options, &mut printed).await.unwrap();
    assert!(String::from_utf8(printed).unwrap().ends_with(&format!("{NOTE}\n")));
}

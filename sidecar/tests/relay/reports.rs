//! What the operator is told, by whom, and what a stop leaves untold.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use mailroute_m365::Options;
use mailroute_quota::Timing;
use mailroute_route::condition::Reason;
use mailroute_route::control::{Queue, Report, Usage};
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::attempt::lanes::Lanes;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::metrics::Metrics;
use mailroute_sidecar::net::control_service::noted_address;
use mailroute_sidecar::outcome::health::SharedHealth;
use mailroute_sidecar::queue::QueueSummary;
use mailroute_sidecar::report::Reporter;
use mailroute_sidecar::route_deleted::RouteDeleted;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::message;
use crate::control::Control;
use crate::scene::{PATIENCE, Scene, intervals, metric, surroundings};

/// Times at which nothing is told after the first report.
fn once() -> Intervals {
    Intervals { report: Duration::from_secs(3600), ..intervals() }
}

/// Waits until the sidecar knows that so many reports were taken.
async fn taken(scene: &Scene, reports: usize) {
    let name = "mailroute_reports_total{result=\"taken\"} ";
    let counted = async {
        while metric(&scene.metrics().await, name) != Some(reports as f64) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("the reports are counted");
}

/// Stops the scene's sidecar, and gives every report it ever made.
async fn reports_after_stop(scene: Scene) -> Vec<Report> {
    let Scene { app, control, .. } = scene;
    tokio::time::timeout(PATIENCE, app.stop()).await.expect("the stop ends");
    control.reports.borrow().clone()
}

#[tokio::test]
async fn reports_find_the_leader_through_another_replica() {
    let scene = Scene::start().await;
    let report = scene.report(|report| !report.observations.is_empty()).await;
    assert_eq!(
        (report.route.as_str(), report.sidecar_version.as_str()),
        ("notifications", env!("CARGO_PKG_VERSION"))
    );
    let requests = scene.control.requests.borrow().clone();
    assert!(requests.starts_with("POST /v1/report HTTP/1.1\r\n"), "{requests}");
    assert!(requests.contains(&format!("authorization: Bearer {}\r\n", crate::scene::CONTROL_TOKEN)));
}

#[tokio::test]
async fn the_pods_token_goes_to_the_control_service_of_the_command_line_whatever_the_route_names() {
    let (m365, control, mut route, files) = surroundings(Options::default()).await;
    let ours = control.address.clone();
    let stranger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let theirs = format!("localhost:{}", stranger.local_addr().unwrap().port());
    let app = {
        files.write_route(&route);
        App::start(files.run(&["--control", &ours]), intervals()).await.expect("the sidecar starts")
    };
    let mut reports = control.reports.clone();
    let service = route.control.as_mut().unwrap();
    service.address.clone_from(&theirs);
    (route.generation, route.limits.max_recipients) = (2, 7);
    files.write_route(&route);
    let told = reports.wait_for(|reports| reports.last().is_some_and(|report| report.generation == 2));
    let report = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap().last().unwrap().clone();
    assert!(report.config_error.is_some_and(|told| told.contains(&theirs) && told.contains(&ours)));
    // A command beside the sidecar sends it nowhere else either.
    assert_eq!(noted_address(&files.path("")).await.unwrap(), Some(ours));
    app.stop().await;
    assert!(stranger.accept().now_or_never().is_none(), "nobody came");
    drop(m365);
}

#[tokio::test]
async fn what_a_pod_met_in_its_last_moment_is_told_at_its_stop() {
    let disabled = |options: &mut Options| options.config.directory.tenants[0].smtp_auth_disabled = true;
    let scene = Scene::run(&[], once(), disabled, |_, _| {}).await;
    taken(&scene, 1).await;
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("no")).await;
    assert_eq!(reply.code, 451, "{reply}");
    let reports = reports_after_stop(scene).await;
    assert_eq!(reports.len(), 2, "{reports:#?}");
    let told = |report: &Report| {
        report.observations.iter().any(|met| met.reason == Reason::SmtpAuthDisabledTenant && !met.holds)
    };
    assert_eq!([told(&reports[0]), told(&reports[1])], [false, true], "{reports:#?}");
}

#[tokio::test]
async fn what_was_sent_last_is_told_at_the_stop() {
    let scene = Scene::run(&[], once(), |_| {}, |_, _| {}).await;
    taken(&scene, 1).await;
    let to = ["ann@fabrikam.com", "bob@fabrikam.com"];
    let reply = scene.client().await.send("noreply@contoso.com", &to, &message("sent")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let reports = reports_after_stop(scene).await;
    let expected = Usage { messages_last_minute: 1, recipients_last_24h: 2 };
    assert_eq!(reports.last().map(|report| report.usage), Some(expected));
}

#[tokio::test]
async fn a_stop_without_news_is_silent() {
    let scene = Scene::start().await;
    scene.well().await;
    let reports = scene.control.reports.borrow().len();
    taken(&scene, reports).await;
    assert_eq!(reports_after_stop(scene).await.len(), reports);
}

#[tokio::test]
async fn a_silent_control_service_holds_a_stop_for_a_second() {
    let (m365, control, mut route, files) = surroundings(Options::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = route.control.as_mut().unwrap();
    service.address = format!("localhost:{}", silent.local_addr().unwrap().port());
    let (_config, config) = watch::channel(Config { route: Some(Arc::new(route)), ..Config::default() });
    let (board, metrics) = (SharedHealth::default(), Arc::new(Metrics::new().unwrap()));
    let reporter = Reporter {
        config,
        health: board.subscribe(),
        queue: Box::new(Queue::default),
        left: Box::new(Vec::new),
        gateway: watch::Sender::default().subscribe(),
        deleted: RouteDeleted::new(&files.path("")),
        notable: watch::Sender::new(QueueSummary::default()).subscribe(),
        lanes: Lanes::new(&metrics, files.path("").as_path(), Timing::default(), Duration::from_secs(1)),
        waiting: Box::new(Vec::new),
        metrics: Arc::clone(&metrics),
        least: Duration::from_secs(1),
    };
    let (_stop, stopped) = watch::channel(true);
    drop::<(_, Control)>((m365, control));
    tokio::time::pause();
    let started = Instant::now();
    reporter.run(stopped).await;
    let took = started.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&took), "{took:?}");
    let text = String::from_utf8(metrics.render(&board.subscribe().borrow())).unwrap();
    assert_eq!(metric(&text, "mailroute_reports_total{result=\"failed\"} "), Some(1.0));
}

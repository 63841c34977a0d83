//! One size of a cluster, measured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::replica::asking;
use e2e::replica::program::Operator;
use e2e::replica::stage::reviewer_config;
use e2e::scene::release;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use mailroute_operator::pki::trust;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::api::ApiServer;
use crate::crowd::{self, Size};
use crate::reports::{Reporting, Sent};

/// How often pods report.
const REPORT_SECONDS: f64 = 30.0;

/// Admission reviews a second while pods report.
const REVIEWS: u32 = 20;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What was measured at one size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Point {
    /// MailRoutes.
    pub routes: usize,
    /// Labelled pods.
    pub pods: usize,
    /// Memory with nothing to do, MiB.
    pub empty_mib: f64,
    /// Memory with the routes, rendered, MiB.
    pub routes_mib: f64,
    /// Memory with routes and pods, after a restart, MiB.
    pub pods_mib: f64,
    /// Memory at its highest while pods report, MiB.
    pub reporting_mib: f64,
    /// Memory at its highest since the start, MiB.
    pub peak_mib: f64,
    /// Memory of a replica that does not lead, MiB.
    pub standby_mib: f64,
    /// Start to ready, seconds.
    pub ready_seconds: f64,
    /// Start until every route has been looked at, seconds.
    pub reconciled_seconds: f64,
    /// Reports a second that were sent.
    pub reports: f64,
    /// Of these, taken.
    pub accepted: f64,
    /// 99th percentile of a report, milliseconds.
    pub report_p99_millis: f64,
    /// Processors used while pods report.
    pub cores: f64,
    /// Processors used while nothing reports.
    pub quiet_cores: f64,
    /// Median of an admission review while pods report, milliseconds.
    pub review_p50_millis: f64,
    /// 99th percentile of it.
    pub review_p99_millis: f64,
    /// MiB a minute to and from the API server while pods report.
    pub api_mib_minute: f64,
    /// Requests a minute to the API server.
    pub api_requests_minute: f64,
    /// Of these, reviews of tokens.
    pub api_reviews_minute: f64,
    /// SIGTERM at the leader until another one takes reports, seconds.
    pub handed_over_seconds: f64,
    /// SIGKILL at the leader until another one takes reports, seconds.
    pub taken_over_seconds: f64,
}

/// One size.
pub struct Bench {
    api: Arc<ApiServer>,
    kubeconfig: String,
    program: PathBuf,
    size: Size,
    seconds: u32,
    rate: f64,
}

impl Bench {
    /// Starts an API server.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn new(program: &Path, size: Size, seconds: u32, most: f64) -> Result<Self> {
        let api = Arc::new(ApiServer::default());
        let address = api.serve().await?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "bench", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        api.objects.put(CONFIGURATIONS, "", release::NAME, webhook_configuration());
        let rate = (size.pods as f64 / REPORT_SECONDS).min(most);
        Ok(Self { api, kubeconfig: kubeconfig.to_string(), program: program.to_owned(), size, seconds, rate })
    }

    /// Measures.
    ///
    /// # Errors
    /// When a step fails or takes too long.
    pub async fn run(&self, with_leader: bool) -> Result<Point> {
        let mut point = Point { routes: self.size.routes, pods: self.size.pods, ..Point::default() };
        self.fill(&mut point).await?;
        let leader = self.restart(&mut point).await?;
        let reporting = Reporting::new(crowd::reporters(self.size), &self.bundle()?, service())?;
        let leader = self.report(&mut point, leader, &reporting).await?;
        if with_leader {
            self.change_leaders(&mut point, leader, &reporting).await?;
        }
        println!("{point:#?}");
        Ok(point)
    }

    /// A first replica renders the routes and injects the pods.
    async fn fill(&self, point: &mut Point) -> Result<()> {
        let operator = self.start(0)?;
        operator.is_ready().await?;
        until_leading(&operator).await?;
        point.empty_mib = resident(&operator)?;
        println!("{} routes …", self.size.routes);
        crowd::make_routes(&self.api, self.size);
        reconciled(&operator, self.size.routes).await?;
        point.routes_mib = resident(&operator)?;
        println!("{} pods …", self.size.pods);
        crowd::make_pods(&self.api, self.size, &self.bundle()?, operator.webhook).await?;
        operator.stop().await
    }

    /// A second one finds everything there, as after an upgrade.
    async fn restart(&self, point: &mut Point) -> Result<Operator> {
        let began = Instant::now();
        let operator = self.start(1)?;
        operator.is_ready().await?;
        point.ready_seconds = began.elapsed().as_secs_f64();
        reconciled(&operator, self.size.routes).await?;
        point.reconciled_seconds = began.elapsed().as_secs_f64();
        point.pods_mib = resident(&operator)?;
        Ok(operator)
    }

    /// All pods report, and reviews are asked for meanwhile: once round to fill the stores, then it counts.
    async fn report(
        &self,
        point: &mut Point,
        mut operator: Operator,
        reporting: &Reporting,
    ) -> Result<Operator> {
        let quiet = operator.processor_seconds()?;
        sleep(Duration::from_secs(10)).await;
        point.quiet_cores = (operator.processor_seconds()? - quiet) / 10.0;
        println!("{:.0} reports a second for {} s …", self.rate, self.seconds);
        let first = Duration::from_secs_f64(self.size.pods as f64 / self.rate);
        let control = operator.control;
        let filling = async { Ok(reporting.send(control, self.rate, first, 0).await) };
        let (filled, _) = operator.watched(filling).await?;
        println!("first round: {} taken, {} not", filled.accepted, filled.failed);
        let before = self.said();
        let used = operator.processor_seconds()?;
        let length = Duration::from_secs(self.seconds.into());
        let began = Instant::now();
        let (control, webhook) = (operator.control, operator.webhook);
        let work = async {
            let (sent, asked) =
                tokio::join!(reporting.send(control, self.rate, length, 0), self.ask(webhook, length));
            anyhow::Ok((sent, asked?))
        };
        let ((sent, asked), highest) = operator.watched(work).await?;
        let took = began.elapsed().as_secs_f64();
        point.cores = (operator.processor_seconds()? - used) / took;
        let after = self.said();
        let each_minute = |number: usize| (after[number] - before[number]) as f64 / took * 60.0;
        point.api_requests_minute = each_minute(0);
        point.api_reviews_minute = each_minute(1);
        point.api_mib_minute = each_minute(2) / f64::from(1 << 20);
        let Sent { accepted, failed, took: answers } = sent;
        point.reports = (accepted + failed) as f64 / took;
        point.accepted = accepted as f64 / took;
        point.report_p99_millis = part(&answers, 0.99);
        point.review_p50_millis = part(&asked, 0.5);
        point.review_p99_millis = part(&asked, 0.99);
        point.reporting_mib = mebibytes(highest);
        point.peak_mib = mebibytes(operator.memory()?.peak);
        Ok(operator)
    }

    /// A replica stands by; the leader is told to go, then the next one is killed.
    async fn change_leaders(&self, point: &mut Point, leader: Operator, reporting: &Reporting) -> Result<()> {
        let second = self.start(2)?;
        second.is_ready().await?;
        point.standby_mib = resident(&second)?;
        let began = Instant::now();
        let (stopped, taken) = tokio::join!(leader.stop(), until_taken(reporting, second.control, began));
        stopped?;
        point.handed_over_seconds = taken?;
        let third = self.start(3)?;
        third.is_ready().await?;
        let began = Instant::now();
        second.kill().await?;
        point.taken_over_seconds = until_taken(reporting, third.control, began).await?;
        third.stop().await
    }

    async fn ask(&self, webhook: SocketAddr, length: Duration) -> Result<Vec<Duration>> {
        let reviewer = Client::try_from(reviewer_config(&self.bundle()?, webhook)?)?;
        let mut moments = interval(Duration::from_secs(1) / REVIEWS);
        let mut took = Vec::new();
        for number in 0..(length.as_secs() as usize * REVIEWS as usize) {
            let due = moments.tick().await;
            let route = number * 7 % self.size.routes;
            asking::ask(&reviewer, &asking::review(&crowd::namespace(route), &crowd::new_pod(route))).await?;
            took.push(due.elapsed());
        }
        Ok(took)
    }

    fn start(&self, number: u16) -> Result<Operator> {
        Operator::beside(&self.kubeconfig, &self.program, number)
    }

    fn bundle(&self) -> Result<String> {
        let stored = self.api.objects.get(CONFIGURATIONS, &format!("/{}", release::NAME));
        let configuration: MutatingWebhookConfiguration =
            serde_json::from_slice(&stored.context("it was stored")?)?;
        trust::live_pem(&configuration).context("a bundle")
    }

    fn said(&self) -> [u64; 3] {
        let traffic = &self.api.traffic;
        [&traffic.requests, &traffic.reviews, &traffic.octets].map(|it| it.load(Ordering::Relaxed))
    }
}

/// Where webhook configurations are.
const CONFIGURATIONS: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";

fn webhook_configuration() -> serde_json::Value {
    let service =
        json!({"service": {"name": release::NAME, "namespace": release::NAMESPACE, "path": "/inject"}});
    let entry = |name: &str| json!({"name": name, "clientConfig": service, "sideEffects": "None", "admissionReviewVersions": ["v1"]});
    json!({"metadata": {"name": release::NAME}, "webhooks": [entry("inject.mailroute.dev")]})
}

fn service() -> String {
    format!("{}.{}.svc", release::NAME, release::NAMESPACE)
}

async fn until_leading(operator: &Operator) -> Result<()> {
    let leading = async {
        while operator.metric("mailroute_operator_leader").await? != Some(1.0) {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, leading).await.context("it does not lead")?
}

/// Waits until all routes were looked at.
async fn reconciled(operator: &Operator, routes: usize) -> Result<()> {
    operator.has_reconciled(routes as f64).await
}

/// Seconds until a replica takes a report.
async fn until_taken(reporting: &Reporting, control: SocketAddr, began: Instant) -> Result<f64> {
    for pod in 0.. {
        if began.elapsed() > PATIENCE {
            break;
        }
        if reporting.report(control, pod % 100).await.ok() == Some(200) {
            return Ok(began.elapsed().as_secs_f64());
        }
        sleep(LOOK).await;
    }
    ensure!(false, "no other replica takes reports");
    Ok(f64::NAN)
}

fn resident(operator: &Operator) -> Result<f64> {
    Ok(mebibytes(operator.memory()?.resident))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The smallest of these times that this part of all does not exceed, in milliseconds.
fn part(took: &[Duration], part: f64) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// A table for people, in Markdown.
pub fn table(points: &[Point]) -> String {
    let heads: Vec<_> = points.iter().map(|it| format!("{} / {}", it.routes, it.pods)).collect();
    let mut text = format!("| | {} |\n|{}\n", heads.join(" | "), " --- |".repeat(points.len() + 1));
    let mut row = |name: &str, unit: &str, digits: usize, of: &dyn Fn(&Point) -> f64| {
        let cells: Vec<_> = points.iter().map(|it| format!("{:.digits$}{unit}", of(it))).collect();
        text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
    };
    let kib = |mib: f64, of: usize| mib * 1024.0 / of as f64;
    row("Memory while all pods report", " MiB", 0, &|it| it.reporting_mib);
    row("Memory, peak since the start", " MiB", 0, &|it| it.peak_mib);
    row("Memory with the routes alone", " MiB", 0, &|it| it.routes_mib);
    row("Memory of a replica that does not lead", " MiB", 0, &|it| it.standby_mib);
    row("of it for a route", " KiB", 1, &|it| kib(it.routes_mib - it.empty_mib, it.routes));
    row("of it for a pod that reports", " KiB", 1, &|it| kib(it.reporting_mib - it.routes_mib, it.pods));
    row("Start to ready", " s", 1, &|it| it.ready_seconds);
    row("Start until every route was looked at", " s", 1, &|it| it.reconciled_seconds);
    row("Reports a second", "", 0, &|it| it.accepted);
    row("Cores used", "", 2, &|it| it.cores);
    row("Report, p99", " ms", 1, &|it| it.report_p99_millis);
    row("Admission review, median", " ms", 1, &|it| it.review_p50_millis);
    row("Admission review, p99", " ms", 1, &|it| it.review_p99_millis);
    row("To and from the API server, a minute", " MiB", 1, &|it| it.api_mib_minute);
    row("Requests to it, a minute", "", 0, &|it| it.api_requests_minute);
    row("of them reviews of tokens", "", 0, &|it| it.api_reviews_minute);
    row("New leader after SIGTERM", " s", 1, &|it| it.handed_over_seconds);
    row("New leader after a crash", " s", 1, &|it| it.taken_over_seconds);
    text
}

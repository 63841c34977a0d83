//! One pod's worth of parts: simulator, control service, route file, tokens, and the sidecar itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_m365::{Faults, Options, Rule, Simulator, SmtpAction, Stage, SubmissionFaults};
use mailroute_quota::Timing;
use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::control::{Observation, Report};
use mailroute_route::file::{ClientSubmission, ControlService, Method};
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::{Cli, Run};
use mailroute_sidecar::cli::queue::server::CommandTimeouts;
use mailroute_sidecar::gateway::check::CheckSchedule;
use mailroute_sidecar::queue::schedule;
use mailroute_sidecar::upstream::probe::ProbeSchedule;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::control::Control;
use crate::route::to_simulator;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the control service's token file holds.
pub const CONTROL_TOKEN: &str = "canary-control-token";

pub struct Files {
    directory: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write_route(&self, route: &RouteFile) {
        mailroute_m365::write_atomically(&self.path("route.json"), &route.to_json()).unwrap();
    }

    /// The command line that uses these files and free ports.
    pub fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        [
            ["--route".into(), path("route.json")],
            ["--spool-dir".into(), path("")],
            ["--route-poll".into(), "0.02".into()],
            ["--port".into(), "0".into()],
            ["--admin-listen".into(), "127.0.0.1:0".into()],
            ["--grace".into(), "8".into()],
        ]
        .concat()
    }

    /// What that command line asks for.
    pub fn run(&self, more: &[&str]) -> Run {
        let more = more.iter().map(ToString::to_string).collect();
        let arguments = [vec!["mailroute-sidecar".to_owned()], self.arguments(), more].concat();
        Cli::parse_from(arguments).into_run()
    }
}

pub struct Scene {
    pub m365: Simulator,
    pub control: Control,
    pub route: RouteFile,
    pub files: Files,
    pub app: App,
    run: Run,
    intervals: Intervals,
}

/// Everything but the sidecar.
pub async fn surroundings(options: Options) -> (Simulator, Control, RouteFile, Files) {
    let (m365, control) =
        (Simulator::start(options).await.expect("the simulator starts"), Control::start().await);
    let files = Files::new();
    m365.write_assertion(SAMPLE_SUBJECT, &files.path("entra")).unwrap();
    std::fs::write(files.path("control"), CONTROL_TOKEN).unwrap();
    std::fs::write(files.path("ca.crt"), m365.ca_pem()).unwrap();
    let service = ControlService {
        address: control.address.clone(),
        ca_pem: control.ca_pem.clone(),
        token_file: files.path("control"),
        leases: false,
    };
    let route = to_simulator(&m365, files.path("ca.crt"), files.path("entra"), Some(service));
    (m365, control, route, files)
}

/// Pauses short enough for a test.
pub fn intervals() -> Intervals {
    Intervals {
        probe: ProbeSchedule {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(200),
            ..ProbeSchedule::default()
        },
        pause: Duration::from_millis(5),
        quota: Timing::default(),
        queue: schedule::RetrySchedule {
            first: Duration::from_millis(20),
            patient: Duration::from_millis(60),
            longest: Duration::from_millis(200),
            hold: Duration::from_millis(20),
        },
        settle: Duration::from_millis(10),
        hand_over: Duration::from_millis(500),
        gateway_timeout: Duration::from_secs(3),
        gateway_check: CheckSchedule {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(200),
        },
        backlog: Duration::from_millis(100),
        report: Duration::from_millis(20),
        queue_commands: CommandTimeouts::default(),
    }
}

pub fn submission(route: &mut RouteFile) -> &mut ClientSubmission {
    let Method::ClientSubmission(submission) = &mut route.method else {
        panic!("the scene's route is client submission");
    };
    submission
}

impl Scene {
    pub async fn start() -> Self {
        Self::with(|_| {}, |_, _| {}).await
    }

    /// A scene whose simulator and route were changed before the sidecar sees them.
    pub async fn with(
        options: impl FnOnce(&mut Options),
        change: impl FnOnce(&Simulator, &mut RouteFile),
    ) -> Self {
        Self::run(&[], intervals(), options, change).await
    }

    /// The same, with more on the command line and other times.
    pub async fn run(
        arguments: &[&str],
        intervals: Intervals,
        options: impl FnOnce(&mut Options),
        change: impl FnOnce(&Simulator, &mut RouteFile),
    ) -> Self {
        let mut chosen = Options::default();
        // No test but those about limits waits for a minute to pass.
        chosen.config.limits.messages_per_minute = 10_000;
        options(&mut chosen);
        let (m365, control, mut route, files) = surroundings(chosen).await;
        change(&m365, &mut route);
        files.write_route(&route);
        let mut run = files.run(arguments);
        run.nameserver = Some(m365.dns_address());
        let app = App::start(run.clone(), intervals).await.expect("the sidecar starts");
        Self { m365, control, route, files, app, run, intervals }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.app.smtp_addresses()[0]).await
    }

    /// The same scene after the sidecar was stopped and started again on the same files.
    pub async fn restarted(self) -> Self {
        self.app.stop().await;
        let app = App::start(self.run.clone(), self.intervals).await.expect("the sidecar starts again");
        Self { app, ..self }
    }

    /// Something wrong at `stage`, for the next `times` opportunities.
    pub fn fault(&self, stage: Stage, action: SmtpAction, times: u32) {
        let rules = vec![Rule::times(stage, action, times)];
        self.m365.set_faults(Faults {
            submission: SubmissionFaults { rules, ..<_>::default() },
            ..<_>::default()
        });
    }

    /// The same, for the next connection: the one that is kept is cut at its next message.
    pub fn fault_anew(&self, stage: Stage, action: SmtpAction, times: u32) {
        let rules = vec![Rule::times(Stage::Mail, SmtpAction::Cut, 1), Rule::times(stage, action, times)];
        self.m365.set_faults(Faults {
            submission: SubmissionFaults { rules, ..<_>::default() },
            ..<_>::default()
        });
    }

    /// Waits for a report that satisfies `look`.
    pub async fn report(&self, look: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.control.reports.clone();
        let seen = reports.wait_for(|reports| reports.last().is_some_and(&look));
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(reports) => reports.unwrap().last().unwrap().clone(),
            Err(_) => panic!("no such report; the last one is {:#?}", self.control.reports.borrow().last()),
        }
    }

    /// Waits until the operator is told `reason`, and gives the observation.
    pub async fn told(&self, reason: Reason) -> Observation {
        let of_reason =
            |report: &Report| report.observations.iter().find(|met| met.reason == reason).cloned();
        let report = self.report(|report| of_reason(report).is_some()).await;
        of_reason(&report).unwrap()
    }

    /// Waits until the operator is told that the way is open.
    pub async fn well(&self) {
        let holds = |report: &Report, condition| {
            report.observations.iter().any(|met| met.condition == condition && met.holds)
        };
        self.report(|report| {
            holds(report, ConditionType::Authenticated) && report.observations.iter().all(|met| met.holds)
        })
        .await;
    }

    pub async fn metrics(&self) -> String {
        http_get(self.app.admin_address(), "/metrics").await
    }

    pub async fn stop(self) {
        self.app.stop().await;
    }

    /// Nothing that Exchange would object to has happened.
    pub fn assert_careful(&self) {
        assert!(self.m365.violations().is_empty(), "{:#?}", self.m365.violations());
    }
}

/// The whole answer to one GET.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The value of the metric that begins like this.
pub fn metric(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

//! Tokens of the operator's identity, from Entra to the mailbox: the whole sidecar, the operator's broker and the simulator,
//! in this process and over real sockets. A server that stands in for the API server reviews the pod's token.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use mailroute_m365::directory::{SAMPLE_CLIENT_ID, SAMPLE_MAILBOX};
use mailroute_m365::{Faults, Line, LoginAction, Options, Rule, SmtpAction, Stage as At, SubmissionFaults};
use mailroute_operator::service::token;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{ControlService, Credential, Endpoint, Method};
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::check;
use mailroute_sidecar::upstream::probe::ProbeSchedule;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "../../../sidecar/tests/relay/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with the operator's own tests, which use all of it")]
#[path = "../../../operator/tests/broker/stage.rs"]
mod stage;

use client::{Client, message};
use stage::{OPERATOR, Stage, WEB, here, jwt, lent};

use crate::operator_served::Operator;
use crate::route::to_simulator;

/// Long enough for a busy machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(30);

/// The operator's broker behind TLS, and a sidecar whose route uses it.
struct Scene {
    operator: Operator,
    stage: Stage,
    sidecar: App,
    folder: TempDir,
}

impl Scene {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A scene whose surroundings were changed before the sidecar sees them.
    async fn with(change: impl FnOnce(&Stage)) -> Self {
        let mut options = Options::default();
        options.config.limits.messages_per_minute = 10_000;
        let stage = Stage::with(options, vec![lent("shop", "notifications")]).await;
        change(&stage);
        let operator = Operator::serving(token::router(Arc::clone(&stage.service)), here()).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("control"), jwt(WEB)).unwrap();
        let route = route(&stage, &operator, &folder);
        std::fs::write(folder.path().join("route.json"), route.to_json()).unwrap();
        let sidecar = App::start(arguments(&folder).into_run(), intervals()).await.unwrap();
        Self { operator, stage, sidecar, folder }
    }

    async fn sends(&self, subject: &str) {
        let mut client = Client::connect(self.sidecar.smtp_addresses()[0]).await;
        let reply = client.send(SAMPLE_MAILBOX, &["ann@fabrikam.com"], &message(subject)).await;
        assert_eq!(reply.code, 250, "{reply}");
    }

    /// Waits until the sidecar says this of its credential.
    async fn met(&self, reason: Reason) {
        let line =
            format!("mailroute_condition_status{{condition=\"CredentialReady\",reason=\"{reason}\"}} 1");
        let mut last = String::new();
        let seen = async {
            while !last.contains(&line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = metrics(self.sidecar.admin_address()).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, seen).await.is_ok();
        assert!(in_time, "never {reason}: {last}");
    }

    /// The next log-in is on a connection of its own.
    fn cut(&self, more: Vec<Rule<At, SmtpAction>>) {
        let rules = [vec![Rule::times(At::Mail, SmtpAction::Cut, 1)], more].concat();
        let submission = SubmissionFaults { rules, ..<_>::default() };
        self.stage.m365.set_faults(Faults { submission, ..<_>::default() });
    }

    fn exchanges(&self) -> Vec<String> {
        self.stage
            .m365
            .exchanges()
            .into_iter()
            .map(|it| format!("{:?} {}", it.assertion_subject, it.outcome))
            .collect()
    }
}

async fn metrics(admin: SocketAddr) -> String {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn intervals() -> Intervals {
    let pace = ProbeSchedule {
        first: Duration::from_millis(50),
        longest: Duration::from_millis(200),
        ..ProbeSchedule::default()
    };
    Intervals {
        probe: pace,
        pause: Duration::from_millis(5),
        settle: Duration::from_millis(10),
        ..Intervals::default()
    }
}

fn arguments(folder: &TempDir) -> Cli {
    let at = |name: &str| folder.path().join(name).display().to_string();
    Cli::parse_from([
        "mailroute-sidecar".to_owned(),
        "--route".into(),
        at("route.json"),
        "--spool-dir".into(),
        at(""),
        "--port".into(),
        "0".into(),
        "--admin-listen".into(),
        "127.0.0.1:0".into(),
    ])
}

/// As the operator renders it for a route that uses its identity.
fn route(stage: &Stage, operator: &Operator, folder: &TempDir) -> RouteFile {
    let control = ControlService {
        address: format!("localhost:{}", operator.address.port()),
        ca_pem: operator.ca_pem.clone(),
        token_file: folder.path().join("control"),
        leases: false,
    };
    let (m365, nothing) = (&stage.m365, PathBuf::new);
    let mut route = to_simulator(m365, nothing(), nothing(), Some(control));
    let Method::ClientSubmission(submission) = &mut route.method else { panic!("it submits") };
    submission.credential = Credential::Operator { client_id: SAMPLE_CLIENT_ID.into() };
    submission.authority.ca_file = None;
    let endpoint = Endpoint::new("localhost", m365.smtp_address().port());
    submission.endpoint = Endpoint { ca_pem: Some(m365.ca_pem().into()), ..endpoint };
    route
}

#[tokio::test]
async fn mail_flows_with_the_operators_identity_and_goes_on_while_the_operator_is_away() {
    let mut scene = Scene::start().await;
    scene.met(Reason::TokenAcquired).await;
    scene.sends("lent").await;
    scene.operator.leave();
    scene.cut(vec![]);
    scene.sends("still-lent").await;
    assert_eq!(scene.exchanges(), [format!("Some({OPERATOR:?}) Issued")], "the pod showed Entra nothing");
    let messages = scene.stage.m365.messages();
    assert_eq!(messages.len(), 2);
    assert!(scene.stage.m365.violations().is_empty(), "{:#?}", scene.stage.m365.violations());
    scene.sidecar.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_does_not_reach_the_operator_says_so_and_finds_it_again() {
    let scene = Scene::start().await;
    let Scene { mut operator, stage, sidecar, folder } = scene;
    operator.leave();
    sidecar.stop().await;
    let sidecar = App::start(arguments(&folder).into_run(), intervals()).await.unwrap();
    let mut scene = Scene { operator, stage, sidecar, folder };
    scene.met(Reason::OperatorUnavailable).await;
    scene.operator.come_back().await;
    scene.met(Reason::TokenAcquired).await;
    scene.sends("found-again").await;
}

#[tokio::test]
async fn what_entra_says_to_the_operator_is_the_routes_condition() {
    let scene = Scene::with(|stage| stage.entra(LoginAction::Aadsts(700_016), None)).await;
    scene.met(Reason::ApplicationNotFound).await;
    scene.stage.m365.set_faults(Faults::default());
    scene.met(Reason::TokenAcquired).await;
    scene.sends("registered").await;
}

#[tokio::test]
async fn a_token_that_exchange_refuses_is_asked_for_anew() {
    let scene = Scene::start().await;
    scene.met(Reason::TokenAcquired).await;
    scene.cut(vec![Rule::times(At::Auth, SmtpAction::Reply(Line::AuthUnsuccessful.into()), 1)]);
    scene.sends("anew").await;
    assert_eq!(scene.exchanges().len(), 2, "{:?}", scene.exchanges());
}

#[tokio::test]
async fn a_pod_of_another_route_is_refused_and_its_route_shows_it() {
    let scene = Scene::start().await;
    scene.met(Reason::TokenAcquired).await;
    let Scene { operator, stage, sidecar, folder } = scene;
    sidecar.stop().await;
    std::fs::write(folder.path().join("control"), jwt("shop/worker-1/uid-2")).unwrap();
    let sidecar = App::start(arguments(&folder).into_run(), intervals()).await.unwrap();
    let scene = Scene { operator, stage, sidecar, folder };
    scene.met(Reason::OperatorRefused).await;
    assert!(scene.stage.m365.messages().is_empty());
}

/// Everything that this thread logs, at every level.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_line_of_either_program_holds_the_token() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let scene = Scene::with(|stage| stage.entra(LoginAction::Aadsts(700_024), Some(1))).await;
    scene.met(Reason::TokenAcquired).await;
    scene.sends("unseen").await;
    let token = scene.stage.ask(WEB, "notifications").await.token().access_token;
    let metrics = metrics(scene.sidecar.admin_address()).await;
    let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("token granted") && text.contains("delivered"), "both were heard: {text}");
    for secret in [token, scene.stage.assertion(), jwt(WEB)] {
        for part in secret.split('.').filter(|part| part.len() > 12) {
            assert!(!text.contains(part) && !metrics.contains(part), "{part}: {text} {metrics}");
        }
    }
}

#[tokio::test]
async fn the_command_check_asks_the_operator_too() {
    let scene = Scene::start().await;
    let path = scene.folder.path().join("route.json").display().to_string();
    let Command::Check(check) =
        Cli::parse_from(["mailroute-sidecar", "check", "--route", &path]).into_command()
    else {
        panic!("the command is check");
    };
    let findings = check::walk(&check).await.unwrap();
    assert!(findings.is_well(), "{findings:#?}");
}

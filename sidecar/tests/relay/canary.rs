//! The program itself, as the kubelet runs it: its log, its numbers and its reports hold no secret, and it stops politely.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mailroute_m365::directory::{BasicAuth, SAMPLE_CLIENT_ID, SAMPLE_PASSWORD, SAMPLE_SECRET};
use mailroute_m365::{Faults, Line, Options, Rule, SmtpAction, SmtpFaults, Stage};
use mailroute_route::file::{CertificateFiles, Credential};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Client, message};
use crate::scene::{CONTROL_TOKEN, PATIENCE, http_get, submission, surroundings};

/// The program with everything logged that it can log, and its log so far.
pub struct Program {
    child: Child,
    log: BufReader<tokio::process::ChildStderr>,
    seen: String,
}

impl Program {
    pub fn start(arguments: Vec<String>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"))
            .arg("run")
            .args(arguments)
            .args(["--log-level", "trace"])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, seen: String::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Reads the log up to a line that holds `text`.
    pub async fn line_with(&mut self, text: &str) -> serde_json::Value {
        let find = async {
            loop {
                let mut line = String::new();
                assert_ne!(self.log.read_line(&mut line).await.unwrap(), 0, "ended: {}", self.seen);
                self.seen.push_str(&line);
                if line.contains(text) {
                    return serde_json::from_str(&line).expect("a JSON line");
                }
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no line with {text}"))
    }

    /// Waits until it has ended, whatever ended it.
    pub async fn ended(mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Asks it to stop, and gives its exit code and its whole log.
    pub async fn terminate(mut self) -> (Option<i32>, String) {
        self.signal("-TERM").await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it stops").unwrap();
        self.log.read_to_string(&mut self.seen).await.unwrap();
        (ended.code(), self.seen)
    }
}

/// The port of the first address in a log line.
pub fn port(text: &serde_json::Value) -> u16 {
    let text = text.as_str().unwrap();
    let start = text.find("127.0.0.1:").unwrap() + "127.0.0.1:".len();
    text[start..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[tokio::test]
async fn no_secret_leaves_the_program_but_for_its_addressee() {
    let (m365, control, route, files) = surroundings(Options::default()).await;
    // An upstream that repeats what it does not like, and one that is content.
    let echo = "501 5.5.2 Syntax error in AUTH XOAUTH2 dXNlcj1ub3JlcGx5QGNvbnRvc28uY29tAWF1dGg9QmVhcmVyIGV5SmhiR2NpT2lKU1V6STFOaUlzSW10cFpDSTZJbU5oYm1GeWVTSjkBAQ==";
    let rules = vec![
        Rule::times(Stage::Auth, SmtpAction::Reply(echo.to_owned().try_into().unwrap()), 1),
        Rule::times(Stage::Auth, SmtpAction::Reply(Line::AuthUnsuccessful.into()), 1),
    ];
    m365.set_faults(Faults { submission: SmtpFaults { rules, ..<_>::default() }, ..<_>::default() });
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let listening = program.line_with("\"listening\"").await;
    let (smtp, admin) = (port(&listening["addresses"]), port(&listening["admin"]));
    program.line_with("LoginFailed").await;
    let mut client = Client::connect(([127, 0, 0, 1], smtp).into()).await;
    let mut codes = Vec::new();
    while codes.last() != Some(&250) {
        codes.push(client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("canary")).await.code);
        assert!(codes.len() < 100_000, "never taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delivery = program.line_with("\"delivered\"").await;
    assert_eq!(delivery["message_id"], "<canary@contoso.com>");
    assert!(delivery["reply"].as_str().unwrap().contains("[Hostname="), "{delivery}");
    assert!(delivery["queue_id"].is_string() && delivery["host"].is_string(), "{delivery}");
    drop(client);
    let metrics = http_get(([127, 0, 0, 1], admin).into(), "/metrics").await;
    let ready = http_get(([127, 0, 0, 1], admin).into(), "/readyz").await;
    let mut requests = control.requests.clone();
    tokio::time::timeout(PATIENCE, requests.wait_for(|all| all.contains("MailAccepted")))
        .await
        .unwrap()
        .unwrap();
    let (code, log) = program.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("asked to stop") && log.contains("\"stopped\""), "{log}");

    let assertion = std::fs::read_to_string(files.path("entra")).unwrap();
    let reports = requests.borrow().replace(&format!("Bearer {CONTROL_TOKEN}"), "");
    for (place, text) in [("log", &log), ("metrics", &metrics), ("readyz", &ready), ("reports", &reports)] {
        for secret in [assertion.as_str(), "eyJ", "dXNlcj1", "Bearer", CONTROL_TOKEN] {
            assert!(!text.contains(secret), "{secret:.20} in {place}: {text}");
        }
    }
}

const SECRET: &str = "canary~secret.8Q+/=";
const PASSWORD: &str = "canary password/+";

/// Starts with a credential that is refused, a password by an upstream that repeats it, then mends it; gives everything
/// that the program said: log, metrics, readiness and reports.
async fn all_that_is_said(wrong: Credential, right: &[(&Path, &str)], met: &str) -> String {
    let (m365, control, mut route, files) = surroundings(Options::default()).await;
    m365.directory(|directory| directory.tenants[0].basic_auth = BasicAuth::Allowed);
    if matches!(wrong, Credential::Password { .. }) {
        let echo = format!("535 5.7.3 Authentication unsuccessful '{}'", STANDARD.encode(PASSWORD));
        let rules = vec![Rule::times(Stage::Auth, SmtpAction::Reply(echo.try_into().unwrap()), 1)];
        m365.set_faults(Faults { submission: SmtpFaults { rules, ..<_>::default() }, ..<_>::default() });
    }
    submission(&mut route).credential = wrong;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let listening = program.line_with("\"listening\"").await;
    let admin = port(&listening["admin"]);
    program.line_with(met).await;
    for (path, text) in right {
        mailroute_m365::write_atomically(path, text).unwrap();
    }
    program.line_with("\"LoggedIn\"").await;
    let mut said = http_get(([127, 0, 0, 1], admin).into(), "/metrics").await;
    said.push_str(&http_get(([127, 0, 0, 1], admin).into(), "/readyz").await);
    let mut requests = control.requests.clone();
    let told = requests.wait_for(|all| all.contains("LoggedIn"));
    said.push_str(&tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap());
    let (code, log) = program.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    said + &log
}

#[tokio::test]
async fn neither_secret_nor_password_nor_key_leaves_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("secret"), SECRET).unwrap();
    std::fs::write(path("password"), PASSWORD).unwrap();
    let by_secret =
        Credential::ClientSecret { client_id: SAMPLE_CLIENT_ID.into(), secret_file: path("secret") };
    let by_password = Credential::Password { password_file: path("password") };
    let key = include_str!("../../src/token/testdata/rsa.key");
    let own = rcgen::KeyPair::from_pem(key).unwrap();
    let chain = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&own).unwrap().pem();
    std::fs::write(path("tls.crt"), chain).unwrap();
    std::fs::write(path("tls.key"), key).unwrap();
    let files = CertificateFiles { certificate_file: path("tls.crt"), key_file: path("tls.key") };
    let by_certificate = Credential::ClientCertificate { client_id: SAMPLE_CLIENT_ID.into(), files };
    let stand_in = mailroute_m365::keys::client_certificate::stand_in();
    let (registered, registered_key) = (stand_in.certificate_pem(), stand_in.key_pem());
    let all = [
        all_that_is_said(by_secret, &[(&path("secret"), SAMPLE_SECRET)], "SecretRejected").await,
        all_that_is_said(by_password, &[(&path("password"), SAMPLE_PASSWORD)], "PasswordRejected").await,
        all_that_is_said(
            by_certificate,
            &[(&path("tls.crt"), registered), (&path("tls.key"), registered_key)],
            "CertificateNotRegistered",
        )
        .await,
    ];
    assert!(all[1].contains("unsuccessful '[removed]'"), "{}", all[1]);
    let secrets = [SECRET, PASSWORD, SAMPLE_SECRET, SAMPLE_PASSWORD];
    let keys = [key, registered_key].map(|key| key.lines().nth(5).unwrap().to_owned());
    for said in &all {
        for secret in secrets {
            assert!(!said.contains(secret), "{secret}");
            assert!(!said.contains(&STANDARD.encode(secret)), "{secret} in base64");
        }
        assert!(said.contains("LoggedIn"), "{said}");
        for shown in keys.iter().map(String::as_str).chain(["eyJ", "Bearer ey", "PRIVATE KEY"]) {
            assert!(!said.contains(shown), "{shown:.20}");
        }
    }
}

#[tokio::test]
async fn an_idle_program_stops_at_once_and_well() {
    let (_m365, _control, route, files) = surroundings(Options::default()).await;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    program.line_with("\"listening\"").await;
    let started = std::time::Instant::now();
    let (code, _) = program.terminate().await;
    assert_eq!(code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

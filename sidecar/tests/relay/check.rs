//! `mailroute-sidecar check` against the simulator: right and wrong set-ups of every method, step by step.

use std::process::Stdio;

use clap::Parser;
use mailroute_m365::directory::{BasicAuth, SAMPLE_PASSWORD, SAMPLE_SECRET};
use mailroute_m365::{Faults, Options, Rule, Simulator, SmtpAction, SmtpFaults, Stage};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::TlsMode;
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::check;
use mailroute_sidecar::cli::check::places::Place;
use mailroute_sidecar::cli::check::steps::{Findings, State, Step};

use crate::client::message;
use crate::credentials::{with_certificate, with_password, with_secret};
use crate::handover::{BY_ADDRESS, BY_CERTIFICATE, Secret, connectors, direct_send, own, relay, smart_host};
use crate::mailboxes::{ANN, ORDERS, mailboxes, three};
use crate::scene::{Scene, submission, surroundings};

/// Checks a set-up that was changed like this.
async fn checked(
    options: impl FnOnce(&mut Options),
    change: impl FnOnce(&Simulator, &mut RouteFile),
    arguments: &[&str],
) -> (Simulator, Findings) {
    let mut chosen = Options::default();
    options(&mut chosen);
    let (m365, _control, mut route, files) = surroundings(chosen).await;
    change(&m365, &mut route);
    files.write_route(&route);
    let path = files.path("route.json");
    let program = ["mailroute-sidecar", "check", "--route", path.to_str().unwrap()];
    let Command::Check(check) = Cli::parse_from(program.iter().chain(arguments)).into_command() else {
        panic!("the command is check");
    };
    let findings = check::walk(&check).await.unwrap();
    assert!(m365.messages().is_empty(), "a check sends nothing");
    assert!(m365.violations().is_empty(), "{:#?}", m365.violations());
    (m365, findings)
}

/// The one step that failed, with everything before it good and nothing after it reached.
fn failed(findings: &Findings) -> &Step {
    assert!(!findings.is_well());
    let at = findings.steps.iter().position(|step| step.state == State::Failed);
    let at = at.unwrap_or_else(|| panic!("{findings:#?}"));
    let good = |step: &Step| matches!(step.state, State::Ok | State::Warning);
    assert!(findings.steps[..at].iter().all(good), "{findings:#?}");
    assert!(findings.steps[at + 1..].iter().all(|step| step.state == State::NotReached), "{findings:#?}");
    &findings.steps[at]
}

fn places(findings: &Findings) -> Vec<Place> {
    assert!(findings.is_well(), "{findings:#?}");
    findings.steps.iter().map(|step| step.step).collect()
}

use Place::{Certificate, Connection, Greeting, LogIn, Name, Password, Recipient, Route, Sender, Tls, Token};

#[tokio::test]
async fn workload_identity_is_well_up_to_the_recipient() {
    let (m365, findings) = checked(|_| {}, |_, _| {}, &[]).await;
    let expected = [Route, Token, Name, Connection, Greeting, Tls, LogIn, Sender, Recipient];
    assert_eq!(places(&findings), expected);
    assert!(findings.steps.iter().all(|step| step.state == State::Ok), "{findings:#?}");
    let last = findings.steps.last().unwrap();
    assert_eq!(last.met, "<noreply@contoso.com>: 250 2.1.5 Recipient OK");
    assert_eq!(m365.exchanges().len(), 1);
}

#[tokio::test]
async fn each_mailbox_is_walked_and_the_one_that_fails_is_named() {
    let (m365, findings) = checked(
        |options| {
            three(options);
            options.config.directory.tenants[0].mailboxes[1].smtp_auth_disabled = Some(true);
        },
        |_, route| mailboxes(route, [&[], &[], &[ANN]], None),
        &["--from", ANN],
    )
    .await;
    assert!(!findings.is_well());
    assert_eq!(findings.failing_mailboxes(), [ORDERS], "{findings:#?}");
    let [orders, alerts] = &findings.mailboxes[..] else { panic!("{findings:#?}") };
    let failed = orders.steps.iter().find(|step| step.state == State::Failed).unwrap();
    assert_eq!((failed.step, failed.reason), (LogIn, Some(Reason::SmtpAuthDisabledMailbox)));
    assert!(failed.remedy.contains(ORDERS), "{failed:?}");
    let met = |steps: &[Step]| steps.iter().find(|step| step.step == Sender).unwrap().met.clone();
    assert!(met(&findings.steps).starts_with("<noreply@contoso.com>: 250"), "{findings:#?}");
    assert!(met(&alerts.steps).starts_with("<ann@contoso.com>: 250"), "only who serves her sends for her");
    assert_eq!(m365.exchanges().len(), 1, "all share one token");
}

#[tokio::test]
async fn half_an_identity_binding_ends_the_way_at_the_token() {
    let (m365, findings) = checked(|_| {}, |_, _| {}, &["--token-proxy-name", "0a1b2c.sni.ests.aks"]).await;
    let step = failed(&findings);
    assert_eq!((step.step, step.reason), (Token, Some(Reason::TokenProxyInvalid)));
    assert!(step.met.contains("AZURE_KUBERNETES_TOKEN_PROXY"), "{step:?}");
    assert!(step.remedy.contains("azure.workload.identity/skip-containers"), "{step:?}");
    assert!(m365.exchanges().is_empty());
}

#[tokio::test]
async fn the_other_credentials_are_walked_as_well() {
    let (_, findings) = checked(|_| {}, |_, route| with_secret(route, SAMPLE_SECRET), &[]).await;
    assert_eq!(places(&findings)[..2], [Route, Token]);
    let certificate = |m365: &Simulator, route: &mut RouteFile| {
        with_certificate(route, m365.client_certificate());
    };
    let (_, findings) = checked(|_| {}, certificate, &[]).await;
    assert_eq!(places(&findings)[..3], [Route, Certificate, Token]);
    let password = |m365: &Simulator, route: &mut RouteFile| with_password(m365, route, SAMPLE_PASSWORD);
    let (_, findings) = checked(|_| {}, password, &[]).await;
    assert_eq!(places(&findings)[..2], [Route, Password]);
    assert_eq!(findings.steps[1].state, State::Warning);
    assert!(findings.steps[1].remedy.contains("WorkloadIdentity"), "{findings:#?}");
}

#[tokio::test]
async fn each_wrong_set_up_fails_at_its_step_with_its_remedy() {
    type Change = fn(&Simulator, &mut RouteFile);
    let setups: [(Change, Place, Reason, &str); 8] = [
        (
            |_, route| {
                with_secret(route, "wrong");
                route.secret = Some("m365-secret".into());
            },
            Token,
            Reason::SecretRejected,
            "into the Secret m365-secret",
        ),
        (
            |_, route| submission(route).authority.tenant = "99999999-86f1-41af-91ab-2d7cd011db47".into(),
            Token,
            Reason::TenantNotFound,
            "99999999-86f1-41af-91ab-2d7cd011db47",
        ),
        (
            |_, route| submission(route).endpoint.host = "smtp.invalid".into(),
            Name,
            Reason::NameNotResolved,
            "smtp.invalid",
        ),
        (|_, route| submission(route).endpoint.port = 1, Connection, Reason::ConnectFailed, "egress"),
        (
            |m365, _| {
                let submission = SmtpFaults { without_start_tls: true, ..<_>::default() };
                m365.set_faults(Faults { submission, ..<_>::default() });
            },
            Tls,
            Reason::StartTlsMissing,
            "service mesh",
        ),
        (
            |_, route| submission(route).endpoint.ca_file = None,
            Tls,
            Reason::TlsFailed,
            "spec.endpoint.caBundleRef",
        ),
        (
            |m365, _| m365.directory(|all| all.tenants[0].smtp_auth_disabled = true),
            LogIn,
            Reason::SmtpAuthDisabledTenant,
            "Set-CASMailbox -Identity noreply@contoso.com",
        ),
        (
            |m365, route| {
                with_password(m365, route, SAMPLE_PASSWORD);
                m365.directory(|all| all.tenants[0].basic_auth = BasicAuth::Removed);
            },
            LogIn,
            Reason::BasicAuthDisabled,
            "WorkloadIdentity",
        ),
    ];
    for (change, place, reason, remedy) in setups {
        let (_, findings) = checked(|_| {}, change, &[]).await;
        let step = failed(&findings);
        assert_eq!((step.step, step.reason), (place, Some(reason)), "{step:#?}");
        assert!(step.remedy.contains(remedy) && !step.met.is_empty(), "{step:#?}");
    }
}

#[tokio::test]
async fn a_greeting_that_never_comes_ends_the_check_in_its_time() {
    let silent = |m365: &Simulator, _: &mut RouteFile| {
        let rules = vec![Rule::always(Stage::Connect, SmtpAction::Delay(60_000))];
        m365.set_faults(Faults { submission: SmtpFaults { rules, ..<_>::default() }, ..<_>::default() });
    };
    let (_, findings) = checked(|_| {}, silent, &["--timeout", "1"]).await;
    let step = failed(&findings);
    assert_eq!((step.step, step.met.as_str()), (Greeting, "no result within 1 seconds"));
}

#[tokio::test]
async fn a_relay_is_walked_with_its_certificate_and_by_its_address() {
    let secret = Secret::empty();
    let by_certificate = |m365: &Simulator, route: &mut RouteFile| {
        secret.put(&own(m365, "mail.contoso.com"));
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, Some(secret.files()));
    };
    let abroad = ["--to", "ann@fabrikam.com"];
    let (_, findings) = checked(connectors(BY_CERTIFICATE), by_certificate, &abroad).await;
    let expected = [Route, Certificate, Name, Connection, Greeting, Tls, Sender, Recipient];
    assert_eq!(places(&findings), expected);
    let last = findings.steps.last().unwrap();
    assert!(last.met.contains("from 127.0.0.1 with the certificate of"), "{last:#?}");

    let by_address = |m365: &Simulator, route: &mut RouteFile| {
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, None);
    };
    let (_, findings) = checked(connectors(BY_ADDRESS), by_address, &abroad).await;
    assert_eq!(places(&findings), [Route, Name, Connection, Greeting, Tls, Sender, Recipient]);
}

#[tokio::test]
async fn a_relay_without_its_connector_fails_at_the_recipient_with_what_was_presented() {
    let by_address = |m365: &Simulator, route: &mut RouteFile| {
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, None);
    };
    let (_, findings) = checked(|_| {}, by_address, &["--to", "ann@fabrikam.com"]).await;
    let step = failed(&findings);
    assert_eq!((step.step, step.reason), (Recipient, Some(Reason::ConnectorMismatch)));
    assert!(step.met.contains("5.7.64") && step.met.contains("from 127.0.0.1"), "{step:#?}");
    assert!(step.remedy.contains("Get-InboundConnector"), "{step:#?}");
}

#[tokio::test]
async fn a_relay_without_its_certificate_does_not_even_connect() {
    let secret = Secret::empty();
    let missing = |m365: &Simulator, route: &mut RouteFile| {
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, Some(secret.files()));
    };
    let (m365, findings) = checked(connectors(BY_CERTIFICATE), missing, &[]).await;
    let step = failed(&findings);
    assert_eq!((step.step, step.reason), (Certificate, Some(Reason::CertificateMissing)));
    assert!(step.remedy.contains("kubectl create secret tls <certificateSecretRef.name>"), "{step:#?}");
    assert_eq!(m365.statistics().tally.connections, 0);
}

#[tokio::test]
async fn direct_send_is_walked_and_a_recipient_that_is_not_there_is_told_apart() {
    let direct = |m365: &Simulator, route: &mut RouteFile| {
        let smart_host = smart_host(m365, route, TlsMode::Opportunistic);
        direct_send(route, smart_host);
    };
    let (_, findings) = checked(|_| {}, direct, &["--to", "alice@contoso.com"]).await;
    assert_eq!(places(&findings), [Route, Name, Connection, Greeting, Tls, Sender, Recipient]);
    let (_, findings) = checked(|_| {}, direct, &["--to", "ghost@contoso.com"]).await;
    let step = failed(&findings);
    assert_eq!((step.step, step.reason), (Recipient, None));
    assert!(step.remedy.contains("--to"), "{step:#?}");
}

#[tokio::test]
async fn a_route_that_cannot_be_read_is_the_first_step() {
    let (_, findings) = checked(|_| {}, |_, route| route.version = 99, &[]).await;
    let step = failed(&findings);
    assert_eq!(step.step, Route);
    assert!(step.met.contains("format version 99"), "{step:#?}");
}

#[tokio::test]
async fn the_program_tells_people_and_programs_and_does_not_disturb_the_one_that_runs() {
    let scene = Scene::start().await;
    scene.well().await;
    let route = scene.files.path("route.json");
    let check = async |more: &[&str]| {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_mailroute-sidecar"));
        program.arg("check").arg("--route").arg(&route).args(more).stderr(Stdio::piped());
        let done = program.output().await.unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(!text.contains("eyJ"), "no token: {text}");
        (done.status.code(), text)
    };
    let (code, text) = check(&[]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok       log-in") && text.ends_with("A message would be sent.\n"), "{text}");
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = true);
    let (code, json) = check(&["-o", "json"]).await;
    assert_eq!(code, Some(1), "{json}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["route"], "shop/notifications");
    assert_eq!(json["steps"][6]["reason"], "SmtpAuthDisabledTenant");
    let (code, _) = check(&["--nonsense"]).await;
    assert_eq!(code, Some(2));
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = false);
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("beside")).await;
    assert_eq!(reply.code, 250, "{reply}");
}

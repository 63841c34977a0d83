//! The way in: what `docs/getting-started.md` says is shown while a step is missing, row by row of its tables.
//!
//! The rows of `Ready` are the operator's: `crates/operator-core/src/status/compute/tests.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use mailroute_m365::directory::Application;
use mailroute_m365::stand_in::ISSUER;
use mailroute_m365::{Faults, Simulator, SubmissionFaults};
use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::file::Credential;
use mailroute_sidecar::token::aadsts::{ErrorAnswer, PROPAGATION};
use mailroute_sidecar::token::credential::Kind;

use crate::client::message;
use crate::scene::{Scene, submission};

const PAGE: &str = include_str!("../../../docs/getting-started.md");

/// One test for each row: its name, the first and the last cell of the row, and what is missing.
macro_rules! missing {
    ($($name:ident: $row:literal, $reason:ident, $change:expr;)*) => {
        /// What the tests below cover.
        const COVERED: &[(&str, Reason)] = &[
            $(($row, Reason::$reason),)*
            ("the federated credential, later", Reason::FederationNotTrusted),
            ("the right to send as a `From` that is not the mailbox", Reason::SendAsDenied),
        ];

        $(#[tokio::test]
        async fn $name() {
            shows(Reason::$reason, $change).await;
        })*
    };
}

missing! {
    the_right_tenant: "the right tenant in the route", TenantNotFound, |_, route| {
        submission(route).authority.tenant = "99999999-86f1-41af-91ab-2d7cd011db47".into();
    };
    the_application: "the application, or its service principal", ApplicationNotFound, |_, route| {
        let Credential::WorkloadIdentity { client_id, .. } = &mut submission(route).credential else {
            panic!("the scene's credential is workload identity");
        };
        *client_id = "00000000-0000-4000-8000-000000000000".into();
    };
    an_issuer_that_entra_can_reach: "an issuer that Entra can reach", IssuerUnreachable, |m365, _| {
        // Trusted by its exact name, and nowhere to be found.
        m365.directory(|directory| {
            directory.issuers.clear();
            directory.tenants[0].applications[0].federated_credentials[0].issuer = ISSUER.into();
        });
    };
    the_federated_credential: "the federated credential, in its first 15 minutes", WaitingForPropagation, |m365, _| {
        m365.directory(|directory| directory.tenants[0].applications[0].federated_credentials.clear());
    };
    // Exchange knows nothing of the application: neither its role nor any mailbox of it.
    the_service_principal: "the service principal in Exchange", ExchangeRejectedToken, |m365, _| {
        m365.directory(|directory| {
            let application = &mut directory.tenants[0].applications[0];
            application.send_as_app = false;
            application.mailboxes.clear();
        });
    };
    the_permission_to_send: "the permission `SMTP.SendAsApp`, or the consent to it", ExchangeRejectedToken, |m365, _| {
        m365.directory(|directory| directory.tenants[0].applications[0].send_as_app = false);
    };
    the_permission_on_the_mailbox: "the permission on the mailbox", ExchangeRejectedToken, |m365, _| {
        m365.directory(|directory| directory.tenants[0].applications[0].mailboxes.clear());
    };
    the_role: "by RBAC, the role, or the mailbox in its scope", ExchangeRejectedToken, |m365, _| {
        by_rbac(m365, |application| application.role_scope = vec!["another@contoso.com".into()]);
    };
    one_of_the_two_alone: "the permission on the mailbox, asked for because the application has `SMTP.SendAsApp` beside the role",
        ExchangeRejectedToken, |m365, _| by_rbac(m365, |application| application.send_as_app = true);
    smtp_auth_of_the_tenant: "SMTP AUTH, off for the tenant", SmtpAuthDisabledTenant, |m365, _| {
        m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = true);
    };
    smtp_auth_of_the_mailbox: "SMTP AUTH, off for the mailbox", SmtpAuthDisabledMailbox, |m365, _| {
        m365.directory(|directory| directory.tenants[0].mailboxes[0].smtp_auth_disabled = Some(true));
    };
    a_connection_to_entra: "a connection to Entra", TokenServiceUnavailable, |_, route| {
        submission(route).authority.host = format!("localhost:{}", CLOSED_PORT);
    };
    dns: "DNS for the host", NameNotResolved, |_, route| {
        submission(route).endpoint.host = "smtp.invalid".into();
    };
    a_connection_to_port_587: "a connection to port 587", ConnectFailed, |_, route| {
        submission(route).endpoint.port = CLOSED_PORT;
    };
    smtp_as_it_is: "SMTP as Exchange speaks it (a mesh or a firewall rewrites it)", StartTlsMissing, |m365, _| {
        let submission = SubmissionFaults { without_start_tls: true, ..<_>::default() };
        m365.set_faults(Faults { submission, ..<_>::default() });
    };
    exchanges_own_certificate: "Exchange's own certificate (a proxy inspects TLS)", TlsFailed, |_, route| {
        submission(route).endpoint.ca_file = None;
    };
}

/// The application has its mailbox by RBAC for Applications, and what it was granted otherwise is taken away.
fn by_rbac(m365: &Simulator, change: impl FnOnce(&mut Application)) {
    m365.directory(|directory| {
        let application = &mut directory.tenants[0].applications[0];
        application.role_scope = std::mem::take(&mut application.mailboxes);
        application.send_as_app = false;
        change(application);
    });
}

#[tokio::test]
async fn the_role_alone_is_enough() {
    let scene = Scene::with(|_| {}, |m365, _| by_rbac(m365, |_| {})).await;
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("by role")).await;
    assert_eq!(reply.code, 250, "{reply}");
}

#[test]
fn every_row_of_the_page_is_covered_by_a_test() {
    let covered: BTreeSet<_> = COVERED
        .iter()
        .map(|(row, reason)| format!("| {row} | `{}` False | `{reason}` |", reason.condition()))
        .collect();
    assert_eq!(rows(), covered, "docs/getting-started.md and the tests of this file differ");
}

#[tokio::test]
async fn a_federated_credential_that_stays_away_is_called_missing() {
    let remove = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].applications[0].federated_credentials.clear());
    };
    let scene = Scene::with(|_| {}, remove).await;
    // The code that Entra gave, asked about as it is and when the time to spread is over.
    let met = scene.told(Reason::WaitingForPropagation).await.message;
    let (_, code) = met.split_once("AADSTS").expect("the message quotes Entra's code");
    let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
    let body = format!(r#"{{"error":"invalid_client","error_codes":[{digits}]}}"#);
    let answer = ErrorAnswer::parse(401, body.as_bytes());
    assert_eq!(answer.reason(Kind::Federated, Duration::ZERO), Reason::WaitingForPropagation);
    assert_eq!(answer.reason(Kind::Federated, PROPAGATION), Reason::FederationNotTrusted);
}

#[tokio::test]
async fn a_sender_that_the_mailbox_may_not_use_is_shown() {
    let scene = Scene::start().await;
    scene.well().await;
    let foreign = message("foreign").replace("From: <noreply@contoso.com>", "From: <ceo@contoso.com>");
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &foreign).await;
    assert_eq!((reply.code, reply.text().contains("SendAsDenied")), (554, true), "{reply}");
    assert!(!scene.told(Reason::SendAsDenied).await.holds);
}

/// Starts a sidecar in front of what is wrong in one way, and waits until the operator is told.
async fn shows(reason: Reason, change: impl FnOnce(&Simulator, &mut RouteFile)) {
    let scene = Scene::with(|_| {}, change).await;
    let told = scene.told(reason).await;
    assert_eq!((told.condition, told.holds), (reason.condition(), false), "{told:?}");
    assert!(scene.m365.messages().is_empty());
}

/// The rows of the page's tables that a sidecar answers for.
fn rows() -> BTreeSet<String> {
    let of_ready = format!("| `{}` ", ConditionType::Ready);
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    rows.filter(|row| !row.contains(&of_ready)).map(str::to_owned).collect()
}

/// A port that nobody listens on: discard (RFC 863). Whatever was free a moment ago may be another test's by now.
const CLOSED_PORT: u16 = 9;

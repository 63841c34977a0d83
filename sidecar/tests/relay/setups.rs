//! Wrong set-ups: the application gets a clear reply, the operator the condition, the reason and what was met.

use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_m365::stand_in::ISSUER;
use mailroute_m365::{Faults, LoginAction, LoginFaults, Rule, Simulator, Stage, SubmissionFaults, Token};
use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_route::file::Credential;
use mailroute_sidecar::cli::health_check;

use crate::client::message;
use crate::kept::reply;
use crate::scene::{Scene, http_get, submission};

/// Starts a scene that is wrong in one way, and checks that everybody is told the same thing.
async fn wrong(change: impl FnOnce(&Simulator, &mut RouteFile), reason: Reason) -> (Scene, String) {
    let scene = Scene::with(|_| {}, change).await;
    let told = scene.told(reason).await;
    assert!(!told.holds);
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("wrong")).await;
    assert_eq!(reply.code, 451, "{reply}");
    let text = reply.text();
    assert!(text.starts_with(&format!("{reason}: ")), "{reply}");
    assert!(text.ends_with("kubectl describe mailroute notifications -n shop"), "{reply}");
    let ready = http_get(scene.app.admin_address(), "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    // Any pod can ask: the reason is named, and nothing is quoted.
    assert!(ready.ends_with(&format!("\r\n\r\n{} {reason}\n", reason.condition())), "{ready}");
    assert!(http_get(scene.app.admin_address(), "/livez").await.starts_with("HTTP/1.1 200"));
    let metrics = scene.metrics().await;
    assert!(!metrics.contains(&told.message), "{metrics}");
    let condition = reason.condition();
    let line = format!("mailroute_condition_status{{condition=\"{condition}\",reason=\"{reason}\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(scene.m365.messages().is_empty());
    scene.assert_careful();
    (scene, told.message)
}

#[tokio::test]
async fn smtp_auth_disabled_for_the_tenant() {
    let disable = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = true);
    };
    let (scene, met) = wrong(disable, Reason::SmtpAuthDisabledTenant).await;
    assert!(met.contains("535 5.7.139"), "{met}");
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = false);
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("right")).await;
    assert_eq!(reply.code, 250, "recovers without a restart: {reply}");
}

#[tokio::test]
async fn smtp_auth_disabled_for_the_mailbox() {
    let disable = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].mailboxes[0].smtp_auth_disabled = Some(true));
    };
    wrong(disable, Reason::SmtpAuthDisabledMailbox).await;
}

#[tokio::test]
async fn a_wrong_tenant() {
    let tenant = |_: &Simulator, route: &mut RouteFile| {
        submission(route).authority.tenant = "99999999-86f1-41af-91ab-2d7cd011db47".into();
    };
    let (_, met) = wrong(tenant, Reason::TenantNotFound).await;
    assert!(met.contains("AADSTS90002") && met.contains("correlation_id"), "{met}");
}

#[tokio::test]
async fn an_unknown_application() {
    let client = |_: &Simulator, route: &mut RouteFile| {
        let Credential::WorkloadIdentity { client_id, .. } = &mut submission(route).credential else {
            panic!("the scene's credential is workload identity");
        };
        *client_id = "00000000-0000-4000-8000-000000000000".into();
    };
    wrong(client, Reason::ApplicationNotFound).await;
}

#[tokio::test]
async fn no_mailbox_permission_is_told_apart_from_a_bad_token() {
    let revoke = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].applications[0].mailboxes.clear());
    };
    let (scene, met) = wrong(revoke, Reason::ExchangeRejectedToken).await;
    assert!(met.contains("535 5.7.3"), "{met}");
    let report = scene.report(|report| report.observations.len() >= 3).await;
    let credential = report.observations.iter().find(|met| met.condition == ConditionType::CredentialReady);
    assert!(credential.unwrap().holds, "the token itself is good");
    assert_eq!(scene.m365.exchanges().len(), 2, "one new token was tried, and not one for each attempt");
}

#[tokio::test]
async fn a_missing_federated_credential_names_the_claims() {
    let remove = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].applications[0].federated_credentials.clear());
    };
    let (_, met) = wrong(remove, Reason::WaitingForPropagation).await;
    for claim in
        ["stand-in-issuer.invalid", "system:serviceaccount:shop:default", "api://AzureADTokenExchange"]
    {
        assert!(met.contains(claim), "{met}");
    }
}

#[tokio::test]
async fn a_missing_assertion() {
    let missing = |_: &Simulator, route: &mut RouteFile| {
        let Credential::WorkloadIdentity { token_file, .. } = &mut submission(route).credential else {
            panic!("the scene's credential is workload identity");
        };
        *token_file = "/nonexistent/entra".into();
    };
    wrong(missing, Reason::AssertionUnavailable).await;
}

#[tokio::test]
async fn a_token_for_the_api_server_is_not_shown_to_the_authority() {
    let foreign = |m365: &Simulator, route: &mut RouteFile| {
        let (now, audience) = (jiff::Timestamp::now().as_second(), "https://kubernetes.default.svc");
        let token = m365.stand_in(|issuer| issuer.token(ISSUER, SAMPLE_SUBJECT, audience, now, 3600));
        let Credential::WorkloadIdentity { token_file, .. } = &submission(route).credential else {
            panic!("the scene's credential is workload identity");
        };
        mailroute_m365::write_atomically(token_file, &token).unwrap();
    };
    let (scene, met) = wrong(foreign, Reason::AssertionUnavailable).await;
    assert!(met.contains("kubernetes.default.svc"), "{met}");
    assert!(scene.m365.exchanges().is_empty(), "{:?}", scene.m365.exchanges());
}

#[tokio::test]
async fn an_upstream_without_starttls_gets_nothing() {
    let strip = |m365: &Simulator, _: &mut RouteFile| {
        let faults = SubmissionFaults { without_start_tls: true, ..<_>::default() };
        m365.set_faults(Faults { submission: faults, ..<_>::default() });
    };
    wrong(strip, Reason::StartTlsMissing).await;
}

#[tokio::test]
async fn an_upstream_with_a_certificate_that_nobody_vouches_for() {
    let distrust = |_: &Simulator, route: &mut RouteFile| submission(route).endpoint.ca_file = None;
    let scene = Scene::with(|_| {}, distrust).await;
    let told = scene.told(Reason::TlsFailed).await;
    assert!(told.message.contains("UnknownIssuer"), "{told:?}");
    assert!(scene.m365.messages().is_empty());
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let rename =
        |_: &Simulator, route: &mut RouteFile| submission(route).endpoint.host = "smtp.invalid".into();
    wrong(rename, Reason::NameNotResolved).await;
}

#[tokio::test]
async fn a_throttled_token_service_is_left_alone_as_long_as_it_asks() {
    let throttle = |m365: &Simulator, _: &mut RouteFile| {
        let rules = vec![Rule::always(Token::Token, LoginAction::TooManyRequests(60))];
        m365.set_faults(Faults { login: LoginFaults { rules, ..<_>::default() }, ..<_>::default() });
    };
    let (scene, _) = wrong(throttle, Reason::TokenServiceThrottled).await;
    assert_eq!(scene.m365.exchanges().len(), 1);
}

#[tokio::test]
async fn a_page_of_html_from_the_token_endpoint() {
    let proxy = |m365: &Simulator, _: &mut RouteFile| {
        let rules = vec![Rule::always(Token::Token, LoginAction::BadGateway)];
        m365.set_faults(Faults { login: LoginFaults { rules, ..<_>::default() }, ..<_>::default() });
    };
    let (_, met) = wrong(proxy, Reason::TokenServiceUnavailable).await;
    assert!(met.contains("502"), "{met}");
}

#[tokio::test]
async fn a_life_written_as_text_is_understood() {
    let as_text = |m365: &Simulator, _: &mut RouteFile| {
        let login = LoginFaults { expires_in_as_string: true, ..<_>::default() };
        m365.set_faults(Faults { login, ..<_>::default() });
    };
    Scene::with(|_| {}, as_text).await.well().await;
}

#[tokio::test]
async fn what_any_pod_can_read_names_no_address_and_quotes_no_reply() {
    let scene = Scene::start().await;
    scene.well().await;
    let denied = "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as boss@contoso.com";
    scene.fault(Stage::EndOfData, reply(denied), 1);
    let answer =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("denied")).await;
    assert_eq!(answer.code, 554, "{answer}");
    assert!(
        scene.told(Reason::SendAsDenied).await.message.contains("boss@contoso.com"),
        "the operator is told"
    );
    let ready = http_get(scene.app.admin_address(), "/readyz").await;
    assert!(ready.ends_with("\r\n\r\nSendersAccepted SendAsDenied\n"), "{ready}");
    for path in ["/livez", "/readyz", "/metrics", "/", "/metrics?x=1", "/debug/pprof"] {
        let page = http_get(scene.app.admin_address(), path).await;
        assert!(page.starts_with("HTTP/1.1 ") && !page.contains('@'), "{path}: {page}");
        assert!(!page.contains("not allowed") && !page.contains("contoso"), "{path}: {page}");
    }
}

#[tokio::test]
async fn no_route_at_all_is_answered_and_mended_without_a_restart() {
    let scene = Scene::with(|_| {}, |_, route| route.version = 99).await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("early")).await;
    assert_eq!((reply.code, reply.text().contains("no valid mail route")), (451, true), "{reply}");
    let admin = scene.app.admin_address();
    assert!(http_get(admin, "/livez").await.starts_with("HTTP/1.1 200"));
    let ready = http_get(admin, "/readyz").await;
    assert!(ready.ends_with("\r\n\r\nno valid route\n"), "not what is wrong with it: {ready}");
    let spool = scene.files.path("");
    tokio::task::spawn_blocking(move || health_check::ask(&spool, admin)).await.unwrap().unwrap();
    let mut route = scene.route.clone();
    route.version = 1;
    scene.files.write_route(&route);
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("late")).await;
    assert_eq!(reply.code, 250, "{reply}");
}

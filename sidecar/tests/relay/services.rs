//! High Volume Email and Communication Services: the protocol of client submission with other rules.

use mailroute_m365::Face;
use mailroute_m365::Simulator;
use mailroute_m365::directory::{
    SAMPLE_BULK_ACCOUNT, SAMPLE_SECRET, SAMPLE_SERVICE_SENDER, SAMPLE_SMTP_USERNAME,
};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{Credential, OnViolation, Senders, SubmissionService};

use crate::client::message;
use crate::scene::{PATIENCE, Scene, submission};

pub fn bulk(m365: &Simulator, route: &mut RouteFile) {
    let submission = submission(route);
    submission.service = SubmissionService::HighVolumeEmail;
    submission.mailbox = SAMPLE_BULK_ACCOUNT.into();
    submission.accepted_domains = vec!["contoso.com".into()];
    submission.authority.scope = "https://outlook.office.com/.default".into();
    submission.endpoint.port = m365.high_volume_email_address().port();
    route.senders = Some(Senders { allow: vec![], on_violation: OnViolation::Rewrite });
}

pub fn services(m365: &Simulator, route: &mut RouteFile) {
    let submission = submission(route);
    submission.service = SubmissionService::CommunicationServices;
    submission.mailbox = SAMPLE_SERVICE_SENDER.into();
    submission.username = Some(SAMPLE_SMTP_USERNAME.into());
    submission.authority.scope = "https://communication.azure.com/.default".into();
    submission.endpoint.port = m365.communication_services_address().port();
}

fn internal(subject: &str) -> String {
    message(subject).replace("ann@fabrikam.com", "ann@contoso.com")
}

#[tokio::test]
async fn high_volume_email_sends_as_the_account_to_the_tenants_own_recipients() {
    let scene = Scene::with(|_| {}, bulk).await;
    scene.well().await;
    let mut client = scene.client().await;
    assert_eq!(client.command("MAIL FROM:<app@fabrikam.com>").await.code, 250);
    let outside = client.command("RCPT TO:<ann@fabrikam.com>").await;
    assert!(outside.code == 550 && outside.text().contains("High Volume Email reaches only"), "{outside}");
    assert!(outside.text().ends_with("Allowed: contoso.com"), "{outside}");
    assert_eq!(client.command("RSET").await.code, 250);
    let text = internal("bulk").replace("From: <noreply@contoso.com>", "From: Shop <app@fabrikam.com>");
    let reply = client.send("app@fabrikam.com", &["ann@contoso.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].connection.face, Face::HighVolumeEmail);
    assert_eq!(arrived[0].header("From"), Some("Shop <bulk@contoso.com>"));
    scene.assert_careful();
}

#[tokio::test]
async fn high_volume_email_names_each_missing_step() {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            bulk(m365, route);
            m365.directory(|directory| directory.tenants[0].applications[0].exchange_mail_send = false);
        },
    )
    .await;
    scene.told(Reason::ApiPermissionMissing).await;
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            bulk(m365, route);
            m365.directory(|directory| {
                directory.tenants[0].high_volume_email_accounts[0].applications.clear()
            });
        },
    )
    .await;
    scene.told(Reason::ApplicationNotAllowed).await;
}

#[tokio::test]
async fn communication_services_logs_in_with_the_username_and_sends_as_the_sender() {
    let scene = Scene::with(|_| {}, services).await;
    scene.well().await;
    let text = message("acs").replace("noreply@", "donotreply@");
    let reply = scene.client().await.send(SAMPLE_SERVICE_SENDER, &["ann@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].connection.face, Face::CommunicationServices);
    scene.assert_careful();
}

#[tokio::test]
async fn communication_services_takes_the_client_secret_as_a_password() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), SAMPLE_SECRET).unwrap();
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            services(m365, route);
            submission(route).credential = Credential::Password { password_file: secret.path().into() };
        },
    )
    .await;
    scene.well().await;
    let text = message("secret").replace("noreply@", "donotreply@");
    let reply = scene.client().await.send(SAMPLE_SERVICE_SENDER, &["ann@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert!(scene.m365.exchanges().is_empty(), "no token is asked for");
    scene.assert_careful();
}

#[tokio::test]
async fn a_username_of_another_application_is_named() {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            services(m365, route);
            submission(route).username = Some("somebody-else".into());
        },
    )
    .await;
    scene.told(Reason::SmtpUsernameRejected).await;
}

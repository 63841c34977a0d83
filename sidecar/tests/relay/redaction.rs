//! What a log and a report say about people: as much as the route wants, and never what an application logs in with.

use base64::prelude::{BASE64_STANDARD, Engine};
use mailroute_m365::{Faults, Options, Rule, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::condition::Reason;
use mailroute_route::file::{ListenAuth, LogAddresses};

use crate::canary::{Program, port};
use crate::client::{Client, message};
use crate::scene::{PATIENCE, Scene, http_get, surroundings};

fn quoting(line: &str) -> Faults {
    let rules = vec![Rule::always(Stage::Rcpt, SmtpAction::Reply(line.to_owned().try_into().unwrap()))];
    Faults { submission: SubmissionFaults { rules, ..<_>::default() }, ..<_>::default() }
}

#[tokio::test]
async fn addresses_are_hidden_in_every_log_line_and_replies_keep_them() {
    let (m365, _control, mut route, files) = surroundings(Options::default()).await;
    m365.set_faults(quoting(
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound; ann.canary@fabrikam.com not found by SMTP address lookup",
    ));
    route.log_addresses = LogAddresses::Hidden;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let smtp = port(&program.line_with("\"listening\"").await["addresses"]);
    program.line_with("LoggedIn").await;
    let mut client = Client::connect(([127, 0, 0, 1], smtp).into()).await;
    let reply = client.send("noreply@contoso.com", &["ann.canary@fabrikam.com"], &message("hidden")).await;
    assert!(reply.code == 550 && reply.text().contains("ann.canary@fabrikam.com"), "{reply}");
    let line = program.line_with("\"delivery\"").await;
    assert_eq!(line["message_id"], "<hidden@contoso.com>");
    assert!(line["reply"].as_str().unwrap().contains("RecipientNotFound; *@* not found"), "{line}");
    assert_eq!((&line["sender"], &line["mailbox"]), (&"<*@*>".into(), &"*@*".into()));
    let (_, log) = program.terminate().await;
    for shown in ["ann.canary", "fabrikam.com", "noreply"] {
        assert!(!log.contains(shown), "{shown}: {log}");
    }
}

#[tokio::test]
async fn what_an_application_logs_in_with_is_forgotten() {
    const CANARY: &str = "canary-password";
    let (_m365, control, mut route, files) = surroundings(Options::default()).await;
    route.listen.auth = ListenAuth::Ignore;
    files.write_route(&route);
    let mut program = Program::start(files.arguments());
    let listening = program.line_with("\"listening\"").await;
    program.line_with("LoggedIn").await;
    let encoded = BASE64_STANDARD.encode(format!("\0app\0{CANARY}"));
    let mut client = Client::connect(([127, 0, 0, 1], port(&listening["addresses"])).into()).await;
    assert_eq!(client.command(&format!("AUTH PLAIN {CANARY}")).await.code, 501);
    assert_eq!(client.command(&format!("AUTH {CANARY} {encoded}")).await.code, 504);
    assert_eq!(client.command("AUTH LOGIN").await.text(), "VXNlcm5hbWU6");
    assert_eq!(client.command(&BASE64_STANDARD.encode("app")).await.text(), "UGFzc3dvcmQ6");
    assert_eq!(client.command(CANARY).await.code, 501);
    assert_eq!(client.command(&format!("AUTH PLAIN {encoded}")).await.code, 235);
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("logged-in")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let metrics = http_get(([127, 0, 0, 1], port(&listening["admin"])).into(), "/metrics").await;
    let mut requests = control.requests.clone();
    let told = tokio::time::timeout(PATIENCE, requests.wait_for(|all| all.contains("MailAccepted"))).await;
    let reports = told.unwrap().unwrap().clone();
    let (_, log) = program.terminate().await;
    for (place, text) in [("log", &log), ("metrics", &metrics), ("reports", &reports)] {
        for secret in [CANARY, &encoded, &encoded[..8], &BASE64_STANDARD.encode(CANARY)[..8]] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
}

#[tokio::test]
async fn the_operator_is_told_of_no_recipient() {
    let scene = Scene::start().await;
    scene.well().await;
    scene.m365.set_faults(quoting(
        "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as ann.canary@fabrikam.com",
    ));
    let reply = scene
        .client()
        .await
        .send("noreply@contoso.com", &["ann.canary@fabrikam.com"], &message("told"))
        .await;
    assert!(reply.text().contains("ann.canary"), "{reply}");
    let told = scene.told(Reason::SendAsDenied).await;
    assert!(
        told.message.contains("noreply@contoso.com not allowed to send as *@fabrikam.com"),
        "{}",
        told.message
    );
    assert!(!scene.control.requests.borrow().contains("ann.canary"));
}

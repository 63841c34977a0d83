//! The control API over HTTP.

use hyper::Method;
use mailroute_m365::{
    Message, Options, Simulator, Violation,
    directory::{SAMPLE_CLIENT_ID, SAMPLE_SUBJECT},
};
use serde_json::json;

use super::client::{Form, control, token};

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

/// Notes a message as if it had arrived.
fn arrive(simulator: &Simulator) {
    let message: Message = serde_json::from_value(json!({
        "id": 1,
        "receivedAt": "2026-11-21T10:00:00Z",
        "mailbox": "noreply@contoso.com",
        "mailFrom": "noreply@contoso.com",
        "mailParameters": [],
        "recipients": [{"address": "alice@example.com"}],
        "messageId": "<one@contoso.com>",
        "headers": [{"name": "Subject", "value": "Hello"}],
        "data": "U3ViamVjdDogSGVsbG8NCg0K",
        "token": {
            "tenant": "", "clientId": SAMPLE_CLIENT_ID, "assertionIssuer": "", "assertionSubject": SAMPLE_SUBJECT,
            "issuedAt": 0, "expiresAt": 0,
        },
        "connection": {"id": 1, "client": "", "ehlo": "", "tlsVersion": null, "sni": null},
    }))
    .unwrap();
    simulator.insert(message);
}

#[tokio::test]
async fn messages_are_read_and_forgotten() {
    let simulator = start().await;
    arrive(&simulator);
    let listed: Vec<Message> =
        serde_json::from_slice(&control(&simulator, Method::GET, "/messages", "").await.body).unwrap();
    assert_eq!(listed, simulator.messages());
    assert_eq!(listed[0].data, b"Subject: Hello\r\n\r\n");
    assert_eq!(
        control(&simulator, Method::GET, "/messages/1", "").await.json()["messageId"],
        "<one@contoso.com>"
    );
    assert_eq!(control(&simulator, Method::GET, "/messages/2", "").await.status, 404);
    assert_eq!(control(&simulator, Method::DELETE, "/messages", "").await.status, 204);
    assert!(simulator.messages().is_empty());
}

#[tokio::test]
async fn a_long_poll_answers_when_the_message_arrives() {
    let simulator = start().await;
    let (answer, ()) =
        tokio::join!(control(&simulator, Method::GET, "/messages?wait=1&timeout=60", ""), async {
            // The poll is on its way; whichever comes first, the answer holds the message.
            tokio::task::yield_now().await;
            arrive(&simulator);
        });
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
    let late = control(&simulator, Method::GET, "/messages?wait=2&timeout=0", "").await;
    assert_eq!(late.json().as_array().unwrap().len(), 1, "what is there is given when the time is over");
}

#[tokio::test]
async fn token_requests_are_listed_without_the_token() {
    let simulator = start().await;
    let issued = token(&simulator, &Form::sample(&simulator)).await.unwrap().json();
    let listed = control(&simulator, Method::GET, "/tokens?wait=1", "").await;
    assert_eq!(listed.json()[0]["assertionSubject"], SAMPLE_SUBJECT);
    assert_eq!(listed.json()[0]["outcome"], "Issued");
    assert!(!listed.text().contains(issued["access_token"].as_str().unwrap()));
    control(&simulator, Method::DELETE, "/tokens", "").await;
    assert!(simulator.exchanges().is_empty());
}

#[tokio::test]
async fn statistics_are_read_and_forgotten() {
    let simulator = start().await;
    let read = control(&simulator, Method::GET, "/statistics", "").await.json();
    assert_eq!((&read["messages"], &read["mailboxes"]), (&json!(0), &json!({})));
    let stream = tokio::net::TcpStream::connect(simulator.smtp_address()).await.unwrap();
    let counted = |office: &mailroute_m365::office::Office| (office.tally.connections == 1).then_some(());
    assert!(simulator.wait_for(std::time::Duration::from_secs(10), counted).await.is_some());
    drop(stream);
    assert_eq!(control(&simulator, Method::DELETE, "/statistics", "").await.status, 204);
    assert_eq!(simulator.statistics().tally, mailroute_m365::Tally::default());
}

#[tokio::test]
async fn the_configuration_is_read_changed_and_put_back() {
    let simulator = start().await;
    let mut config = control(&simulator, Method::GET, "/config", "").await.json();
    config["directory"]["tenants"][0]["smtpAuthDisabled"] = json!(true);
    assert_eq!(control(&simulator, Method::PUT, "/config", &config.to_string()).await.status, 204);
    assert!(simulator.directory(|directory| directory.tenants[0].smtp_auth_disabled));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_the_reason_and_the_old_one_stays() {
    let simulator = start().await;
    for (bad, reason) in [
        ("{", "EOF"),
        (r#"{"directory": {"tenants": []}, "limit": {}}"#, "unknown field `limit`"),
        (r#"{"directory": {"tenants": []}, "tokens": {"lifetimeSeconds": 0}}"#, "lifetimeSeconds"),
    ] {
        let answer = control(&simulator, Method::PUT, "/config", bad).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(reason), "{}", answer.text());
    }
    assert_eq!(simulator.directory(|directory| directory.tenants.len()), 1);
}

#[tokio::test]
async fn faults_are_put_read_and_cleared() {
    let simulator = start().await;
    let faults = r#"{"login": {"rules": [{"action": {"tooManyRequests": 60}, "times": 1}]}}"#;
    assert_eq!(control(&simulator, Method::PUT, "/faults", faults).await.status, 204);
    let read = control(&simulator, Method::GET, "/faults", "").await.json();
    assert_eq!(read["login"]["rules"][0]["action"]["tooManyRequests"], 60);
    assert_eq!(token(&simulator, &Form::sample(&simulator)).await.unwrap().status, 429);
    control(&simulator, Method::PUT, "/faults", faults).await;
    assert_eq!(control(&simulator, Method::DELETE, "/faults", "").await.status, 204);
    assert_eq!(token(&simulator, &Form::sample(&simulator)).await.unwrap().status, 200);
    assert_eq!(control(&simulator, Method::PUT, "/faults", r#"{"smtp": {}}"#).await.status, 400);
}

#[tokio::test]
async fn the_stand_in_issuer_signs_and_rotates() {
    let simulator = start().await;
    let path = format!("/issuer/assertion?subject={SAMPLE_SUBJECT}&seconds=60");
    let assertion = control(&simulator, Method::GET, &path, "").await.text().to_owned();
    let form = Form { assertion, ..Form::sample(&simulator) };
    assert_eq!(token(&simulator, &form).await.unwrap().status, 200);
    control(&simulator, Method::POST, "/issuer/rotate", "").await;
    assert_eq!(token(&simulator, &form).await.unwrap().status, 401);
}

#[tokio::test]
async fn the_rest_is_there() {
    let simulator = start().await;
    assert_eq!(control(&simulator, Method::GET, "/ca.pem", "").await.text(), simulator.ca_pem());
    assert_eq!(control(&simulator, Method::GET, "/livez", "").await.status, 200);
    let violations: Vec<Violation> =
        serde_json::from_slice(&control(&simulator, Method::GET, "/violations", "").await.body).unwrap();
    assert!(violations.is_empty());
    assert_eq!(control(&simulator, Method::DELETE, "/violations", "").await.status, 204);
}

#[tokio::test]
async fn what_was_put_and_the_authority_outlive_a_restart_until_it_is_deleted() {
    let state = tempfile::tempdir().unwrap();
    let start = async || {
        let options = Options { state: Some(state.path().to_owned()), ..Options::default() };
        Simulator::start(options).await.unwrap()
    };
    let is_disabled = |simulator: &Simulator| {
        simulator.read(|office| office.config.directory.tenants[0].smtp_auth_disabled)
    };
    let first = start().await;
    let mut config = control(&first, Method::GET, "/config", "").await.json();
    config["directory"]["tenants"][0]["smtpAuthDisabled"] = json!(true);
    assert_eq!(control(&first, Method::PUT, "/config", &config.to_string()).await.status, 204);
    let authority = first.ca_pem().to_owned();
    drop(first);

    let second = start().await;
    assert!(is_disabled(&second), "PUT /config is lost");
    assert_eq!(second.ca_pem(), authority);
    assert_eq!(control(&second, Method::DELETE, "/config", "").await.status, 204);
    assert!(!is_disabled(&second), "DELETE /config brings back what the program was started with");
    drop(second);
    assert!(!is_disabled(&start().await));
}

#[tokio::test]
async fn a_configuration_that_cannot_be_stored_is_not_taken() {
    let state = tempfile::tempdir().unwrap();
    let options = Options { state: Some(state.path().to_owned()), ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let mut config = control(&simulator, Method::GET, "/config", "").await.json();
    config["directory"]["tenants"][0]["smtpAuthDisabled"] = json!(true);
    drop(state);
    assert_eq!(control(&simulator, Method::PUT, "/config", &config.to_string()).await.status, 500);
    assert!(!simulator.read(|office| office.config.directory.tenants[0].smtp_auth_disabled));
}

#[tokio::test]
async fn every_recipe_of_the_readme_is_taken() {
    let simulator = start().await;
    let (_, recipes) = include_str!("../../README.md").split_once("## Recipes\n").unwrap();
    let (recipes, _) = recipes.split_once("\n## ").unwrap();
    let faults: Vec<_> = recipes.lines().filter_map(|line| line.split_once("/faults -d '")).collect();
    assert_eq!(faults.len(), 5);
    for (_, rest) in faults {
        let document = rest.strip_suffix('\'').unwrap();
        assert_eq!(control(&simulator, Method::PUT, "/faults", document).await.status, 204, "{document}");
        assert_ne!(simulator.read(|office| office.faults.clone()), mailroute_m365::Faults::default());
    }
    let config = control(&simulator, Method::GET, "/config", "").await.json();
    let limits: Vec<_> =
        recipes.split(".limits.").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(limits.len(), 3);
    for limit in limits {
        assert!(config["limits"][limit].is_number(), "there is no limits.{limit}");
    }
}

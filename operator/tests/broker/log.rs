//! The lines that grants and refusals leave, and what is in none.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use mailroute_m365::LoginAction;
use mailroute_operator::logging::{self, Format};
use serde_json::Value;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::stage::{Stage, WEB, jwt, until};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Everything that this thread logs, at every level, in the operator's format.
    fn start() -> (Self, DefaultGuard) {
        let captured = Self::default();
        let to = captured.clone();
        let subscriber = logging::subscriber(Format::Json, Level::TRACE, move || to.clone());
        (captured, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn audit(&self) -> Vec<Value> {
        let lines = self.text();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let audit =
            |line: &Value| matches!(line["message"].as_str(), Some("token granted" | "token refused"));
        lines.filter(audit).collect()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_grant_and_each_refusal_to_a_pod_is_one_line() {
    let (captured, _guard) = Captured::start();
    let stage = Stage::start().await;
    stage.ask(WEB, "notifications").await.token();
    stage.ask(WEB, "reports\n\"forged\": 1").await;
    stage.ask("nobody", "notifications").await;
    let lines = captured.audit();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let grant = &lines[0];
    assert_eq!(
        [text(grant, "message"), text(grant, "namespace"), text(grant, "pod"), text(grant, "uid")],
        ["token granted", "shop", "web-1", "uid-1"]
    );
    assert_eq!(text(grant, "route"), "notifications");
    let expires: jiff::Timestamp = text(grant, "expires").parse().unwrap();
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    assert_eq!([text(&lines[1], "message"), text(&lines[1], "outcome")], ["token refused", "forbidden"]);
    // What a pod writes there stays within its field.
    assert_eq!(
        (text(&lines[1], "route").as_str(), lines[1].get("forged")),
        (
            "reports
\"forged\": 1",
            None
        )
    );
}

#[tokio::test]
async fn no_line_holds_a_token_or_an_assertion() {
    let (captured, _guard) = Captured::start();
    let stage = Stage::start().await;
    let assertion = stage.assertion();
    // One that answers with an error, one with something else, and then one that does its work.
    stage.entra(LoginAction::Aadsts(700_024), Some(1));
    stage.ask(WEB, "notifications").await;
    stage.entra(LoginAction::BadGateway, Some(1));
    let token = until(&stage, |answer| answer.status == 200).await.token().access_token;
    let text = captured.text();
    assert!(text.contains("token granted") && text.contains("AADSTS700024"), "it was looked at: {text}");
    for secret in [&token, &assertion, &jwt(WEB)] {
        // Also its parts: a JWT is three.
        for part in secret.split('.').filter(|part| part.len() > 12) {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
}

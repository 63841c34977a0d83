//! `kubectl mailroute status` as a terminal shows it: what the program itself prints of some routes, colours included.

use std::fs;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::browser::Browser;
use e2e::tools::terminal_font;
use jiff::Timestamp;
use kube::api::DynamicObject;
use mailroute_cli::status::print::{Shown, list};
use mailroute_cli::status::view::RouteView;
use mailroute_cli::terminal::Style;
use serde_json::{Value, json};

/// Columns of the terminal.
const WIDTH: usize = 124;

const CSS: &str = "html { background: #12161c; } body { margin: 0; display: inline-block; padding: 18px 22px; \
    color: #d8dee9; } pre { margin: 0; font: 14px/1.45 terminal; } .c1 { font-weight: bold; color: #fff; } .c2 { color: #8a94a3; } \
    .c31 { color: #ff7b72; } .c32 { color: #7ee787; } .c33 { color: #f2cc60; }";

/// The picture.
pub async fn picture() -> Result<Vec<u8>> {
    let now: Timestamp = "2027-01-15T09:00:00Z".parse()?;
    let routes = routes().into_iter().map(serde_json::from_value::<DynamicObject>);
    let views =
        routes.map(|route| route.map(|route| RouteView::of(&route))).collect::<Result<Vec<_>, _>>()?;
    let text = list(&views, Shown::default(), Style { colour: true, width: Some(WIDTH) }, now);
    ensure!(text.contains("\x1b[31m"), "nothing is red: {text}");
    let html = format!(
        "<!doctype html><meta charset=\"utf-8\"><style>{}{CSS}</style><pre><span class=\"c2\">$</span> kubectl mailroute status\n{}</pre>",
        fonts()?,
        as_html(&text)
    );
    let (browser, folder) = (Browser::start().await?, tempfile::tempdir()?);
    let file = folder.path().join("status.html");
    fs::write(&file, html)?;
    let page = browser.open(&format!("file://{}", file.display())).await?;
    page.resize(1600, 800).await?;
    let (width, height): (f64, f64) = page
        .value("(({ width, height }) => [Math.ceil(width), Math.ceil(height)])(document.body.getBoundingClientRect())")
        .await?;
    page.resize(width as u32, height as u32).await?;
    page.drawn().await?;
    page.picture().await
}

/// The font of the terminal, in the page itself.
fn fonts() -> Result<String> {
    let folder = terminal_font()?;
    let face = |(name, weight): (&str, &str)| -> Result<String> {
        let font = STANDARD.encode(fs::read(folder.join(name))?);
        Ok(format!(
            "@font-face {{ font-family: terminal; font-weight: {weight}; src: url(data:font/ttf;base64,{font}); }} "
        ))
    };
    [("DejaVuSansMono.ttf", "normal"), ("DejaVuSansMono-Bold.ttf", "bold")].map(face).into_iter().collect()
}

/// What a terminal makes of the colours that the program uses.
fn as_html(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let mut parts = escaped.split("\x1b[");
    let mut html = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').unwrap_or(("0", part));
        let tag = if code == "0" { "</span>".to_owned() } else { format!("<span class=\"c{code}\">") };
        html.push_str(&tag);
        html.push_str(rest);
    }
    html
}

/// Routes of a namespace, one of them with a mailbox that Exchange lets nobody log in to.
fn routes() -> [Value; 3] {
    let refused = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. \
                   Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false";
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2027-01-15T08:40:00Z"})
    };
    let well =
        || json!([condition("Accepted", "True", "Accepted", ""), condition("Ready", "True", "Ready", "")]);
    let route = |name: &str, method: &str, since: &str, status: Value| {
        json!({"apiVersion": "mailroute.dev/v1alpha1", "kind": "MailRoute", "spec": {"method": method},
            "metadata": {"name": name, "namespace": "shop", "generation": 1, "creationTimestamp": since}, "status": status})
    };
    [
        route(
            "invoices",
            "SmtpRelay",
            "2027-01-03T08:00:00Z",
            json!({
            "observedGeneration": 1, "conditions": well(), "sidecars": {"injected": 2, "ready": 2, "converged": 2},
            "queue": {"messages": 0, "deadLetters": 0}}),
        ),
        route(
            "newsletter",
            "Graph",
            "2026-12-20T08:00:00Z",
            json!({
            "observedGeneration": 1, "conditions": well(), "sidecars": {"injected": 6, "ready": 6, "converged": 6},
            "queue": {"messages": 31, "oldestSeconds": 40, "deadLetters": 0},
            "usage": {"messagesLastMinute": 29, "recipientsLast24h": 6120}}),
        ),
        route(
            "notifications",
            "ClientSubmission",
            "2027-01-12T08:00:00Z",
            json!({
            "observedGeneration": 1, "sidecars": {"injected": 4, "ready": 3, "converged": 4},
            "conditions": [condition("Accepted", "True", "Accepted", ""),
                condition("Authenticated", "False", "SmtpAuthDisabledMailbox", refused),
                condition("Ready", "False", "SmtpAuthDisabledMailbox", refused)],
            "queue": {"messages": 12, "oldestSeconds": 1200, "deadLetters": 2},
            "usage": {"messagesLastMinute": 14, "recipientsLast24h": 2210}}),
        ),
    ]
}

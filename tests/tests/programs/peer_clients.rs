//! Real SMTP clients in seven languages send every kind of message; octets and envelope arrive unchanged.
//!
//! What a client library makes of a message is its own affair: each is given finished octets, so that a difference is the
//! sidecar's.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::alone::Alone;
use e2e::peers;
use mailroute_m365::{Message, Options};

const SENDER: &str = "noreply@contoso.com";

/// One message: a name, its recipients, its octets.
struct Case {
    name: &'static str,
    recipients: Vec<String>,
    octets: String,
}

fn cases() -> Vec<Case> {
    let case = |name, recipients: &[&str], more_headers: &str, body: &str| {
        let to = recipients.iter().map(|address| (*address).to_owned()).collect();
        Case { name, recipients: to, octets: message(name, more_headers, body) }
    };
    let many: Vec<String> = (0..120).map(|n| format!("person-{n}@partner-{}.example", n % 3)).collect();
    let mime =
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    vec![
        case(
            "plain",
            &["ada@contoso.com"],
            "",
            "Hello,\r\n\r\n.\r\n..\r\n.one dot first\r\n\r\nlast line\r\n",
        ),
        case("utf-8", &["ada@contoso.com"], mime, "Grüße aus Köln, žluťoučký kůň, 日本語 ✉\r\n"),
        Case { name: "attachment", recipients: vec!["ada@contoso.com".into()], octets: with_attachment() },
        Case {
            name: "many recipients",
            octets: message("many recipients", "", "To all of you.\r\n"),
            recipients: many,
        },
        case(
            "bcc",
            &["ada@contoso.com", "eve@contoso.com"],
            "Cc: nobody@contoso.com\r\n",
            "Eve reads this too.\r\n",
        ),
        case("empty body", &["ada@contoso.com"], "", ""),
    ]
}

fn message(name: &str, more_headers: &str, body: &str) -> String {
    format!(
        "From: Shop <{SENDER}>\r\nTo: Ada <ada@contoso.com>\r\nSubject: {name}\r\n\
         Date: Sun, 22 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{}@shop.contoso.com>\r\n{more_headers}\r\n{body}",
        name.replace(' ', "-")
    )
}

/// Multi-part, with 10 MB that do not repeat.
fn with_attachment() -> String {
    let mut state = 1_u64;
    let octets: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(10_000_000)
    .collect();
    let encoded = STANDARD.encode(octets);
    let lines = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy);
    let mut body = "--part\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n--part\r\n\
        Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"invoice.pdf\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
        .to_owned();
    for line in lines {
        let _ = write!(body, "{line}\r\n");
    }
    body.push_str("--part--\r\n");
    message("attachment", "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n", &body)
}

/// Sends every case through `program` and compares what arrives.
async fn sends_all_unchanged(program: &[&str]) -> Result<()> {
    let mut options = Options::default();
    options.config.limits.messages_per_minute = 10_000;
    let alone = Alone::start(options, |_| {}).await?;
    for (number, case) in cases().iter().enumerate() {
        let arrived = send(&alone, program, case).await.with_context(|| case.name.to_owned())?;
        ensure!(arrived.len() == number + 1, "{}: {} messages arrived", case.name, arrived.len());
        compare(case, &arrived[number]).with_context(|| case.name.to_owned())?;
    }
    ensure!(alone.microsoft.violations().is_empty(), "{:?}", alone.microsoft.violations());
    alone.stop().await;
    Ok(())
}

/// Runs the client. What it was told 250 for has arrived when it ends, so there is nothing to wait for.
async fn send(alone: &Alone, program: &[&str], case: &Case) -> Result<Vec<Message>> {
    let work = tempfile::tempdir_in(alone.folder())?;
    std::fs::write(work.path().join("message.eml"), &case.octets)?;
    let (port, to) = (alone.smtp.port().to_string(), case.recipients.join(","));
    let arguments = ["localhost", &port, SENDER, &to, "/work/message.eml"];
    peers::run(work.path(), &[program, &arguments].concat()).await?;
    Ok(alone.microsoft.messages())
}

fn compare(case: &Case, message: &Message) -> Result<()> {
    ensure!(message.mail_from == SENDER, "MAIL FROM {}", message.mail_from);
    // A client that is a relay itself orders them by domain.
    let (mut sent, mut recipients) = (case.recipients.clone(), message.recipient_addresses());
    sent.sort();
    recipients.sort();
    ensure!(recipients == sent, "RCPT TO {recipients:?}");
    let arrived = without_trace(std::str::from_utf8(&message.data)?);
    if arrived == case.octets {
        return Ok(());
    }
    let same = arrived.bytes().zip(case.octets.bytes()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.bytes().skip(same.saturating_sub(40)).take(120).collect::<Vec<_>>();
    let shown = |text: &str| String::from_utf8_lossy(&around(text)).into_owned();
    anyhow::bail!("differs at octet {same}:\nsent    {:?}\narrived {:?}", shown(&case.octets), shown(arrived))
}

/// What follows the trace fields: the sidecar's, and below it that of a client that is a relay itself.
fn without_trace(mut data: &str) -> &str {
    while data.starts_with("Received: ") {
        let mut end = data.find("\r\n").map_or(data.len(), |at| at + 2);
        while data[end..].starts_with([' ', '\t']) {
            end += data[end..].find("\r\n").map_or(data.len() - end, |at| at + 2);
        }
        data = &data[end..];
    }
    data
}

#[tokio::test]
async fn python_smtplib() -> Result<()> {
    sends_all_unchanged(&["python3", "/peers/clients/python_smtplib.py"]).await
}

#[tokio::test]
async fn nodemailer() -> Result<()> {
    sends_all_unchanged(&["node", "/peers/clients/nodemailer.js"]).await
}

#[tokio::test]
async fn go_net_smtp() -> Result<()> {
    sends_all_unchanged(&["send-go"]).await
}

#[tokio::test]
async fn jakarta_mail() -> Result<()> {
    let path = "/usr/share/java/jakarta-mail.jar:/usr/share/java/jakarta-activation.jar";
    let java = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";
    sends_all_unchanged(&[java, "-cp", path, "/peers/clients/JakartaMail.java"]).await
}

#[tokio::test]
async fn php_phpmailer() -> Result<()> {
    sends_all_unchanged(&["php8.2", "/peers/clients/phpmailer.php"]).await
}

#[tokio::test]
async fn ruby_net_smtp() -> Result<()> {
    sends_all_unchanged(&["ruby", "/peers/clients/net_smtp.rb"]).await
}

#[tokio::test]
async fn curl() -> Result<()> {
    sends_all_unchanged(&["/peers/clients/curl.sh"]).await
}

#[tokio::test]
async fn swaks() -> Result<()> {
    sends_all_unchanged(&["/peers/clients/swaks.sh"]).await
}

#[tokio::test]
async fn msmtp() -> Result<()> {
    sends_all_unchanged(&["/peers/clients/msmtp.sh"]).await
}

#[tokio::test]
async fn postfix_as_a_client() -> Result<()> {
    sends_all_unchanged(&["/peers/clients/postfix.sh"]).await
}

#[test]
fn every_client_is_sent_through() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/clients");
    let source = include_str!("peer_clients.rs");
    for entry in std::fs::read_dir(here).expect("the clients are there") {
        let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
        assert!(source.contains(&format!("clients/{name}")) || name == "go", "{name} is not used");
    }
}

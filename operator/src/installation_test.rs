//! `mailroute-operator test`: what the chart's test pods run. Without a tenant: nothing is sent to Microsoft 365.
//!
//! * `operator`: the webhook and the control service answer at the operator's Service, with a certificate of the installation's CA.
//! * `route`: the pod was given a sidecar, which takes a sender and a recipient by the route's rules. The message is taken back before
//!   it has any content.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use mailroute_route::control::REPORT_PATH;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::pki::anchors::Anchors;
use crate::webhook::server::PATH;

/// Time for each answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Time for all attempts at one step: what has just been installed may need a moment.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest line that is read, bytes.
const LONGEST_LINE: u64 = 4096;
/// Lines of one reply, at most.
const MOST_LINES: usize = 100;

/// What to test.
#[derive(Clone, Debug, Subcommand)]
pub enum Test {
    /// Connect to the webhook and to the control service as API servers and sidecars do.
    Operator(TestOperator),
    /// Speak SMTP with the sidecar of this pod, up to the recipient.
    Route(TestRoute),
}

/// Flags of `test operator`.
#[derive(Clone, Debug, Args)]
pub struct TestOperator {
    /// DNS name of the operator's Service, as in its certificate.
    #[arg(long, value_name = "HOST")]
    pub service: String,
    /// CA bundle of its certificate.
    #[arg(long, value_name = "FILE")]
    pub ca_file: PathBuf,
    /// Port of the webhook.
    #[arg(long, default_value_t = 443)]
    pub webhook_port: u16,
    /// Port of the control service.
    #[arg(long, default_value_t = 8444)]
    pub control_port: u16,
}

/// Flags of `test route`.
#[derive(Clone, Debug, Args)]
pub struct TestRoute {
    /// Port of the sidecar.
    #[arg(long, default_value_t = 25)]
    pub port: u16,
    /// Sender that the route allows.
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// Recipient; nothing is sent there.
    #[arg(long, value_name = "ADDRESS")]
    pub to: String,
}

/// Runs the test, and writes a line about each step.
///
/// # Errors
/// At the first step that fails.
pub async fn run(test: &Test, output: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    match test {
        Test::Operator(flags) => operator(flags, output).await,
        Test::Route(flags) => route(flags, output).await,
    }
}

async fn operator(flags: &TestOperator, output: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let both = [("webhook", flags.webhook_port, PATH), ("control service", flags.control_port, REPORT_PATH)];
    for (what, port, path) in both {
        let place = format!("{what} at {}:{port}", flags.service);
        let status = patiently(async || answer(flags, port, path).await).await.context(place.clone())?;
        writeln!(output, "{place}: answers ({status}), with a certificate of the installation's CA")?;
    }
    Ok(())
}

/// The status line of an answer, over TLS that is verified as by an API server. Anything that the service answers shows that it is there.
async fn answer(flags: &TestOperator, port: u16, path: &str) -> anyhow::Result<String> {
    // Read each time: it may be replaced.
    let pem = std::fs::read_to_string(&flags.ca_file).context("cannot read the CA bundle")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(Anchors::from_pem(&pem).iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(flags.service.clone())?;
    let stream = TcpStream::connect((flags.service.as_str(), port)).await?;
    let mut session = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", flags.service);
    session.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(session.take(LONGEST_LINE)).read_line(&mut line).await?;
    let status = line.trim_end();
    ensure!(status.starts_with("HTTP/1.1 "), "it answers {status:?}");
    Ok(status.to_owned())
}

async fn route(flags: &TestRoute, output: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let stream = patiently(async || Ok(TcpStream::connect(("localhost", flags.port)).await?)).await;
    let stream = stream.with_context(|| {
        format!(
            "nothing listens on localhost:{}, so the pod has no sidecar, or it does not start",
            flags.port
        )
    })?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let commands = [
        String::new(),
        "EHLO localhost".to_owned(),
        format!("MAIL FROM:<{}>", flags.from),
        format!("RCPT TO:<{}>", flags.to),
        "RSET".to_owned(),
        "QUIT".to_owned(),
    ];
    for command in commands {
        let what = if command.is_empty() { "greeting" } else { &command };
        if !command.is_empty() {
            write.write_all(format!("{command}\r\n").as_bytes()).await?;
        }
        let reply =
            timeout(ANSWER, reply(&mut read)).await.with_context(|| format!("no reply to {what}"))??;
        writeln!(output, "{what}: {reply}")?;
        ensure!(reply.starts_with('2'), "{what} is answered {reply}");
    }
    writeln!(output, "the route's sidecar takes mail; nothing was sent")?;
    Ok(())
}

/// The last line of a reply; those before it have a hyphen behind the code (RFC 5321, section 4.2.1).
async fn reply(read: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> anyhow::Result<String> {
    for _ in 0..MOST_LINES {
        let mut line = String::new();
        (&mut *read).take(LONGEST_LINE).read_line(&mut line).await?;
        ensure!(line.ends_with('\n'), "the connection was closed");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
    bail!("the reply does not end")
}

/// The first good outcome of several attempts, or the last bad one.
async fn patiently<T>(mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        match timeout(ANSWER, attempt()).await.unwrap_or_else(|_| late()) {
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => sleep(PAUSE).await,
            Ok(outcome) => return Ok(outcome),
        }
    }
}

fn late<T>() -> anyhow::Result<T> {
    bail!("no answer within {} seconds", ANSWER.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that says what it is told to, line after line, whatever it hears.
    async fn server(replies: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            for reply in replies {
                write.write_all(reply.as_bytes()).await.unwrap();
                let _ = lines.next_line().await;
            }
        });
        port
    }

    async fn tested(replies: &'static [&'static str]) -> (anyhow::Result<()>, String) {
        let port = server(replies).await;
        let flags = TestRoute { port, from: "a@contoso.com".into(), to: "b@contoso.com".into() };
        let mut output = Vec::new();
        let outcome = run(&Test::Route(flags), &mut output).await;
        (outcome, String::from_utf8(output).unwrap())
    }

    #[tokio::test]
    async fn a_sidecar_that_takes_sender_and_recipient_passes() {
        let (outcome, told) = tested(&[
            "220 ready\r\n",
            "250-localhost\r\n250-SIZE 1\r\n250 8BITMIME\r\n",
            "250 2.1.0 Ok\r\n",
            "250 2.1.5 Ok\r\n",
            "250 2.0.0 Ok\r\n",
            "221 2.0.0 Bye\r\n",
        ])
        .await;
        outcome.unwrap();
        assert!(
            told.contains("EHLO localhost: 250 8BITMIME") && told.ends_with("nothing was sent\n"),
            "{told}"
        );
        assert!(!told.contains("DATA"), "{told}");
    }

    /// A service with a certificate for `localhost`, and the file of its CA.
    async fn service(folder: &std::path::Path, name: &str) -> (u16, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let file = folder.join("ca.crt");
        std::fs::write(&file, made.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(session) = acceptor.accept(stream).await else { continue };
                let (read, mut write) = tokio::io::split(session);
                let _ = BufReader::new(read).lines().next_line().await;
                let _ = write.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await;
            }
        });
        (port, file)
    }

    async fn operator_tested(name: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let (port, ca_file) = service(folder.path(), name).await;
        let flags =
            TestOperator { service: "localhost".into(), ca_file, webhook_port: port, control_port: port };
        answer(&flags, port, PATH).await
    }

    #[tokio::test]
    async fn any_answer_under_the_installations_ca_passes_and_another_certificate_does_not() {
        assert_eq!(operator_tested("localhost").await.unwrap(), "HTTP/1.1 405 Method Not Allowed");
        let error = operator_tested("other.example.com").await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_and_a_connection_that_ends_fail_with_what_was_said() {
        let refusing = &["220 ready\r\n", "250 localhost\r\n", "550 5.7.1 SendAsDenied\r\n"];
        let error = tested(refusing).await.0.unwrap_err().to_string();
        assert_eq!(error, "MAIL FROM:<a@contoso.com> is answered 550 5.7.1 SendAsDenied");
        let error = tested(&["220 ready\r\n"]).await.0.unwrap_err().to_string();
        assert!(error.contains("closed"), "{error}");
    }
}

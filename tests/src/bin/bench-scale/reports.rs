//! Reports, as sidecars make them: each over a connection of its own, from the pod's own address, at a steady rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mailroute_operator::pki::anchors::Anchors;
use mailroute_route::condition::Reason;
use mailroute_route::control::{Claim, Observation, Queue, REPORT_PATH, Report, Usage};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;

use crate::crowd::Reporter;

/// Connections at a time.
const AT_ONCE: usize = 256;

/// Longest exchange.
const PATIENCE: Duration = Duration::from_secs(10);

/// What sidecars send, and to whom.
#[derive(Clone)]
pub struct Reporting {
    reporters: Arc<Vec<Reporter>>,
    tls: TlsConnector,
    name: ServerName<'static>,
}

/// What became of reports.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// How many were taken.
    pub accepted: usize,
    /// How many were not.
    pub failed: usize,
    /// From when a report was due to its answer.
    pub took: Vec<Duration>,
}

impl Reporting {
    /// Of these pods, which trust this bundle for a Service of this name.
    ///
    /// # Errors
    /// When the TLS library refuses that.
    pub fn new(reporters: Vec<Reporter>, bundle: &str, name: String) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(Anchors::from_pem(bundle).iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // Each sidecar is a program of its own.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            reporters: Arc::new(reporters),
            tls: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(name)?,
        })
    }

    /// Reports at this rate for so long, each pod in its turn.
    pub async fn send(&self, control: SocketAddr, rate: f64, length: Duration, first: usize) -> Sent {
        let mut moments = interval(Duration::from_secs_f64(1.0 / rate));
        moments.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut sending, mut sent) = (JoinSet::new(), Sent::default());
        for number in first..first + (rate * length.as_secs_f64()) as usize {
            let due = moments.tick().await;
            while sending.len() >= AT_ONCE
                && let Some(done) = sending.join_next().await
            {
                sent.add(done.unwrap_or(None));
            }
            let this = self.clone();
            sending.spawn(async move {
                let code = this.report(control, number % this.reporters.len()).await;
                (code.ok()? == 200).then(|| Instant::now().duration_since(due))
            });
            while let Some(done) = sending.try_join_next() {
                sent.add(done.unwrap_or(None));
            }
        }
        while let Some(done) = sending.join_next().await {
            sent.add(done.unwrap_or(None));
        }
        sent
    }

    /// One report of the pod of this number; the status of the answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn report(&self, control: SocketAddr, number: usize) -> Result<u16> {
        let reporter = &self.reporters[number];
        let body = serde_json::to_string(&report(reporter))?;
        let request = format!(
            "POST {REPORT_PATH} HTTP/1.1\r\nhost: operator\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            reporter.token,
            body.len()
        );
        let answer = timeout(PATIENCE, async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((reporter.address, 0).into())?;
            let stream = socket.connect(control).await?;
            let mut stream = self.tls.connect(self.name.clone(), stream).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            // How the connection ends matters to nobody.
            let _ = stream.read_to_end(&mut answer).await;
            anyhow::Ok(answer)
        });
        let answer = answer.await??;
        let code = answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
        Ok(code.context("no answer")?.parse()?)
    }
}

impl Sent {
    fn add(&mut self, took: Option<Duration>) {
        match took {
            Some(took) => {
                self.accepted += 1;
                self.took.push(took);
            }
            None => self.failed += 1,
        }
    }
}

/// What a sidecar says that sends now and then, and that is well.
fn report(reporter: &Reporter) -> Report {
    let now = jiff::Timestamp::now();
    let met = |reason: Reason, message: &str| Observation {
        condition: reason.condition(),
        holds: reason.holds(),
        reason,
        message: message.to_owned(),
        at: now.as_second(),
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let busy = if reporter.is_busy { seconds } else { 0 };
    let usage = Usage { messages_last_minute: busy % 30, recipients_last_24h: 100 + busy % 10_000 };
    Report {
        route: reporter.route.clone(),
        generation: 1,
        sidecar_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_error: None,
        observations: vec![
            met(Reason::TokenAcquired, "Entra issued an access token for the application of the route."),
            met(
                Reason::Connected,
                "smtp.office365.com:587 answered over TLS with a certificate for its name.",
            ),
            met(Reason::LoggedIn, &format!("Exchange accepted the log-in as {}.", reporter.mailbox)),
            met(Reason::MailAccepted, "Exchange took the last message with its sender."),
        ],
        queue: Queue::default(),
        usage,
        egress: Some([203, 0, 113, 7].into()),
        left: vec![],
        gateway_error: None,
        claim: Some(Claim {
            instance: 1_760_000_000_000,
            sequence: u64::try_from(now.as_millisecond()).unwrap_or_default(),
            mailbox: reporter.mailbox.clone(),
            ..Claim::default()
        }),
        mailboxes: vec![],
    }
}

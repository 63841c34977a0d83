//! Sidecars that share one mailbox: real ones, in this process, with the operator's real control service, against the simulator's
//! strict counters. Minutes are short.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use axum::routing::post;
use axum::{Json, Router};
use clap::Parser;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{Store, store};
use kube::runtime::watcher::Event;
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT, SAMPLE_TENANT};
use mailroute_m365::{Options, Simulator};
use mailroute_operator::budget::mailboxes::Key;
use mailroute_operator::budget::record::Record;
use mailroute_operator::budget::terms::Terms;
use mailroute_operator::control::authenticate::Authenticator;
use mailroute_operator::control::books::{Books, Error, Page};
use mailroute_operator::control::leases::Leases;
use mailroute_operator::control::rate::RateLimit;
use mailroute_operator::control::server::{self, Control};
use mailroute_operator::crd::MailRoute;
use mailroute_operator::lease::Leadership;
use mailroute_operator::metrics::Metrics;
use mailroute_operator::pki::{self, TlsListener};
use mailroute_route::file::{ControlService, DeliveryMode};
use mailroute_sidecar::app::{App, Timing};
use mailroute_sidecar::args::Cli;
use mailroute_sidecar::budget::Spans;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::route::to_simulator;

/// Microsoft's minute.
const MINUTE: Duration = Duration::from_secs(6);

const SIDECARS: usize = 20;

/// Books in memory, which outlive a leader.
#[derive(Default)]
struct Shelf {
    pages: Mutex<HashMap<Key, String>>,
    writes: Mutex<u32>,
}

#[async_trait]
impl Books for Shelf {
    async fn read(&self, key: &Key) -> Result<Page, Error> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let record = pages.get(key).and_then(|text| Record::parse(text));
        Ok(record.map_or(Page::Blank, |record| Page::Written(Box::new(record))))
    }

    async fn write(&self, key: &Key, record: &Record) -> Result<(), Error> {
        *self.writes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), record.print());
        Ok(())
    }
}

/// The operator's control service.
struct Operator {
    address: SocketAddr,
    ca_pem: String,
    key: Arc<rustls::sign::CertifiedKey>,
    shelf: Arc<Shelf>,
    service: JoinHandle<()>,
}

impl Operator {
    async fn start() -> Result<Self> {
        let (ca_pem, key) = identity()?;
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let shelf = Arc::<Shelf>::default();
        let service = serve(address, &key, &shelf).await?;
        Ok(Self { address, ca_pem, key, shelf, service })
    }

    /// Another leader, who knows what is written down and nothing else, after a time without one.
    async fn replaced(&mut self, after: Duration) -> Result<()> {
        self.service.abort();
        tokio::time::sleep(after).await;
        self.service = serve(self.address, &self.key, &self.shelf).await?;
        Ok(())
    }
}

#[derive(Debug)]
struct One(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for One {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A CA, and the certificate of `localhost` under it.
fn identity() -> Result<(String, Arc<rustls::sign::CertifiedKey>)> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok((ca_pem, Arc::new(rustls::sign::CertifiedKey::new(vec![leaf.der().clone()], signing))))
}

async fn serve(
    address: SocketAddr,
    key: &Arc<rustls::sign::CertifiedKey>,
    shelf: &Arc<Shelf>,
) -> Result<JoinHandle<()>> {
    let terms = Terms { minute: MINUTE, ..Terms::default() };
    let leadership = watch::Sender::new(Leadership { leading: true, leader: None });
    let control = Control {
        authenticator: Arc::new(Authenticator::new(api_server().await?)),
        leadership: leadership.subscribe(),
        pods: filled((0..SIDECARS).map(pod)),
        reports: Arc::default(),
        triggers: Default::default(),
        metrics: Metrics::new()?,
        rate: Mutex::new(RateLimit::new(20, Duration::from_millis(5))),
        routes: filled([mail_route()]),
        leases: Arc::new(Leases::new(terms, Arc::clone(shelf) as _)),
    };
    let config = pki::tls::server_config(Arc::new(One(Arc::clone(key))))?;
    let listener = TlsListener::bind(address, config, pki::Limits::default()).await?;
    Ok(tokio::spawn(async move {
        // Lives as long as the service.
        let _leadership = leadership;
        let _ = axum::serve(listener, server::router(Arc::new(control))).await;
    }))
}

fn filled<K>(objects: impl IntoIterator<Item = K>) -> Store<K>
where
    K: kube::runtime::reflector::Lookup + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone + Default,
{
    let (reader, mut writer) = store();
    writer.apply_watcher_event(&Event::Init);
    objects.into_iter().for_each(|object| writer.apply_watcher_event(&Event::InitApply(object)));
    writer.apply_watcher_event(&Event::InitDone);
    reader
}

fn pod(number: usize) -> Pod {
    serde_json::from_value(json!({"metadata": {
        "name": format!("pod-{number}"), "namespace": "shop", "uid": format!("uid-{number}"),
        "labels": {"mailroute.dev/route": "notifications"},
    }}))
    .expect("a pod")
}

fn mail_route() -> MailRoute {
    serde_json::from_value(json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 1},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {"id": SAMPLE_TENANT},
            "clientSubmission": {
                "mailbox": SAMPLE_MAILBOX,
                "credential": {"type": "WorkloadIdentity", "clientId": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9"},
            },
        },
    }))
    .expect("a route")
}

/// In the API server's place: the token of `pod-7` is `7`.
async fn api_server() -> Result<kube::Client> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let review = async |Json(mut review): Json<Value>| {
        let number = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
        review["status"] = json!({"authenticated": true, "audiences": ["mailroute.dev"], "user": {
            "username": "system:serviceaccount:shop:default",
            "extra": {
                "authentication.kubernetes.io/pod-name": [format!("pod-{number}")],
                "authentication.kubernetes.io/pod-uid": [format!("uid-{number}")],
            },
        }});
        Json(review)
    };
    let api = Router::new().route("/apis/authentication.k8s.io/v1/tokenreviews", post(review));
    tokio::spawn(async move { axum::serve(listener, api).await });
    Ok(kube::Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?)
}

/// All sidecars, and what they send through.
struct Stage {
    microsoft: Simulator,
    operator: Operator,
    sidecars: Vec<App>,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Result<Self> {
        // Fails only when there is one already, and then it is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = Options::default();
        options.config.limits.minute_milliseconds = u64::try_from(MINUTE.as_millis())?;
        let (microsoft, operator) = (Simulator::start(options).await?, Operator::start().await?);
        let folder = tempfile::tempdir()?;
        let mut sidecars = Vec::new();
        for number in 0..SIDECARS {
            let at = folder.path().join(format!("pod-{number}"));
            sidecars.push(sidecar(&at, number, &microsoft, &operator).await?);
        }
        Ok(Self { microsoft, operator, sidecars, _folder: folder })
    }

    /// Every application sends so many messages in one session, all at the same time.
    async fn send(&self, each: usize) -> Result<()> {
        let all = self.sidecars.iter().enumerate().map(|(number, sidecar)| {
            let address = sidecar.smtp_addresses().first().copied().context("it listens");
            async move { application(address?, number, each).await }
        });
        futures::future::try_join_all(all).await?;
        Ok(())
    }

    /// Waits until so many have arrived, each once.
    async fn arrived(&self, count: usize) -> Result<()> {
        let messages = self.microsoft.wait_for_messages(count, MINUTE * 25).await;
        let subjects: BTreeSet<_> = messages.iter().filter_map(|message| message.header("Subject")).collect();
        ensure!(subjects.len() == count && messages.len() == count, "{} of {count}", subjects.len());
        Ok(())
    }

    /// Nothing was refused and no limit was met.
    fn ensure_within_limits(&self) -> Result<()> {
        let statistics = self.microsoft.statistics();
        let peak = statistics.mailboxes.get(SAMPLE_MAILBOX).copied().unwrap_or_default();
        ensure!(statistics.tally.refusals.is_empty(), "{:?}", statistics.tally.refusals);
        ensure!(peak.messages_in_minute <= 30 && peak.submitting_connections <= 3, "{peak:?}");
        Ok(())
    }
}

async fn sidecar(
    folder: &std::path::Path,
    number: usize,
    microsoft: &Simulator,
    operator: &Operator,
) -> Result<App> {
    std::fs::create_dir_all(folder)?;
    let at = |name: &str| -> PathBuf { folder.join(name) };
    std::fs::write(at("ca.crt"), microsoft.ca_pem())?;
    std::fs::write(at("control"), number.to_string())?;
    microsoft.write_assertion(SAMPLE_SUBJECT, &at("entra"))?;
    let control = ControlService {
        address: format!("localhost:{}", operator.address.port()),
        ca_pem: operator.ca_pem.clone(),
        token_file: at("control"),
        leases: true,
    };
    let mut route = to_simulator(microsoft, at("ca.crt"), at("entra"), Some(control));
    route.delivery.mode = DeliveryMode::DeliverOrQueue;
    route.limits.messages_per_minute = Some(30);
    route.limits.recipients_per_day = Some(10_000);
    std::fs::write(at("route.json"), route.to_json())?;
    let path = |name: &str| at(name).display().to_string();
    let arguments = [
        ["mailroute-sidecar".into(), "run".into()],
        ["--route".into(), path("route.json")],
        ["--spool-dir".into(), path("spool")],
        ["--port".into(), "0".into()],
        ["--admin-listen".into(), "127.0.0.1:0".into()],
    ];
    std::fs::create_dir(at("spool"))?;
    let run = Cli::try_parse_from(arguments.concat())?.into_run();
    let spans = Spans { minute: MINUTE, ..Spans::default() };
    App::start(run, Timing { spans, ..Timing::default() }).await
}

/// One session with so many messages. Each is answered 250.
async fn application(address: SocketAddr, number: usize, messages: usize) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    say(&mut stream, "HELO application.example\r\n", "250").await?;
    for message in 0..messages {
        say(&mut stream, &format!("MAIL FROM:<{SAMPLE_MAILBOX}>\r\n"), "250").await?;
        say(&mut stream, "RCPT TO:<ann@fabrikam.com>\r\n", "250").await?;
        say(&mut stream, "DATA\r\n", "354").await?;
        let text = format!("From: <{SAMPLE_MAILBOX}>\r\nSubject: {number}.{message}\r\n\r\nHello\r\n.\r\n");
        say(&mut stream, &text, "250").await?;
    }
    say(&mut stream, "QUIT\r\n", "221").await
}

async fn say(stream: &mut BufReader<TcpStream>, text: &str, expected: &str) -> Result<()> {
    stream.write_all(text.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    ensure!(reply.starts_with(expected), "{text:?} is answered {reply:?}");
    Ok(())
}

/// How much of the limit was used in the whole minutes from the first message on.
fn used(microsoft: &Simulator) -> Result<f64> {
    let times: Vec<_> = microsoft.messages().iter().map(|message| message.received_at).collect();
    let first = times.first().context("a message")?;
    let since: Vec<f64> = times.iter().map(|at| at.duration_since(*first).as_secs_f64()).collect();
    let minutes = (since.last().context("a message")? / MINUTE.as_secs_f64()).floor();
    ensure!(minutes >= 2.0, "over too soon to tell");
    let within = since.iter().filter(|at| **at < minutes * MINUTE.as_secs_f64()).count();
    Ok(f64::from(u32::try_from(within)?) / (30.0 * minutes))
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_sidecars_share_a_mailbox_without_one_refusal_and_use_its_limit() -> Result<()> {
    let stage = Stage::start().await?;
    stage.send(8).await?;
    stage.arrived(SIDECARS * 8).await?;
    stage.ensure_within_limits()?;
    let (used, records) = (
        used(&stage.microsoft)?,
        *stage.operator.shelf.writes.lock().unwrap_or_else(PoisonError::into_inner),
    );
    println!("{:.1} % of the limit, {records} records written", 100.0 * used);
    ensure!(used >= 0.9, "{used} of the limit");
    ensure!(usize::try_from(records)? < SIDECARS * 8, "{records} records: not one for each message");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_is_a_pause_and_no_error() -> Result<()> {
    let mut stage = Stage::start().await?;
    stage.send(4).await?;
    stage.microsoft.wait_for_messages(20, MINUTE * 5).await;
    stage.operator.replaced(MINUTE / 4).await?;
    stage.microsoft.wait_for_messages(50, MINUTE * 5).await;
    stage.operator.replaced(MINUTE / 4).await?;
    stage.arrived(SIDECARS * 4).await?;
    stage.ensure_within_limits()
}

//! A listener with a certificate, two users and a reviewer of tokens, and what it has taken.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser as _;
use mailroute_route::RouteFile;
use mailroute_route::control::ReviewReply;
use mailroute_sidecar::args::Cli;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::smtp::tokens::ReviewTokens;
use mailroute_sidecar::gateway::smtp::{Parts, bind};
use mailroute_sidecar::listener::{Accept, Service, SessionLimits, settings};
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::Envelope;
use mailroute_sidecar::metrics::Metrics;
use mailroute_sidecar::outcome::health::Health;
use mailroute_sidecar::secret::Secret;
use mailroute_sidecar::smtp::mailboxes::Paused;
use mailroute_sidecar::smtp::reply::{EnhancedCode, Reply};
use tempfile::TempDir;
use tokio::sync::watch;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const ROUTE: &str = r#"{
    "version": 1, "name": "mail", "namespace": "shop", "generation": 1, "ehloName": "mail.shop.svc.cluster.local",
    "method": {"clientSubmission": {
        "mailbox": "noreply@contoso.com",
        "credential": {"type": "WorkloadIdentity", "clientId": "1b2c", "tokenFile": "/var/run/secrets/mailroute/tokens/entra"},
        "authority": {"host": "login.microsoftonline.com", "tenant": "contoso.com", "scope": "https://outlook.office365.com/.default"},
        "endpoint": {"host": "smtp.office365.com", "port": 587}}},
    "senders": {"allow": ["*@alerts.contoso.com"], "onViolation": "Reject"},
    "delivery": {"mode": "DeliverOrQueue"},
    "limits": {"maxMessageBytes": 100000, "maxRecipients": 10},
    "listen": {"port": 25, "auth": "Ignore"}
}"#;

/// `ann` has the password `secret`, `bob` has `geheim`.
pub const USERS: &str = "ann:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n\
    bob:$argon2id$v=19$m=64,t=1,p=1$vIwxhyj1oFabQwg3Ve8rYw$GszFMOsMURFzAxBsL5oesFmvDszZcDIAFp2Ce9yfLm8\n";

/// A message as it was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    pub from: String,
    pub to: Vec<String>,
    pub text: String,
}

#[derive(Default)]
struct Mailbox(Mutex<Vec<Taken>>);

#[async_trait]
impl Accept for Mailbox {
    async fn accept(&self, envelope: Envelope, body: Body) -> Reply {
        let (mut reader, mut octets) = (body.reader(), Vec::new());
        while let Some(piece) = reader.next().await.unwrap() {
            octets.extend_from_slice(&piece);
        }
        self.0.lock().unwrap().push(Taken {
            from: envelope.reverse_path.to_string(),
            to: envelope.recipients.iter().map(ToString::to_string).collect(),
            text: String::from_utf8(octets).unwrap(),
        });
        Reply::new(250, EnhancedCode::new(2, 0, 0), "taken")
    }
}

/// Reviews tokens: those signed `c2lnbmVk` are right, unless the operator is away.
#[derive(Default)]
struct Operator {
    away: bool,
}

#[async_trait]
impl ReviewTokens for Operator {
    async fn review(&self, token: &Secret) -> Result<Option<ReviewReply>, String> {
        if self.away {
            return Err("the operator does not answer".into());
        }
        let mut parts = token.expose().split('.').skip(1);
        let claims = URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let namespace = claims["kubernetes.io"]["namespace"].as_str().unwrap().to_owned();
        let is_valid = parts.next() == Some("c2lnbmVk");
        let reply = ReviewReply { namespace, service_account: "web".into(), pod: "web-0".into() };
        Ok(is_valid.then_some(reply))
    }
}

/// A ServiceAccount's token; a valid one is signed `c2lnbmVk`.
pub fn token(audience: &str, namespace: &str, signature: &str) -> String {
    let claims = serde_json::json!({ "aud": [audience], "kubernetes.io": { "namespace": namespace } });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{signature}", part(r#"{"alg":"RS256"}"#), part(&claims.to_string()))
}

/// How a server differs from the usual one.
pub struct Setup {
    pub certificate: bool,
    pub operator_away: bool,
    pub sessions: u16,
    /// More options.
    pub arguments: Vec<&'static str>,
    pub limits: SessionLimits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            certificate: true,
            operator_away: false,
            sessions: 100,
            arguments: Vec::new(),
            limits: SessionLimits { wait: Duration::from_millis(100), ..SessionLimits::default() },
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    /// The certificate, PEM.
    pub certificate: String,
    files: TempDir,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    _config: watch::Sender<Config>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let files = tempfile::tempdir().unwrap();
        let certificate = if setup.certificate { renew(files.path()) } else { String::new() };
        std::fs::write(files.path().join("users"), USERS).unwrap();
        let path = |name: &str| files.path().join(name).display().to_string();
        let mut arguments: Vec<_> =
            ["mailroute-sidecar", "--gateway", "127.0.0.1:0"].map(str::to_owned).into();
        let (tls, users) = (path(""), path("users"));
        let more = [
            "--smtp-listen",
            "[::]:0",
            "--smtp-tls",
            &tls,
            "--smtp-users",
            &users,
            "--smtp-token-namespaces",
            "shop,web",
        ];
        arguments.extend(more.map(str::to_owned));
        arguments.extend(setup.arguments.iter().map(ToString::to_string));
        let mut route = RouteFile::parse(ROUTE.as_bytes()).unwrap();
        route.listen.max_sessions = setup.sessions;
        let (config_sender, config) =
            watch::channel(Config { route: Some(Arc::new(route)), error: None, ignored: None });
        let (mailbox, metrics) = (Arc::new(Mailbox::default()), Arc::new(Metrics::new().unwrap()));
        let (draining, is_draining) = watch::channel(false);
        let service = Service {
            accept: Arc::clone(&mailbox) as _,
            settings: settings::source(config.clone(), Paused::default()),
            observer: Arc::clone(&metrics) as _,
            scratch: Arc::new(std::env::temp_dir()),
            limits: setup.limits,
            draining: is_draining,
        };
        let (stop, stopped) = watch::channel(false);
        let parts = Parts {
            options: Cli::parse_from(arguments).into_run().gateway,
            service,
            config,
            poll: Duration::from_millis(20),
            review: Some(Arc::new(Operator { away: setup.operator_away })),
        };
        let listener = bind(parts).await.unwrap().expect("it listens");
        let address = SocketAddr::from(([127, 0, 0, 1], listener.address().port()));
        let serving = tokio::spawn(listener.run(stopped));
        Self {
            address,
            certificate,
            files,
            mailbox,
            metrics,
            stop,
            draining,
            serving,
            _config: config_sender,
        }
    }

    /// The process is about to end.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Another certificate, put in place as the kubelet does.
    pub fn renew(&mut self) {
        self.certificate = renew(self.files.path());
    }

    /// What was taken so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.mailbox.0.lock().unwrap().clone()
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render(&Health::default())).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    pub async fn stop(self) -> Vec<Taken> {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.serving).await.expect("stopped in time").unwrap();
        std::mem::take(&mut self.mailbox.0.lock().unwrap())
    }
}

/// Writes a new certificate into the directory, and gives it.
pub fn renew(directory: &std::path::Path) -> String {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    for (name, text) in [("tls.key", made.signing_key.serialize_pem()), ("tls.crt", made.cert.pem())] {
        let next = directory.join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, directory.join(name)).unwrap();
    }
    made.cert.pem()
}

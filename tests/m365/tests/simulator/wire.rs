//! Two ways to the submission face: the session as a value, and a socket with STARTTLS.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use jiff::Timestamp;
use mailroute_m365::{
    Config, Face, Faults, Options, Resource, Simulator,
    directory::{SAMPLE_BULK_ACCOUNT, SAMPLE_MAILBOX, SAMPLE_SMTP_USERNAME, SAMPLE_SUBJECT},
    entra::AccessTokenKey,
    mailbox::ConnectionFacts,
    office::Office,
    relay::PresentedCertificate,
    submission::{
        session::{Handshake, Peer, Session, Step},
        xoauth2,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

/// The certificate that a client presents.
#[derive(Debug)]
pub struct Presents {
    pub name: String,
    pub chain: bool,
}

pub trait Wire {
    async fn send(&mut self, bytes: &[u8]);
    /// The next line of the server without line end; `None` when the connection is over.
    async fn line(&mut self) -> Option<String>;
    /// From now on, before anything is said, another face.
    fn face(&mut self, face: Face);
    async fn tls(&mut self, presents: Option<&Presents>);
    fn config(&mut self, change: impl FnOnce(&mut Config));
    fn faults(&mut self, faults: Faults);
    fn messages(&self) -> usize;
    fn token(&self, resource: Resource, seconds: i64) -> String;
    /// Ends the conversation; the kinds of breach that were noted.
    async fn finish(self) -> Vec<String>;

    fn payload(&self, name: &str) -> String {
        match name {
            "ok" => xoauth2::render(SAMPLE_MAILBOX, &self.token(Resource::Submission, 600)),
            "expired" => xoauth2::render(SAMPLE_MAILBOX, &self.token(Resource::Submission, -10)),
            "foreign" => xoauth2::render(SAMPLE_MAILBOX, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"),
            other => {
                let (word, value) = other.split_once(' ').unwrap_or((other, ""));
                let (user, token) = match word {
                    "user" => (value, self.token(Resource::Submission, 600)),
                    "bulk" => {
                        (SAMPLE_BULK_ACCOUNT, self.token(Resource::HighVolumeEmail, value.parse().unwrap()))
                    }
                    "bulk-user" => (value, self.token(Resource::HighVolumeEmail, 3600)),
                    "service" => (
                        SAMPLE_SMTP_USERNAME,
                        self.token(Resource::CommunicationServices, value.parse().unwrap()),
                    ),
                    "service-user" => (value, self.token(Resource::CommunicationServices, 600)),
                    _ => panic!("unknown payload {other:?}"),
                };
                xoauth2::render(user, &token)
            }
        }
    }
}

pub struct Value {
    office: Office,
    session: Session,
    now: Timestamp,
    said: VecDeque<String>,
    over: bool,
}

impl Value {
    pub fn new() -> Self {
        let config = Options::default().config;
        let office = Office::new(config, AccessTokenKey::generate(), vec!["localhost".into()]);
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        Self {
            office,
            session: Session::new(Self::peer(Face::Submission)),
            now,
            said: VecDeque::new(),
            over: false,
        }
    }

    fn peer(face: Face) -> Peer {
        let facts = ConnectionFacts { id: 1, client: "192.0.2.7".into(), face, ..ConnectionFacts::default() };
        Peer { facts, host: "FR0P281CA0064".into(), session: "08DD84B323498C1A".into() }
    }

    /// The banner waits until the first look, so that faults can be set before.
    fn greet(&mut self) {
        if self.said.is_empty() && self.session.is_fresh() {
            let steps = self.session.greet(&mut self.office, self.now);
            self.perform(steps);
        }
    }

    fn perform(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let text = String::from_utf8(bytes).unwrap();
                    self.said.extend(text.split_terminator("\r\n").map(str::to_owned));
                }
                Step::Submitted => self.session.submitted(&mut self.office),
                Step::Close | Step::Cut => self.over = true,
                Step::Wait(_) | Step::Drip(_) | Step::StartTls => {}
            }
        }
    }
}

impl Wire for Value {
    async fn send(&mut self, bytes: &[u8]) {
        if !self.over {
            let steps = self.session.receive(bytes, &mut self.office, self.now);
            self.perform(steps);
        }
    }

    async fn line(&mut self) -> Option<String> {
        self.greet();
        let line = self.said.pop_front();
        assert!(line.is_some() || self.over, "the server says nothing");
        line
    }

    fn face(&mut self, face: Face) {
        self.session = Session::new(Self::peer(face));
    }

    async fn tls(&mut self, presents: Option<&Presents>) {
        let certificate = presents.map(|presents| PresentedCertificate {
            names: vec![presents.name.clone()],
            distrusted: (!presents.chain).then(|| "UnknownIssuer".into()),
            ..PresentedCertificate::default()
        });
        let handshake = Handshake { version: "TLSv1_3".into(), sni: Some("localhost".into()), certificate };
        self.session.secured(handshake, &mut self.office, self.now);
    }

    fn config(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.office.config);
    }

    fn faults(&mut self, faults: Faults) {
        self.office.faults = faults;
    }

    fn messages(&self) -> usize {
        self.office.messages.len()
    }

    fn token(&self, resource: Resource, seconds: i64) -> String {
        self.office.sample_token(resource, SAMPLE_SUBJECT, self.now, seconds)
    }

    async fn finish(mut self) -> Vec<String> {
        self.session.ended(&mut self.office, self.now);
        self.office.violations.iter().map(|violation| format!("{:?}", violation.kind)).collect()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub struct Socket {
    simulator: Simulator,
    face: Face,
    /// Opened at the first look, so that faults can be set before.
    stream: Option<BufReader<Box<dyn Stream>>>,
}

impl Socket {
    pub async fn open() -> Self {
        let simulator = Simulator::start(Options::default()).await.unwrap();
        Self { simulator, face: Face::Submission, stream: None }
    }

    async fn stream(&mut self) -> &mut BufReader<Box<dyn Stream>> {
        if self.stream.is_none() {
            let address = match self.face {
                Face::Submission => self.simulator.smtp_address(),
                Face::Relay => self.simulator.relay_address(),
                Face::HighVolumeEmail => self.simulator.high_volume_email_address(),
                Face::CommunicationServices => self.simulator.communication_services_address(),
                Face::Graph => panic!("Graph speaks no SMTP"),
            };
            let stream = TcpStream::connect(address).await.unwrap();
            self.stream = Some(BufReader::new(Box::new(stream)));
        }
        self.stream.as_mut().unwrap()
    }
}

impl Wire for Socket {
    async fn send(&mut self, bytes: &[u8]) {
        let stream = self.stream().await;
        // A server that has hung up may reset the connection; the dialog sees that by the lines that it reads.
        drop(stream.write_all(bytes).await);
        drop(stream.flush().await);
    }

    async fn line(&mut self) -> Option<String> {
        let stream = self.stream().await;
        let mut line = Vec::new();
        let read =
            timeout(PATIENCE, stream.read_until(b'\n', &mut line)).await.expect("the server says nothing");
        if read.is_err() || line.is_empty() {
            return None;
        }
        let text = String::from_utf8(line).unwrap();
        Some(text.strip_suffix("\r\n").expect("a line ends with CRLF").to_owned())
    }

    fn face(&mut self, face: Face) {
        self.face = face;
    }

    async fn tls(&mut self, presents: Option<&Presents>) {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.simulator.ca_pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match presents {
            None => config.with_no_client_auth(),
            Some(presents) => {
                let identity = self.simulator.relay_certificate(&[&presents.name], 3600).unwrap();
                let pem = if presents.chain { &identity.chain_pem } else { &identity.leaf_pem };
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let plain = self.stream.take().unwrap();
        assert!(plain.buffer().is_empty(), "nothing may follow the reply to STARTTLS");
        let name = ServerName::try_from("localhost").unwrap();
        let secure = TlsConnector::from(Arc::new(config)).connect(name, plain.into_inner()).await.unwrap();
        self.stream = Some(BufReader::new(Box::new(secure)));
    }

    fn config(&mut self, change: impl FnOnce(&mut Config)) {
        self.simulator.config(change);
    }

    fn faults(&mut self, faults: Faults) {
        self.simulator.set_faults(faults);
    }

    fn messages(&self) -> usize {
        self.simulator.messages().len()
    }

    fn token(&self, resource: Resource, seconds: i64) -> String {
        self.simulator.access_token_for(resource, SAMPLE_SUBJECT, seconds)
    }

    async fn finish(mut self) -> Vec<String> {
        if let Some(mut stream) = self.stream.take() {
            drop(stream.shutdown().await);
            drop(stream);
        }
        let gone = self.simulator.wait_for(PATIENCE, |office| (office.connections == 0).then_some(())).await;
        assert!(gone.is_some(), "the connection did not end");
        self.simulator.violations().iter().map(|violation| format!("{:?}", violation.kind)).collect()
    }
}

//! The gateway: the sidecar program on a folder in the place of its volume, and the sidecars that hand messages over to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use mailroute_route::RouteFile;
use mailroute_route::file::{self, DeliveryMode};
use mailroute_route::identity::Role;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::client::{CONNECTIONS, Gateways, HandOverError, Offer};
use mailroute_sidecar::gateway::identity::Identity;
use mailroute_sidecar::message::body::Body;
use mailroute_sidecar::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use mailroute_sidecar::metrics::Metrics;
use mailroute_sidecar::spool::{Entry, Kind, Progress, Shelf};
use tokio::sync::watch;

use super::{Authority, Control, Sidecar, Upstream, free_port, relay_to};
use crate::generator::{self, Load, Sent};

/// A gateway takes a few connections of each address, which are those of two sidecars.
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How long a gateway may take until it has its certificate.
const READY: Duration = Duration::from_secs(30);

/// A running gateway.
pub struct Gateway {
    program: Sidecar,
    authority: Arc<Authority>,
    route: RouteFile,
    _control: Control,
}

/// A sidecar, as far as it hands messages over.
struct Pod {
    gateways: Arc<Gateways>,
    /// Where it finds the gateway.
    address: SocketAddr,
    _config: watch::Sender<Config>,
}

impl Gateway {
    /// Starts it and waits until it takes messages over.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(program: &Path, folder: &Path, upstream: &Upstream) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let control = Control::start(folder, Arc::clone(&authority)).await?;
        let mut route = relay_to(upstream, DeliveryMode::Queue);
        let (host, ca_pem) = ("gateway.bench.example".to_owned(), authority.pem.clone());
        route.gateway = Some(file::Gateway { host, ca_pem });
        route.control = Some(control.service.clone());
        let port = free_port()?;
        let listen = format!("[::]:{port}");
        let program = Sidecar::listening(program, folder, &route, port, &["--gateway", &listen]).await?;
        let this = Self { program, authority, route, _control: control };
        this.pod(0)?.ready().await?;
        Ok(this)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Where it takes messages over.
    pub const fn port(&self) -> u16 {
        self.program.port
    }

    /// Hands over until the messages or the time are used up, as sidecars do: each several messages at a time.
    ///
    /// # Errors
    /// When a message is not taken over.
    pub async fn take_over(&self, load: Load) -> Result<Sent> {
        let pods: Vec<_> =
            (0..load.sessions.div_ceil(CONNECTIONS)).map(|number| self.pod(number)).collect::<Result<_>>()?;
        let body = Body::new("", generator::message(load.bytes));
        let sent = generator::side_by_side(load, |number, remaining| {
            let gateways = Arc::clone(&pods[number % pods.len()].gateways);
            let (body, number) = (body.clone(), number as u64);
            async move {
                let mut times = Vec::new();
                while remaining.take() {
                    let began = Instant::now();
                    let entry = entry(times.len() as u64 * 100 + number)?;
                    let progress = Progress::fresh(&entry);
                    let offer =
                        Offer { shelf: Shelf::Queue, entry: &entry, progress: &progress, body: &body };
                    gateways.hand_over(offer).await?;
                    times.push(began.elapsed());
                }
                anyhow::Ok(times)
            }
        })
        .await?;
        for pod in &pods {
            pod.gateways.close().await;
        }
        Ok(sent)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(self) -> Result<()> {
        self.program.stop().await
    }

    fn pod(&self, number: usize) -> Result<Pod> {
        let config = Config { route: Some(Arc::new(self.route.clone())), ..Config::default() };
        let (sender, config) = watch::channel(config);
        let identity = Identity::new(config, Role::Sidecar);
        identity.set(self.authority.issue(Role::Sidecar)?.certified()?);
        let gateways = Gateways::new(identity, None, Arc::new(Metrics::new()?));
        let address = SocketAddr::new(ADDRESSES[number / 2 % ADDRESSES.len()], self.port());
        gateways.dial(vec![address]);
        Ok(Pod { gateways, address, _config: sender })
    }
}

impl Pod {
    /// Waits until the gateway answers, which it does once it has its certificate: it knows no message yet.
    async fn ready(&self) -> Result<()> {
        let (began, entry) = (Instant::now(), entry(0)?);
        loop {
            let asked =
                self.gateways.update(self.address, &entry.envelope.id, &Progress::fresh(&entry)).await;
            match asked {
                Ok(()) | Err(HandOverError::Refused { .. }) => return Ok(()),
                Err(error) if began.elapsed() > READY => return Err(error).context("no gateway answers"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// The envelope of a message; `number` tells it from those of the same microsecond.
fn entry(number: u64) -> Result<Entry> {
    let accepted = Timestamp::now();
    let envelope = Envelope {
        archive: None,
        mailbox: None,
        id: QueueId::new(accepted, number),
        message_id: "<4711@shop.contoso.com>".into(),
        client_name: "app.example".into(),
        reverse_path: ReversePath::Address(Address::parse("noreply@contoso.com")?),
        recipients: vec![Address::parse("ada@contoso.com")?],
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
    };
    Ok(Entry { envelope, kind: Kind::Message, accepted })
}

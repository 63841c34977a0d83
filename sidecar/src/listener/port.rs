//! The local port: serves on the one the route names, with as many sessions as it allows, and follows when the route changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mailroute_route::file::Listen;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Listeners, Service};
use crate::config::Config;

/// Serves applications.
pub struct PortListener {
    /// What the sessions share.
    pub service: Service,
    /// The configuration, with the route's port and number of sessions.
    pub config: watch::Receiver<Config>,
    /// The port to use whatever the route says.
    pub fixed: Option<u16>,
    /// Set while the listener is serving.
    pub serving: Arc<AtomicBool>,
}

impl PortListener {
    /// The port to listen on now.
    pub fn port(fixed: Option<u16>, config: &Config) -> u16 {
        fixed.unwrap_or_else(|| listen(config).port)
    }

    /// Serves until `stop`, then until the last session has ended. Sessions on a port that was left go on.
    pub async fn run(mut self, listeners: Listeners, mut stop: watch::Receiver<bool>) {
        let mut listening = JoinSet::new();
        let sessions = watch::Sender::new(sessions_at_once(&self.config.borrow()));
        let mut port = Self::port(self.fixed, &self.config.borrow_and_update());
        let mut close = self.open(&mut listening, listeners, &sessions);
        loop {
            let next = tokio::select! {
                changed = self.config.changed() => {
                    let config = self.config.borrow();
                    sessions.send_replace(sessions_at_once(&config));
                    changed.ok().map(|()| Self::port(self.fixed, &config))
                }
                _ = stop.wait_for(|&stop| stop) => None,
                // A port that was left has no more sessions. The last one ends early by a panic only; then nobody is
                // served, and the kubelet has to know.
                _ = listening.join_next() => if listening.is_empty() { None } else { continue },
            };
            let Some(next) = next else { break };
            if next == port {
                continue;
            }
            port = next;
            match Listeners::bind(next).await {
                Ok(listeners) => {
                    tracing::info!(port = next, "listening on the route's new port");
                    close.send_replace(true);
                    close = self.open(&mut listening, listeners, &sessions);
                }
                Err(error) => {
                    tracing::error!(%error, "the route's new port cannot be used; the old one stays in use");
                }
            }
        }
        self.serving.store(false, Ordering::Relaxed);
        close.send_replace(true);
        while listening.join_next().await.is_some() {}
    }

    fn open(
        &self,
        listening: &mut JoinSet<()>,
        listeners: Listeners,
        sessions: &watch::Sender<usize>,
    ) -> watch::Sender<bool> {
        let (close, closed) = watch::channel(false);
        listening.spawn(super::serve(listeners, self.service.clone(), sessions.subscribe(), closed));
        self.serving.store(true, Ordering::Relaxed);
        close
    }
}

/// What the route says about the listener; the defaults while there is no route.
fn listen(config: &Config) -> Listen {
    config.route.as_ref().map(|route| route.listen).unwrap_or_default()
}

/// How many sessions there may be at once.
pub(crate) fn sessions_at_once(config: &Config) -> usize {
    listen(config).max_sessions.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use mailroute_route::RouteFile;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;
    use crate::config::tests::SAMPLE;
    use crate::listener::{Accept, SessionLimits, settings};
    use crate::message::body::Body;
    use crate::message::envelope::Envelope;
    use crate::metrics::Metrics;
    use crate::smtp::mailboxes::Paused;
    use crate::smtp::reply::Reply;

    struct NoMessage;

    #[async_trait]
    impl Accept for NoMessage {
        async fn accept(&self, _: Envelope, _: Body) -> Reply {
            unreachable!("nobody sends a message")
        }
    }

    fn allowing(max_sessions: u16) -> Config {
        let mut route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        route.listen.max_sessions = max_sessions;
        Config { route: Some(Arc::new(route)), ..Config::default() }
    }

    async fn greeted(address: std::net::SocketAddr) -> (BufReader<TcpStream>, String) {
        let mut client = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        (client, line)
    }

    #[tokio::test]
    async fn the_route_says_how_many_sessions_there_may_be_also_when_it_changes() {
        let listeners = Listeners::bind(0).await.unwrap();
        let address = listeners.addresses()[0];
        let (route, config) = watch::channel(allowing(1));
        let service = Service {
            accept: Arc::new(NoMessage),
            settings: settings::source(config.clone(), Paused::default()),
            observer: Arc::new(Metrics::new().unwrap()),
            scratch: Arc::new(std::env::temp_dir()),
            limits: SessionLimits { wait: Duration::from_millis(50), ..SessionLimits::default() },
            draining: watch::channel(false).1,
        };
        let listener = PortListener { service, config, fixed: Some(address.port()), serving: Arc::default() };
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(listener.run(listeners, stopped));
        let (first, line) = greeted(address).await;
        assert!(line.starts_with("220 "), "{line}");
        assert!(greeted(address).await.1.starts_with("421 4.3.2 Too many sessions"));

        route.send_replace(allowing(2));
        let second = timeout(Duration::from_secs(60), async {
            loop {
                let (client, line) = greeted(address).await;
                if line.starts_with("220 ") {
                    return client;
                }
            }
        });
        let second = second.await.expect("the second session is let in");
        assert!(greeted(address).await.1.starts_with("421 4.3.2 Too many sessions"));
        drop((first, second));
        stop.send_replace(true);
        served.await.unwrap();
    }
}

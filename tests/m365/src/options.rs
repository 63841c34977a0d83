//! How the simulator starts, and why it does not.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use thiserror::Error;

use crate::{authority::TlsError, config::Config};

/// Where the faces listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Client submission.
    pub smtp: SocketAddr,
    /// The MX endpoint.
    pub relay: SocketAddr,
    /// High Volume Email.
    pub high_volume_email: SocketAddr,
    /// Communication Services, SMTP.
    pub communication_services: SocketAddr,
    /// Graph.
    pub graph: SocketAddr,
    /// The token endpoint.
    pub login: SocketAddr,
    /// The name server, UDP and TCP.
    pub dns: SocketAddr,
    /// The control API.
    pub control: SocketAddr,
}

/// How the simulator starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the faces listen.
    pub addresses: Addresses,
    /// Names in the certificate. Clients must ask for one of them.
    pub names: Vec<String>,
    /// Set-up, unless the state directory has one of an earlier `PUT /config`.
    pub config: Config,
    /// The directory with the certificate authority and what `PUT /config` has set; absent means in memory.
    pub state: Option<PathBuf>,
}

/// Why the simulator does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Default for Options {
    /// Free ports on loopback, the name `localhost`, the sample directory, no tarpit.
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config = Config::contoso();
        config.pace.tarpit_milliseconds = 0;
        config.tokens.keys_refetch_seconds = 0;
        Self {
            addresses: Addresses {
                smtp: loopback,
                relay: loopback,
                high_volume_email: loopback,
                communication_services: loopback,
                graph: loopback,
                login: loopback,
                dns: loopback,
                control: loopback,
            },
            names: vec!["localhost".into()],
            config,
            state: None,
        }
    }
}

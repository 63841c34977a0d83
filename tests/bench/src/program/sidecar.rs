//! The sidecar. Beside Postfix it relays by IP address, which needs no token service.

use std::path::Path;

use anyhow::{Context, Result};
use mailroute_route::RouteFile;
use mailroute_route::file::{
    Delivery, DeliveryMode, FORMAT_VERSION, HostName, Limits, Listen, LogAddresses, Method, SmartHost,
    SmtpRelay, TlsMode,
};
use tokio::process::{Child, Command};

use super::{CONNECTIONS, Upstream, free_port, listening};

/// Name of the route.
pub const ROUTE: &str = "bench";

/// Its namespace.
pub const NAMESPACE: &str = "bench";

/// A running sidecar.
pub struct Sidecar {
    child: Child,
    /// Where it takes mail.
    pub port: u16,
}

impl Sidecar {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(program: &Path, folder: &Path, file: &RouteFile) -> Result<Self> {
        let port = free_port()?;
        Self::listening(program, folder, file, port, &["--port", &port.to_string()]).await
    }

    /// The same with these arguments, by which it listens on this port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn listening(
        program: &Path,
        folder: &Path,
        file: &RouteFile,
        port: u16,
        arguments: &[&str],
    ) -> Result<Self> {
        let (route, spool) = (folder.join("route.json"), folder.join("spool"));
        std::fs::create_dir(&spool)?;
        std::fs::write(&route, file.to_json())?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(program)
            .arg("--route")
            .arg(route)
            .arg("--spool-dir")
            .arg(spool)
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(log.try_clone()?)
            .stdout(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        listening(port).await?;
        Ok(Self { child, port })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// A route that relays to `upstream`.
pub fn relay_to(upstream: &Upstream, mode: DeliveryMode) -> RouteFile {
    RouteFile {
        version: FORMAT_VERSION,
        name: ROUTE.into(),
        namespace: NAMESPACE.into(),
        generation: 1,
        ehlo_name: "bench.example".into(),
        method: Method::SmtpRelay(SmtpRelay {
            certificate: None,
            accepted_domains: vec!["contoso.com".into()],
            smart_host: SmartHost {
                host: HostName::Fixed("localhost".into()),
                port: upstream.port,
                tls: TlsMode::Required,
                ca_file: Some(upstream.certificate.clone()),
                chunking: upstream.chunking,
            },
        }),
        delivery: Delivery { max_spool_bytes: 20 << 30, ..Delivery::new(mode) },
        limits: Limits { connections: CONNECTIONS, ..Limits::new(36_700_160, 500) },
        senders: None,
        recipients: None,
        archive: None,
        headers: None,
        listen: Listen::default(),
        secret: None,
        log_addresses: LogAddresses::Full,
        gateway: None,
        control: None,
    }
}

//! The sidecar and the simulator alone, in this process: no cluster, real sockets and TLS.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Parser;
use mailroute_m365::directory::SAMPLE_SUBJECT;
use mailroute_m365::{Options, Simulator};
use mailroute_route::RouteFile;
use mailroute_route::paths;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::Cli;

#[path = "../../sidecar/tests/relay/route.rs"]
mod route;

/// A sidecar whose route leads to a simulator.
pub struct Alone {
    /// Microsoft 365, as far as the sidecar can tell.
    pub microsoft: Simulator,
    /// Where applications connect.
    pub smtp: SocketAddr,
    app: App,
    folder: tempfile::TempDir,
}

impl Alone {
    /// Starts both. `change` sees the route before the sidecar does.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(options: Options, change: impl FnOnce(&mut RouteFile)) -> Result<Self> {
        Self::prepared(options, |_| Ok(()), change).await
    }

    /// The same, after `prepare` has seen the sidecar's folder: its spool is `spool` in it.
    ///
    /// # Errors
    /// When one of them does not start, and those of `prepare`.
    pub async fn prepared(
        options: Options,
        prepare: impl FnOnce(&Path) -> std::io::Result<()>,
        change: impl FnOnce(&mut RouteFile),
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let microsoft = Simulator::start(options).await?;
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at(paths::CA_FILE), microsoft.ca_pem())?;
        microsoft.write_assertion(SAMPLE_SUBJECT, &at(paths::ENTRA_TOKEN_FILE))?;
        let (ca, token) = (at(paths::CA_FILE), at(paths::ENTRA_TOKEN_FILE));
        let mut route = route::to_simulator(&microsoft, ca, token, None);
        change(&mut route);
        std::fs::write(at(paths::ROUTE_KEY), route.to_json())?;
        std::fs::create_dir(at("spool"))?;
        prepare(folder.path())?;
        let run = Cli::try_parse_from(arguments(folder.path()))?.into_run();
        let app = App::start(run, Intervals::default()).await?;
        let smtp = *app.smtp_addresses().first().context("the sidecar listens nowhere")?;
        Ok(Self { microsoft, smtp, app, folder })
    }

    /// A folder that lives as long as this.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the sidecar serves `/metrics`.
    pub fn admin(&self) -> SocketAddr {
        self.app.admin_address()
    }

    /// Ends the sidecar as SIGTERM would.
    pub async fn stop(self) {
        self.app.stop().await;
    }
}

fn arguments(folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    [
        ["mailroute-sidecar", "run"].map(str::to_owned),
        ["--route".into(), at(paths::ROUTE_KEY)],
        ["--spool-dir".into(), at("spool")],
        ["--port".into(), "0".into()],
        ["--admin-listen".into(), "127.0.0.1:0".into()],
    ]
    .concat()
}

//! Postfix from Debian's packages, relaying over verified TLS with connections that are used again. It takes mail from localhost, or over
//! TLS from those who show a certificate of a CA, as a gateway does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mailroute_route::identity::Role;
use tokio::process::Command;

use super::authority::Issued;
use super::{Authority, CONNECTIONS, Upstream, free_port, listening};

/// Takes mail over TLS alone, from the first octet, and from those alone who show a certificate of the clients' CA.
const OVER_TLS: [&str; 5] = [
    "smtpd_tls_wrappermode = yes",
    "smtpd_tls_security_level = encrypt",
    "smtpd_tls_chain_files = /work/postfix.pem",
    "smtpd_tls_CAfile = /work/clients.crt",
    "smtpd_tls_req_ccert = yes",
];

/// A running Postfix.
pub struct Postfix {
    peers: PathBuf,
    folder: PathBuf,
    pid: u32,
    /// Where it takes mail.
    pub port: u16,
}

impl Postfix {
    /// Starts it and waits until it listens: for SMTP, or with a CA for SMTP over TLS from those who show one of its certificates.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(
        peers: &Path,
        folder: &Path,
        upstream: &Upstream,
        clients: Option<&Authority>,
    ) -> Result<Self> {
        let port = free_port()?;
        let over_tls: &[&str] = match clients {
            Some(authority) => {
                let Issued { certificate, key } = authority.issue(Role::Gateway)?;
                std::fs::write(folder.join("clients.crt"), &authority.pem)?;
                std::fs::write(folder.join("postfix.pem"), key + &certificate)?;
                &OVER_TLS
            }
            None => &[],
        };
        std::fs::create_dir(folder.join("postfix"))?;
        std::fs::copy(&upstream.certificate, folder.join("ca.crt"))?;
        let listen = format!("LISTEN={port}");
        let connections = format!("default_destination_concurrency_limit = {CONNECTIONS}");
        let first = format!("initial_destination_concurrency = {CONNECTIONS}");
        let upstream = upstream.port.to_string();
        let settings = [
            connections.as_str(),
            &first,
            "smtp_tls_security_level = secure",
            "smtp_tls_secure_cert_match = hostname",
            "smtp_tls_CAfile = /work/ca.crt",
            "smtp_tls_connection_reuse = yes",
            "smtpd_recipient_restrictions = permit_mynetworks, reject",
            "in_flow_delay = 0",
            // After an outage: as often as a careful administrator would ask for, and far below its own five minutes.
            "queue_run_delay = 10s",
            "minimal_backoff_time = 10s",
            "maximal_backoff_time = 30s",
        ];
        let start = ["env", &listen, "/peers/postfix/start", "/work/postfix", "localhost", &upstream];
        run(peers, folder, &[start.as_slice(), &settings, over_tls].concat()).await?;
        let pid = std::fs::read_to_string(folder.join("postfix/queue/pid/master.pid"))?;
        let pid = pid.trim().parse().context("the process id of Postfix")?;
        listening(port).await?;
        Ok(Self { peers: peers.to_owned(), folder: folder.to_owned(), pid, port })
    }

    /// Its first process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn stop(self) -> Result<()> {
        run(&self.peers, &self.folder, &["postfix", "-c", "/work/postfix/etc", "abort"]).await
    }
}

async fn run(peers: &Path, folder: &Path, program: &[&str]) -> Result<()> {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/in"))
        .arg(peers)
        .arg(folder)
        .args(program)
        .output()
        .await?;
    ensure!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

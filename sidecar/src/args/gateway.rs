//! Options of `run` in the pod of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Options of `run` in the pod of a gateway.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayOptions {
    /// Run as the route's gateway: take messages over from sidecars of the route on this address, usually `[::]:9026`. Nothing listens
    /// on localhost then.
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<SocketAddr>,

    /// Serve SMTP to pods and machines without a sidecar on this address, usually `[::]:2525`.
    #[arg(long, value_name = "ADDRESS", requires = "gateway")]
    pub smtp_listen: Option<SocketAddr>,

    /// Directory with tls.crt and tls.key, the certificate for SMTP clients. Watched; while it has none, STARTTLS is not offered, and
    /// nobody can log in.
    #[arg(long, value_name = "DIR", requires = "smtp_listen")]
    pub smtp_tls: Option<PathBuf>,

    /// File with users who may log in: one name:hash a line, as htpasswd writes them, bcrypt up to cost 14 or Argon2 up to m=32768, t=10;
    /// at most 64 KiB. Watched.
    #[arg(long, value_name = "FILE", requires = "smtp_tls")]
    pub smtp_users: Option<PathBuf>,

    /// Namespaces whose ServiceAccounts may log in, with a projected token of audience mailroute.dev as password and any user name.
    #[arg(long, value_name = "NAMESPACE,…", value_delimiter = ',', requires = "smtp_tls")]
    pub smtp_token_namespaces: Vec<String>,

    /// Take mail from everybody who reaches --smtp-listen, without a login: only where a NetworkPolicy names the peers.
    #[arg(long, requires = "smtp_listen")]
    pub smtp_without_auth: bool,

    /// Most SMTP sessions of one client address at once. Default: 20.
    #[arg(long, value_name = "NUMBER", requires = "smtp_listen", value_parser = clap::value_parser!(u32).range(1..))]
    pub smtp_client_sessions: Option<u32>,

    /// Most messages of one client address in a minute. Default: 120.
    #[arg(long, value_name = "NUMBER", requires = "smtp_listen", value_parser = clap::value_parser!(u32).range(1..))]
    pub smtp_client_messages: Option<u32>,
}

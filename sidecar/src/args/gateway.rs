//! Options of `run` in the pod of a gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mailroute_route::quantity;

/// Options of `run` in the pod of a gateway.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayOptions {
    /// Run as the route's gateway: take messages over from sidecars of the route on this address, usually `[::]:9026`. Nothing listens
    /// on localhost then.
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<SocketAddr>,

    /// Size of the volume of --spool-dir, such as 10Gi or a number of bytes; nine tenths of it are used for messages. Default: what the
    /// route gives each sidecar, sidecar.spool.sizeLimit.
    #[arg(long, value_name = "SIZE", requires = "gateway", value_parser = size)]
    pub spool_size: Option<u64>,

    /// Serve SMTP to pods and machines without a sidecar on this address, usually `[::]:2525`.
    #[arg(long, value_name = "ADDRESS", requires = "gateway")]
    pub smtp_listen: Option<SocketAddr>,

    /// Directory with tls.crt and tls.key, the certificate for SMTP clients. Watched; while it has none, STARTTLS is not offered, and
    /// nobody can log in.
    #[arg(long, value_name = "DIR", requires = "smtp_listen")]
    pub smtp_tls: Option<PathBuf>,

    /// File with users who may log in: one name:hash a line, as htpasswd writes them, bcrypt up to cost 14 or Argon2 up to m=19456, t=10;
    /// at most 64 KiB. Watched.
    #[arg(long, value_name = "FILE", requires = "smtp_tls")]
    pub smtp_users: Option<PathBuf>,

    /// Namespaces whose ServiceAccounts may log in, with a projected token as password and any user name. Its audience is mailroute.dev
    /// in the gateway's own namespace, mailroute.dev/gateway/NAMESPACE/ROUTE of the gateway in others.
    #[arg(long, value_name = "NAMESPACE,…", value_delimiter = ',', requires = "smtp_tls", value_parser = namespace)]
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

/// Least size of a volume: two messages of the usual largest size.
const LEAST_SIZE: u64 = 70 << 20;

/// Bytes of a size of at least [`LEAST_SIZE`].
fn size(text: &str) -> Result<u64, String> {
    let size = quantity::bytes(text).filter(|size| *size >= LEAST_SIZE);
    size.ok_or_else(|| "not a size of at least 70Mi, such as 10Gi".to_owned())
}

/// A name of a namespace (RFC 1123, a label).
fn namespace(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=63).contains(&text.len()) && text.bytes().all(is_inner);
    let is_whole = is_name && !text.starts_with('-') && !text.ends_with('-');
    is_whole.then(|| text.to_owned()).ok_or_else(|| "not the name of a namespace".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{namespace, size};

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("1073741824", 1 << 30),
            ("70Mi", 70 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "Gi", "-1Gi", "1Gib", "69Mi", "99999999999Ti"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_of_a_namespace_is_refused() {
        assert_eq!(namespace("kube-system").as_deref(), Ok("kube-system"));
        for text in ["", "BAD NS", "a.b", "-a", "a-", "\u{e4}", &"a".repeat(64)] {
            assert!(namespace(text).is_err(), "{text}");
        }
    }
}

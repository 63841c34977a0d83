//! The command line. Every flag has an environment variable, so that a chart can set it either way.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_operator_core::resolve::operator_identity::TOKEN_FILE;
use tracing::Level;

use crate::inject_files::Inject;
use crate::injection_flags::InjectionFlags;
use crate::installation_test::Test;
use crate::logging::Format;
use crate::service::application::CONNECTIONS;

/// Kubernetes operator that lets pods send mail through Microsoft 365 by SMTP on localhost.
#[derive(Debug, Parser)]
#[command(name = "mailroute-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run in the cluster: controller, webhook and control service.
    Run(Box<Run>),
    /// Add the sidecar to pods in files, as the webhook would, without a cluster.
    Inject(Inject),
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
    /// Test an installation from a pod, as `helm test` does.
    #[command(subcommand)]
    Test(Test),
}

/// Source of the certificate of the webhook and the control service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Certificates {
    /// The operator's own CA, which it rotates and publishes in the caBundle.
    Own,
    /// cert-manager, whose injector writes the caBundle.
    CertManager,
    /// A Secret that you maintain; the operator publishes its ca.crt in the caBundle.
    Secret,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Namespace of the operator, its Lease and its Secret.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Address of this pod, to which sidecars connect when this replica is the leader.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: IpAddr,
    /// Namespaces whose MailRoutes and pods are served. Default: all.
    #[arg(long, env = "MAILROUTE_WATCH_NAMESPACES", value_name = "NAMESPACE", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Image of the sidecar that is injected.
    #[arg(long, env = "MAILROUTE_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// What else is chosen for sidecars.
    #[command(flatten)]
    pub injection: InjectionFlags,
    /// Service in front of the webhook and the control service.
    #[arg(long, env = "MAILROUTE_SERVICE", default_value = "mailroute")]
    pub service: String,
    /// MutatingWebhookConfiguration whose caBundle the operator maintains.
    #[arg(long, env = "MAILROUTE_WEBHOOK_CONFIGURATION", default_value = "mailroute")]
    pub webhook_configuration: String,
    /// Source of the served certificate.
    #[arg(long, env = "MAILROUTE_CERTIFICATES", value_enum, default_value = "own")]
    pub certificates: Certificates,
    /// Secret that holds the operator's own certificate authority, which signs the certificates of sidecars and gateways in any case.
    #[arg(long, env = "MAILROUTE_CA_SECRET", default_value = "mailroute-ca")]
    pub ca_secret: String,
    /// Secret with the served tls.crt, tls.key and ca.crt if --certificates is cert-manager or secret.
    #[arg(long, env = "MAILROUTE_CERTIFICATE_SECRET", default_value = "mailroute-tls")]
    pub certificate_secret: String,
    /// Lease for leader election.
    #[arg(long, env = "MAILROUTE_LEASE", default_value = "mailroute")]
    pub lease: String,
    /// File that lists the applications of the operator's identity, and which routes may use them. Default: none.
    #[arg(long, env = "MAILROUTE_BROKER_SETTINGS", value_name = "FILE")]
    pub broker_settings: Option<PathBuf>,
    /// File that lists which namespaces may send as which mailbox. Default: every namespace as every mailbox.
    #[arg(long, env = "MAILROUTE_MAILBOX_RULES", value_name = "FILE")]
    pub mailbox_rules: Option<PathBuf>,
    /// Requests of one Entra application at a time by the method Graph, over all its mailboxes.
    #[arg(long, env = "MAILROUTE_GRAPH_CONNECTIONS", value_name = "COUNT", default_value_t = CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub graph_connections: u32,
    /// The operator's own ServiceAccount token for Entra, which those applications trust.
    #[arg(long, env = "MAILROUTE_IDENTITY_TOKEN", value_name = "FILE", default_value = TOKEN_FILE)]
    pub identity_token: PathBuf,
    /// The proxy to Entra.
    #[command(flatten)]
    pub proxy: ProxyFlags,
    /// Where the admission webhook listens, HTTPS. `[::]` means every address, including IPv4.
    #[arg(long, env = "MAILROUTE_WEBHOOK_LISTEN", default_value = "[::]:8443")]
    pub webhook_listen: SocketAddr,
    /// Where the control service listens, HTTPS.
    #[arg(long, env = "MAILROUTE_CONTROL_LISTEN", default_value = "[::]:8444")]
    pub control_listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are served, HTTP.
    #[arg(long, env = "MAILROUTE_ADMIN_LISTEN", default_value = "[::]:8080")]
    pub admin_listen: SocketAddr,
    /// Whether a request to the control service has to come from an address of the pod in its token. Disable this if the
    /// network translates pod addresses between pods.
    #[arg(
        long,
        env = "MAILROUTE_CHECK_SOURCE_ADDRESS",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub check_source_address: bool,
    /// Domain of the cluster's Services.
    #[arg(long, env = "MAILROUTE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Whether to check what accepted domains publish in DNS (MX, SPF, DKIM, DMARC) and report it in the condition
    /// DnsPublished.
    #[arg(
        long,
        env = "MAILROUTE_DNS_PREFLIGHT",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub dns_preflight: bool,
    /// Name server for these checks, instead of those in /etc/resolv.conf.
    #[arg(long, env = "MAILROUTE_NAMESERVER", value_name = "ADDRESS:PORT")]
    pub nameserver: Option<SocketAddr>,
    /// After how many seconds without a report the status and an alert name a running sidecar.
    #[arg(long, env = "MAILROUTE_SILENT_AFTER", value_name = "SECONDS", default_value_t = 300)]
    pub silent_after: u32,
    /// Log format.
    #[arg(long, env = "MAILROUTE_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: Format,
    /// Log level: error, warn, info, debug or trace.
    #[arg(long, env = "MAILROUTE_LOG_LEVEL", default_value = "info")]
    pub log_level: Level,
}

/// The proxy between the operator and Entra, by the names that other programs have for it. An empty value is none.
#[derive(Clone, Default, Args)]
pub struct ProxyFlags {
    /// HTTP proxy for token requests to Entra.
    #[arg(long, env = "HTTPS_PROXY", value_name = "URL", hide_env_values = true)]
    https_proxy: Option<String>,
    /// Hosts, domains and networks that are reached without that proxy, separated by commas.
    #[arg(long, env = "NO_PROXY", value_name = "LIST")]
    no_proxy: Option<String>,
    /// The same variables as some programs write them; those in capitals come first.
    #[arg(long, env = "https_proxy", hide = true, hide_env_values = true)]
    https_proxy_lower_case: Option<String>,
    /// The same.
    #[arg(long, env = "no_proxy", hide = true)]
    no_proxy_lower_case: Option<String>,
}

impl fmt::Debug for ProxyFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("ProxyFlags").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

impl ProxyFlags {
    /// The proxy; none when none is named.
    ///
    /// # Errors
    /// When what is named is no proxy that can be used.
    pub fn web_proxy(&self) -> Result<Option<WebProxy>, WrongProxy> {
        WebProxy::of(
            set(&self.https_proxy).or(set(&self.https_proxy_lower_case)),
            set(&self.no_proxy).or(set(&self.no_proxy_lower_case)),
        )
    }
}

fn set(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn an_audience_of_the_api_server_or_ours_is_not_taken() {
        let with = |audience: &str| {
            let all =
                ["mailroute-operator", "inject", "-f", "-", "--route", "-", "--entra-audiences", audience];
            Cli::try_parse_from(all).is_ok()
        };
        assert!(with("api://private-cloud,api://AKSIdentityBinding"));
        assert!(!with("mailroute.dev") && !with("api://a,https://kubernetes.default.svc"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The kubelet sets `<SERVICE>_SERVICE_HOST`, `_SERVICE_PORT…`, `_PORT` and `_PORT_<number>_<protocol>…` for every Service.
    #[test]
    fn no_service_sets_a_flag_by_its_name() {
        let cli = Cli::command();
        let flags = cli.get_subcommands().flat_map(clap::Command::get_arguments);
        for name in flags.filter_map(|flag| flag.get_env()?.to_str()) {
            let is_made_up =
                name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_PORT_");
            assert!(!is_made_up, "{name}");
        }
    }

    #[test]
    fn every_flag_of_run_has_an_environment_variable() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        for flag in run.get_arguments().filter(|flag| flag.get_id() != "help") {
            assert!(flag.get_env().is_some(), "--{}", flag.get_id());
        }
    }
}

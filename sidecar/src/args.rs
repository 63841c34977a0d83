//! The command line.
//!
//! Options have no environment variables: for every Service of a namespace the kubelet sets variables in the containers of its
//! pods, and those of one named `mailroute` begin with `MAILROUTE_`. The exception are the variables by which Azure's webhook
//! names a token proxy.

pub mod gateway;
pub mod queue;
pub mod send;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mailroute_route::paths;
use tracing::Level;

use crate::config::PodSettings;
use crate::logging::Format;
use crate::message::envelope::{Address, AddressError};
use crate::token::proxy::Variables;

/// SMTP on localhost, forwarded through Microsoft 365.
///
/// Applications in the same pod send plain SMTP to localhost; this program delivers their mail to Microsoft 365 with the
/// method and the credential of the route.
#[derive(Debug, Parser)]
#[command(name = "mailroute-sidecar", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM (the default command).
    Run(Box<Run>),
    /// Test the connection to Microsoft 365 without sending mail, and explain each step.
    ///
    /// Reads the route file and the credential, requests a token, connects, logs in, and sends MAIL and RCPT, but never
    /// DATA. Works beside a running sidecar: kubectl exec POD -c mailroute -- /mailroute-sidecar check
    ///
    /// Exit code: 0 if a message could be sent, 1 if not, 2 for a mistake on the command line.
    Check(Box<Check>),
    /// Manage queued messages and dead letters.
    ///
    /// Sends commands to the running sidecar: kubectl exec POD -c mailroute -- /mailroute-sidecar queue list
    ///
    /// If none runs, list, show and export read the spool themselves; retry and drop need a running sidecar.
    ///
    /// Exit code: 0 if everything was done, 1 if not, 2 for a mistake on the command line.
    Queue(queue::Queue),
    /// Send a message through the running sidecar, as an application in the pod would, and show the time of each step.
    ///
    /// Exit code: 0 if it was accepted, 1 if not, 2 for a mistake on the command line.
    Send(Box<send::Send>),
    /// Ask the running sidecar whether it accepts mail. The kubelet's probes run this.
    ///
    /// Exit code: 0 if it does, 1 if not, 2 for a mistake on the command line.
    Alive(Alive),
}

/// Options of `alive`.
#[derive(Clone, Debug, Args)]
pub struct Alive {
    /// The spool, as given to `run`. The sidecar answers on a socket in it.
    #[arg(long, value_name = "DIR", default_value = paths::SPOOL_DIR)]
    pub spool_dir: PathBuf,

    /// Ask a gateway whether it can take messages over, too: it needs a certificate for that.
    #[arg(long)]
    pub ready: bool,

    /// Where the sidecar serves /livez: used if the spool's volume does not support sockets.
    #[arg(long, value_name = "ADDRESS", default_value_t = default_admin())]
    pub admin_listen: SocketAddr,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The rendered route.
    #[arg(long, value_name = "FILE", default_value_os_t = default_route())]
    pub route: PathBuf,

    /// Spool of the running sidecar, which says whether it holds mail back and whether its route was deleted.
    #[arg(long, value_name = "DIRECTORY", default_value = paths::SPOOL_DIR)]
    pub spool_dir: PathBuf,

    /// Name server for the MX record of a smart host, instead of those in /etc/resolv.conf.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub nameserver: Option<SocketAddr>,

    /// Sender to try. Default: the route's mailbox, or postmaster of its first accepted domain.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub from: Option<Address>,

    /// Recipient to try. Default: the default sender.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub to: Option<Address>,

    /// Maximum time for the whole check.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,

    /// The token proxy of an AKS identity binding.
    #[command(flatten)]
    pub token_proxy: Variables,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The rendered route. Watched; changes apply without a restart.
    #[arg(long, value_name = "FILE", default_value_os_t = default_route())]
    pub route: PathBuf,

    /// How often to check for a changed route.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub route_poll: Duration,

    /// The only control service to talk to, whatever the route names: whoever writes the route cannot have this pod's token sent
    /// elsewhere. Without it the one that the route names.
    #[arg(long, value_name = "HOST:PORT")]
    pub control: Option<String>,

    /// Directory of the mail queue: messages that were answered 250 and wait for delivery, dead letters, and the record of
    /// sent messages. Only one sidecar at a time may use it, on a volume that outlives the container.
    #[arg(long, value_name = "DIR", default_value = paths::SPOOL_DIR)]
    pub spool_dir: PathBuf,

    /// Port for SMTP on 127.0.0.1 and ::1, instead of the route's port. 0 selects a free one.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// How long a client waits for a session to end before it gets 421.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub session_wait: Duration,

    /// Where to serve /livez, /readyz and /metrics. `[::]` means every address, including IPv4.
    #[arg(long, value_name = "ADDRESS", default_value_t = default_admin())]
    pub admin_listen: SocketAddr,

    /// Name server for the MX record of a smart host, instead of those in /etc/resolv.conf.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub nameserver: Option<SocketAddr>,

    /// Maximum time an application waits for the reply to a message before it gets 451.
    #[arg(long, value_name = "SECONDS", default_value = "240", value_parser = seconds)]
    pub reply_timeout: Duration,

    /// Maximum time from SIGTERM to the end of the process, in which sessions may finish their message.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub grace: Duration,

    /// Log format.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: Format,

    /// Log level: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value_t = Level::INFO)]
    pub log_level: Level,

    /// The token proxy of an AKS identity binding.
    #[command(flatten)]
    pub token_proxy: Variables,

    /// A gateway's.
    #[command(flatten)]
    pub gateway: gateway::GatewayOptions,
}

impl Run {
    /// What goes before the route. A tenth of a gateway's volume is left to messages that pass through and to the file system.
    pub fn pod_settings(&self) -> PodSettings {
        let max_spool_bytes = self.gateway.spool_size.map(|bytes| bytes - bytes.div_ceil(10));
        PodSettings { control: self.control.clone(), max_spool_bytes }
    }
}

impl Cli {
    /// The command that was given, or else to run.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Run(Box::new(self.run)))
    }

    /// The options of `run`; those of another command are its defaults.
    pub fn into_run(self) -> Run {
        match self.command {
            Some(Command::Run(run)) => *run,
            _ => self.run,
        }
    }
}

fn default_route() -> PathBuf {
    PathBuf::from(paths::ROUTE_DIR).join(paths::ROUTE_KEY)
}

fn default_admin() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, paths::ADMIN_PORT).into()
}

fn address(text: &str) -> Result<Address, AddressError> {
    Address::parse(text)
}

/// Seconds, with a fraction if need be; more than none.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("has to be more than 0 seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The variables that a command and those below it read.
    fn variables(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|option| option.get_env());
        let own = own.map(|name| name.to_string_lossy().into_owned());
        own.chain(command.get_subcommands().flat_map(variables)).collect()
    }

    #[test]
    fn a_service_of_whatever_name_sets_no_option() {
        // Kubernetes describes a Service named `mailroute` by MAILROUTE_PORT, MAILROUTE_SERVICE_HOST and others like these.
        let agreed = |name: &String| {
            name.starts_with("AZURE_") || ["HTTPS_PROXY", "NO_PROXY"].contains(&name.to_uppercase().as_str())
        };
        let foreign: Vec<_> = variables(&Cli::command()).into_iter().filter(|name| !agreed(name)).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }

    #[test]
    fn run_is_what_happens_without_a_command() {
        let with = Cli::try_parse_from(["mailroute-sidecar", "run", "--port", "2525"]).unwrap().into_run();
        let without = Cli::try_parse_from(["mailroute-sidecar", "--port", "2525"]).unwrap().into_run();
        assert_eq!((with.port, without.port), (Some(2525), Some(2525)));
    }

    #[test]
    fn defaults_are_what_the_operator_mounts() {
        let run = Cli::try_parse_from(["mailroute-sidecar"]).unwrap().into_run();
        assert_eq!(run.route, PathBuf::from("/etc/mailroute/route/route.json"));
        assert_eq!(run.admin_listen.to_string(), "[::]:9025");
    }

    #[test]
    fn check_takes_addresses_and_a_form_of_output() {
        let parse = |options: &[&str]| {
            let all = ["mailroute-sidecar", "check"].iter().chain(options);
            Cli::try_parse_from(all).map(Cli::into_command)
        };
        let Ok(Command::Check(check)) = parse(&["--to", "a@contoso.com", "-o", "json"]) else {
            panic!("check is a command");
        };
        assert_eq!((check.to.unwrap().as_str(), check.output), ("a@contoso.com", Output::Json));
        assert_eq!(check.route, PathBuf::from("/etc/mailroute/route/route.json"));
        assert_eq!(parse(&["--from", "a b"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn no_time_at_all_is_refused() {
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("x").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    }
}

//! The command line. It refuses to know what the commands do.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// A strict simulator of Microsoft 365 for mail: Entra token endpoint, client submission, Graph, High Volume Email,
/// Communication Services, MX endpoint and name server.
#[derive(Debug, Parser)]
#[command(name = "m365-simulator", version, about, long_about = None)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the simulator until SIGTERM or Ctrl-C.
    Serve(Box<Serve>),
    /// Write a token of the stand-in issuer, like the one that a cluster projects into a pod.
    Token(Token),
    /// Print the sample configuration, to begin a file for `serve --config` with.
    Config,
}

/// Run the simulator.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address of SMTP submission (STARTTLS)
    #[arg(long, default_value = "127.0.0.1:8587", value_name = "ADDRESS:PORT")]
    pub smtp: SocketAddr,
    /// Address of the MX endpoint: SMTP relay and Direct Send
    #[arg(long, default_value = "127.0.0.1:8025", value_name = "ADDRESS:PORT")]
    pub relay: SocketAddr,
    /// Address of High Volume Email (STARTTLS)
    #[arg(long, default_value = "127.0.0.1:8588", value_name = "ADDRESS:PORT")]
    pub high_volume_email: SocketAddr,
    /// Address of Communication Services, SMTP (STARTTLS)
    #[arg(long, default_value = "127.0.0.1:8589", value_name = "ADDRESS:PORT")]
    pub communication_services: SocketAddr,
    /// Address of Graph (HTTPS)
    #[arg(long, default_value = "127.0.0.1:8444", value_name = "ADDRESS:PORT")]
    pub graph: SocketAddr,
    /// Address of the token endpoint (HTTPS)
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS:PORT")]
    pub login: SocketAddr,
    /// Address of the name server (UDP and TCP)
    #[arg(long, default_value = "127.0.0.1:8053", value_name = "ADDRESS:PORT")]
    pub dns: SocketAddr,
    /// Address of the control API and the inbox, which is a page (plain HTTP, no authentication)
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub control: SocketAddr,
    /// Name in the certificate, by which clients must connect; may be given several times
    #[arg(long = "name", default_value = "localhost", value_name = "NAME")]
    pub names: Vec<String>,
    /// JSON document with tenants, applications, mailboxes and limits; without it the sample is used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for what outlives a restart: the certificate authority (ca.pem) and what PUT /config has set
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Secret of this pod's namespace that has a copy of the state directory, for the pod that comes after this one
    #[arg(long, value_name = "NAME", requires = "state")]
    pub state_secret: Option<String>,
    /// Keep a fresh token of the stand-in issuer in a file, for example
    /// system:serviceaccount:shop:default=/tmp/token; may be given several times
    #[arg(long = "assertion", value_name = "SUBJECT=FILE", value_parser = subject_and_file)]
    pub assertions: Vec<(String, PathBuf)>,
    /// Also log what happens inside TLS and HTTP
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Log trouble only, for benchmarks
    #[arg(long)]
    pub quiet: bool,
}

/// Write a token of the stand-in issuer.
#[derive(Debug, Args)]
pub struct Token {
    /// Subject of the token
    #[arg(long, default_value = crate::directory::SAMPLE_SUBJECT, value_name = "SUBJECT")]
    pub subject: String,
    /// File to write; the token goes to standard output without it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Lifetime in seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub lifetime: u32,
    /// Stay, and write a new token at four fifths of the lifetime, as the kubelet does
    #[arg(long, requires = "out")]
    pub refresh: bool,
}

fn subject_and_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((subject, file)) if !subject.is_empty() && !file.is_empty() => Ok((subject.into(), file.into())),
        _ => Err("expected SUBJECT=FILE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_assertion_needs_subject_and_file() {
        assert!(subject_and_file("system:serviceaccount:a:b=/tmp/t").is_ok());
        for bad in ["", "=", "a=", "=b", "ab"] {
            assert!(subject_and_file(bad).is_err(), "{bad}");
        }
    }
}

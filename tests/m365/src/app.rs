//! The program: reads files, starts the simulator, keeps assertion files fresh, and ends on a signal.

use std::{
    future::pending,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

use crate::{
    args::{Arguments, Command, Serve, Token},
    config::Config,
    simulator::{Options, Simulator, write_atomically},
    stand_in::StandIn,
};

/// Lifetime of tokens that `serve --assertion` writes, seconds. The kubelet's default.
const ASSERTION_LIFETIME: u32 = 3600;

/// Runs the command.
///
/// # Errors
/// A sentence for a person.
pub async fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Serve(serve) => run_server(*serve).await,
        Command::Token(token) => write_token(token).await,
        Command::Config => print(&serde_json::to_string_pretty(&Config::contoso())?),
    }
}

async fn run_server(serve: Serve) -> Result<()> {
    let level = match (serve.verbose, serve.quiet) {
        (true, _) => Level::DEBUG,
        (_, true) => Level::WARN,
        _ => Level::INFO,
    };
    tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(std::io::stdout).init();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let config = match &serve.config {
        Some(path) => read_config(path)?,
        None => Config::contoso(),
    };
    let Serve { smtp, relay, login, dns, control, names, state, assertions, .. } = serve;
    let simulator =
        Simulator::start(Options { smtp, relay, login, dns, control, names, config, state }).await?;
    let signer = simulator.signer();
    for (subject, file) in &assertions {
        write(file, &signer(subject))?;
    }
    tracing::info!(
        smtp = %simulator.smtp_address(), relay = %simulator.relay_address(), login = %simulator.login_address(), dns = %simulator.dns_address(),
        control = %simulator.control_address(),
        "ready"
    );
    tokio::select! {
        () = simulator.wait() => bail!("a face ended; its error is in the log above"),
        failed = keep_fresh(assertions, signer) => failed,
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C"),
    }
}

fn read_config(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a configuration", path.display()))
}

async fn write_token(token: Token) -> Result<()> {
    let seconds = i64::from(token.lifetime);
    let signer = move |subject: &str| StandIn::default().assertion(subject, Timestamp::now(), seconds);
    let Some(out) = token.out else { return print(&signer(&token.subject)) };
    write(&out, &signer(&token.subject))?;
    if token.refresh { refresh(token.subject, out, token.lifetime, signer).await } else { Ok(()) }
}

async fn keep_fresh(
    assertions: Vec<(String, PathBuf)>,
    signer: impl Fn(&str) -> String + Clone,
) -> Result<()> {
    let files = assertions
        .into_iter()
        .map(|(subject, file)| refresh(subject, file, ASSERTION_LIFETIME, signer.clone()));
    futures::future::try_join_all(files).await?;
    pending().await
}

/// The kubelet renews a projected token at four fifths of its life.
async fn refresh(
    subject: String,
    file: PathBuf,
    lifetime: u32,
    signer: impl Fn(&str) -> String,
) -> Result<()> {
    loop {
        tokio::time::sleep(Duration::from_secs(u64::from(lifetime)) * 4 / 5).await;
        write(&file, &signer(&subject))?;
    }
}

fn write(file: &Path, token: &str) -> Result<()> {
    write_atomically(file, token).with_context(|| format!("cannot write {}", file.display()))
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

//! The program: reads files, starts the simulator, keeps assertion files fresh, and ends on a signal.

use std::{
    future::pending,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;

use crate::{
    args::{Arguments, Command, Serve, Token},
    config::Config,
    files::write_atomically,
    office::{Office, Shared},
    options::{Addresses, Options},
    simulator::Simulator,
    stand_in::StandIn,
    state_secret::StateSecret,
};

/// Lifetime of tokens that `serve --assertion` writes, seconds. The kubelet's default.
const ASSERTION_LIFETIME: u32 = 3600;

/// Pause before the state is written to its Secret again, after the API server did not take it.
const COPY_AGAIN: Duration = Duration::from_secs(5);

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
    let Serve { smtp, relay, high_volume_email, communication_services, graph, login, dns, control, .. } =
        serve;
    let Serve { names, state, state_secret, assertions, .. } = serve;
    let copy = match (&state, state_secret) {
        (Some(directory), Some(name)) => {
            let secret = StateSecret::of_this_pod(&name).context("--state-secret is for pods")?;
            secret.read_into(directory).await.context("cannot read the Secret with the state")?;
            Some((secret, directory.clone()))
        }
        _ => None,
    };
    let options = Options {
        addresses: Addresses {
            smtp,
            relay,
            high_volume_email,
            communication_services,
            graph,
            login,
            dns,
            control,
        },
        names,
        config,
        state,
    };
    let simulator = Simulator::start(options).await?;
    let (signer, office) = (simulator.signer(), simulator.office());
    for (subject, file) in &assertions {
        write(file, &signer(subject))?;
    }
    tracing::info!(
        smtp = %simulator.smtp_address(), relay = %simulator.relay_address(),
        high_volume_email = %simulator.high_volume_email_address(),
        communication_services = %simulator.communication_services_address(), graph = %simulator.graph_address(), login = %simulator.login_address(), dns = %simulator.dns_address(),
        control = %simulator.control_address(), inbox = %format_args!("http://{}/", simulator.control_address()),
        "ready"
    );
    tokio::select! {
        () = simulator.wait() => bail!("a face ended; its error is in the log above"),
        failed = keep_fresh(assertions, signer) => failed,
        () = keep_copy(office, copy) => Ok(()),
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

/// Writes the state directory to its Secret, now and after each change of the configuration; again after a while when the API
/// server does not take it.
async fn keep_copy(office: Arc<Shared>, copy: Option<(StateSecret, PathBuf)>) {
    let Some((secret, directory)) = copy else { return pending().await };
    loop {
        let written = office.read(|office| office.config.clone());
        if let Err(error) = secret.write_from(&directory).await {
            tracing::warn!("the Secret with the state is not written: {error}");
            tokio::time::sleep(COPY_AGAIN).await;
            continue;
        }
        let changed = |office: &Office| (office.config != written).then_some(());
        office.wait_for(changed).await;
    }
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

//! `make try`: the sidecar and the Microsoft 365 simulator alone on this computer. No cluster, no root.
//!
//! Starts both, sends one message to `localhost:2525` as an application would, and shows it as Microsoft 365 received
//! it. With `--keep` both stay up, so that an application under development can send to the same port.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../tests/relay/route.rs"]
mod route;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lettre::address::Envelope;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use mailroute_m365::directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT};
use mailroute_m365::{Message, Options, Simulator};
use mailroute_route::paths;
use mailroute_sidecar::app::{App, Intervals};
use mailroute_sidecar::args::Cli;

/// How long one message may take on this computer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the assertion is written again with `--keep`; it lives for an hour.
const ASSERTION_RENEWAL: Duration = Duration::from_secs(1800);

/// Tries the sidecar with a simulated Microsoft 365.
#[derive(Parser)]
struct Arguments {
    /// Port on localhost for applications.
    #[arg(long, default_value_t = 2525)]
    port: u16,
    /// How the message goes: ClientSubmission or Graph.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Way::ClientSubmission)]
    method: Way,
    /// Stay up until Ctrl-C and show every message that arrives.
    #[arg(long)]
    keep: bool,
}

/// The methods to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Way {
    /// Client submission.
    ClientSubmission,
    /// Microsoft Graph.
    Graph,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // What the sidecar says of a port that is taken is about pods.
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).with_context(|| {
        format!("cannot listen on localhost:{}; with another port: make try PORT=2526", arguments.port)
    })?;
    let folder = tempfile::tempdir()?;
    let simulator = Simulator::start(Options::default()).await?;
    prepare(&simulator, folder.path(), arguments.method)?;
    let app = start_sidecar(folder.path(), arguments.port).await?;
    println!("sidecar        localhost:{}  (what applications send to)", arguments.port);
    println!(
        "Microsoft 365  {}  (simulated)",
        match arguments.method {
            Way::ClientSubmission => format!("smtp://{}", simulator.smtp_address()),
            Way::Graph => format!("https://{}", simulator.graph_address()),
        }
    );
    println!(
        "inbox          http://{}/  (a page with what arrives, and the control API)",
        simulator.control_address()
    );

    send(arguments.port).await?;
    let arrived = simulator.wait_for_messages(1, PATIENCE).await;
    ensure!(arrived.len() == 1, "{} messages arrived instead of 1", arrived.len());
    ensure!(simulator.violations().is_empty(), "Exchange would have refused: {:?}", simulator.violations());
    show(&arrived[0]);
    if arguments.keep {
        println!(
            "\nBoth stay up until Ctrl-C: send to localhost:{}, and read what arrives at http://{}/.",
            arguments.port,
            simulator.control_address()
        );
        keep(&simulator, folder.path()).await?;
    }
    app.stop().await;
    println!(
        "\ntry: 1 message sent to localhost:{}, 1 accepted by Microsoft 365 (simulated)",
        arguments.port
    );
    Ok(())
}

/// What a pod would have mounted: the simulator's CA, a service-account token, and the rendered route.
fn prepare(simulator: &Simulator, folder: &Path, method: Way) -> Result<()> {
    let ca_file = folder.join(paths::CA_FILE);
    let token_file = folder.join(paths::ENTRA_TOKEN_FILE);
    std::fs::write(&ca_file, simulator.ca_pem())?;
    simulator.write_assertion(SAMPLE_SUBJECT, &token_file)?;
    let mut route = route::to_simulator(simulator, ca_file, token_file, None);
    if method == Way::Graph {
        route::by_graph(simulator, &mut route, false);
    }
    std::fs::write(folder.join(paths::ROUTE_KEY), route.to_json())?;
    Ok(())
}

/// The sidecar as it runs in a pod, with the folder in place of the mounts.
async fn start_sidecar(folder: &Path, port: u16) -> Result<App> {
    let (route, spool) = (folder.join(paths::ROUTE_KEY), folder.display().to_string());
    let command_line = Cli::try_parse_from([
        "mailroute-sidecar",
        "--route",
        &route.display().to_string(),
        "--spool-dir",
        &spool,
        "--port",
        &port.to_string(),
        "--admin-listen",
        &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string(),
    ])?;
    App::start(command_line.into_run(), Intervals::default()).await.context("the sidecar does not start")
}

/// What an application does.
async fn send(port: u16) -> Result<()> {
    let envelope = Envelope::new(Some(SAMPLE_MAILBOX.parse()?), vec!["ada@example.com".parse()?])?;
    let text = format!(
        "From: Shop <{SAMPLE_MAILBOX}>\r\nTo: Ada <ada@example.com>\r\nSubject: Your order has been shipped\r\n\r\n\
         It left the warehouse today."
    );
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost").port(port).build();
    let reply = transport.send_raw(&envelope, text.as_bytes()).await?;
    println!(
        "\nthe application was told: {} {}",
        reply.code(),
        reply.message().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

fn show(message: &Message) {
    println!("\nMicrosoft 365 received:");
    println!("  by             {:?}", message.connection.face);
    println!("  mailbox        {}", message.mailbox);
    println!("  MAIL FROM      {} {}", message.mail_from, message.mail_parameters.join(" "));
    println!("  RCPT TO        {}", message.recipient_addresses().join(", "));
    println!("  token subject  {}", message.token.assertion_subject);
    println!("  connection     {}\n", message.connection.tls_version.as_deref().unwrap_or("no TLS"));
    for line in String::from_utf8_lossy(&message.data).lines() {
        println!("  | {line}");
    }
}

/// Shows what arrives until Ctrl-C.
async fn keep(simulator: &Simulator, folder: &Path) -> Result<()> {
    let mut shown = simulator.messages().len();
    loop {
        tokio::select! {
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
            () = tokio::time::sleep(ASSERTION_RENEWAL) => {
                simulator.write_assertion(SAMPLE_SUBJECT, &folder.join(paths::ENTRA_TOKEN_FILE))?;
            }
            arrived = simulator.wait_for_messages(shown + 1, ASSERTION_RENEWAL) => {
                for message in arrived.iter().skip(shown) {
                    show(message);
                }
                shown = arrived.len().max(shown);
            }
        }
    }
}

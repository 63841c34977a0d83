//! `mailroute-sidecar send`: a message to the listener of the sidecar beside it, as an application of the pod would send it, with
//! the time of each step.
//!
//! * [`report`]: what was met → text for people, JSON for programs. Pure.
//!
//! Here: the client's side of one SMTP session on loopback. Refuses to know how mail is delivered: what the sidecar answers is
//! all that it tells.

pub mod report;

use std::io;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::args::send::Send;
use crate::cli::check::usual_address;
use crate::clock;
use crate::config::{self, Config, PodSettings};
use crate::message::envelope::{Address, QueueId, ReversePath};
use crate::smtp::reply::{Reply, ReplyReader};
use crate::smtp::trace::rfc5322_date;
use report::{Report, Step};

/// Octets that are read at a time.
const READ: usize = 4096;

/// Most octets of a reply that is not complete.
const MAX_REPLY: usize = 512 * 1024;

/// Sends the message, and says what was met.
pub async fn run(options: &Send) -> Report {
    let Config { route, error, .. } = config::load(&options.route, &PodSettings::default()).await;
    let Some(route) = route else {
        return Report::failed(format!("there is no valid route: {}", error.unwrap_or_default()));
    };
    let usual = Address::parse(&usual_address(&route)).ok();
    let from = options.from.clone().or(usual).map_or(ReversePath::Null, ReversePath::Address);
    let (now, random) =
        (clock::timestamp(), u64::from_le_bytes(clock::nonce()[..8].try_into().unwrap_or_default()));
    let domain = from.address().map_or("mailroute.invalid", Address::domain);
    let mut report = Report {
        route: Some(format!("{}/{}", route.namespace, route.name)),
        from: from.to_string(),
        to: options.to.to_string(),
        message_id: format!("<{}.test@{domain}>", QueueId::new(now, random)),
        ..Report::default()
    };
    let port = options.port.unwrap_or(route.listen.port);
    let message = message(&report, options, now);
    let sent =
        timeout(options.timeout, converse(port, &from, &options.to, &message, &mut report.steps)).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report.error = Some(error.to_string()),
        Err(_) => report.error = Some(format!("no end within {} seconds", options.timeout.as_secs_f64())),
    }
    report.concluded()
}

/// The header and a few words.
fn message(report: &Report, options: &Send, now: Timestamp) -> String {
    format!(
        "From: {}\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: {}\r\nAuto-Submitted: auto-generated\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         This is a test message. It was sent on {} through the MailRoute {}.\r\n",
        report.from,
        options.to,
        options.subject,
        rfc5322_date(now),
        report.message_id,
        now,
        report.route.as_deref().unwrap_or_default(),
    )
}

async fn converse(
    port: u16,
    from: &ReversePath,
    to: &Address,
    message: &str,
    steps: &mut Vec<Step>,
) -> io::Result<()> {
    let start = clock::now();
    let mut client =
        Client { stream: TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?, received: Vec::new() };
    let utf8 = !to.is_ascii() || from.address().is_some_and(|from| !from.is_ascii());
    let parameters = if utf8 { " SMTPUTF8 BODY=8BITMIME" } else { "" };
    let commands = [
        ("connection", String::new()),
        ("EHLO", "EHLO mailroute-send\r\n".to_owned()),
        ("MAIL", format!("MAIL FROM:{from}{parameters}\r\n")),
        ("RCPT", format!("RCPT TO:<{to}>\r\n")),
        ("DATA", "DATA\r\n".to_owned()),
        ("message", format!("{message}.\r\n")),
    ];
    let mut begun = start;
    for (step, command) in commands {
        let reply = client.ask(&command).await?;
        let is_positive = reply.is_positive();
        let now = clock::now();
        steps.push(Step::new(step, now.duration_since(begun), &reply));
        begun = now;
        if !is_positive {
            break;
        }
    }
    // The message was answered: how the session ends changes nothing.
    let _ = client.ask("QUIT\r\n").await;
    Ok(())
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn ask(&mut self, command: &str) -> io::Result<Reply> {
        self.stream.write_all(command.as_bytes()).await?;
        let mut reader = ReplyReader::default();
        loop {
            let taken = reader.read(&self.received).map_err(io::Error::other)?;
            self.received.drain(..taken);
            if let Some(reply) = reader.reply() {
                return Ok(reply);
            }
            let mut piece = [0; READ];
            match self.stream.read(&mut piece).await? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the sidecar closed the connection",
                    ));
                }
                _ if self.received.len() > MAX_REPLY => return Err(io::Error::other("the reply has no end")),
                read => self.received.extend_from_slice(&piece[..read]),
            }
        }
    }
}

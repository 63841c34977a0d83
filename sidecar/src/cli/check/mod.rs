//! `mailroute-sidecar check`: walks the way to Microsoft 365 up to RCPT, without a message, and explains each step.
//!
//! * [`steps`]: what was met → steps, each with what to do. Pure.
//! * [`mod@print`]: steps → text for people, JSON for programs. Pure.
//!
//! Here: the files, the walk and its time limit. The walk is the one that mail takes ([`crate::upstream::transports`]), over a
//! connection and with a token of its own, beside a sidecar that may be running: it neither disturbs that one nor shares
//! what it remembers, but asks it what it holds mail back for.

pub mod places;
pub mod print;
pub mod steps;

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use mailroute_dns::resolver::Resolver;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{Method, SendingMailbox};
use mailroute_route::paths::TOKENS_DIR;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::args::Check;
use crate::cli::queue::client::ask;
use crate::cli::queue::protocol::{Answer, Request};
use crate::config::{self, Config, PodSettings};
use crate::delivery::{DryRun, Transport};
use crate::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use crate::metrics::Metrics;
use crate::net::control_service;
use crate::outcome::{DeliveryOutcome, Verdict};
use crate::queue::Obstacle;
use crate::route_deleted::RouteDeleted;
use crate::smtp::mailboxes::serving_all;
use crate::token::Sources;
use crate::upstream;
use steps::Findings;

/// Walks the way, that of each mailbox where there are several, and says what was found.
///
/// # Errors
/// When the metrics that every way counts in cannot be made, which is a mistake in the program.
pub async fn walk(options: &Check) -> prometheus::Result<Findings> {
    // The pod's token goes where the sidecar would send it, whatever the route file says by now.
    let noted = control_service::noted_address(&options.spool_dir).await;
    let control = noted.as_ref().ok().cloned().flatten();
    let pod = PodSettings { control, ..PodSettings::default() };
    let Config { route, error, .. } = config::load(&options.route, &pod).await;
    let route = route.map(|route| asking_only_the_noted(route, &noted, Path::new(TOKENS_DIR).exists()));
    let route_deleted = RouteDeleted::new(&options.spool_dir).is_noted();
    let Some(route) = route else {
        return Ok(Findings::without_route(error.unwrap_or_default()));
    };
    let metrics = Arc::new(Metrics::new()?);
    let (_, config) = watch::channel(Config { route: Some(Arc::clone(&route)), ..Config::default() });
    let sources = Sources::new(config, &options.token_proxy);
    let second = fallback(&route);
    let (lanes, second) = (route.lanes(), Vec::from_iter(second));
    let walk_all = |routes: &[RouteFile]| {
        let transports = upstream::transports(routes, &sources, &Resolver::new(options.nameserver), &metrics);
        let walks = routes.iter().cloned().zip(transports);
        let from = sender(options, &route);
        join_all(walks.map(move |(lane, transport)| walked(options, from(&lane), lane, transport)))
    };
    // At the same time, so that all fit into the one limit.
    let (firsts, seconds, obstacle) = tokio::join!(walk_all(&lanes), walk_all(&second), obstacle(options));
    let mut findings = Findings::of_mailboxes(firsts);
    findings.route_deleted = route_deleted;
    let findings = seconds.into_iter().fold(findings, Findings::with_fallback);
    Ok(match obstacle {
        Some(obstacle) => findings.beside(&obstacle, &route),
        None => findings,
    })
}

/// What the way that `route` describes meets.
async fn walked(
    options: &Check,
    from: Option<Address>,
    route: RouteFile,
    transport: Arc<dyn Transport>,
) -> Findings {
    let envelope = envelope(from, options, &route);
    let mut dry_run = DryRun::default();
    if timeout(options.timeout, transport.dry_run(&envelope, &mut dry_run)).await.is_err() {
        let text = format!("no result within {} seconds", options.timeout.as_secs_f64());
        let outcome = DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable));
        dry_run.stopped = Some(Verdict::without_reply(outcome, text));
    }
    Findings::of(&route, &envelope, &dry_run)
}

/// The fallback of a Graph route, as a route.
fn fallback(route: &RouteFile) -> Option<RouteFile> {
    let Method::Graph(graph) = &route.method else { return None };
    Some(RouteFile { method: Method::ClientSubmission(graph.submission()?), ..route.clone() })
}

/// The route without its control service where the sidecar's own is not known: in a pod, the one that the route names might be
/// anybody's.
fn asking_only_the_noted(
    route: Arc<RouteFile>,
    noted: &io::Result<Option<String>>,
    is_in_pod: bool,
) -> Arc<RouteFile> {
    match noted {
        Ok(Some(_)) => route,
        Ok(None) if !is_in_pod => route,
        Ok(None) | Err(_) => Arc::new(RouteFile { control: None, ..RouteFile::clone(&route) }),
    }
}

/// What the sidecar that runs holds its mail back for; nothing where none runs, or it does not say so in time.
async fn obstacle(options: &Check) -> Option<Obstacle> {
    let asked = timeout(options.timeout, ask(&options.spool_dir, Request::Obstacle)).await.ok()?.ok()?;
    match asked.answer {
        Answer::Obstacle(obstacle) => obstacle,
        _ => None,
    }
}

/// An address that the method has to take as the sender: the mailbox, or else the postmaster that every accepted domain has
/// (RFC 5321 §4.5.1).
pub fn usual_address(route: &RouteFile) -> String {
    match &route.method {
        Method::ClientSubmission(submission) => submission.mailbox.clone(),
        Method::Graph(graph) => graph.mailbox.clone(),
        Method::SmtpRelay(relay) => postmaster(&relay.accepted_domains),
        Method::DirectSend(direct) => postmaster(&direct.accepted_domains),
    }
}

/// The sender that was asked for, for each mailbox that would send its mail.
fn sender(options: &Check, route: &RouteFile) -> impl Fn(&RouteFile) -> Option<Address> {
    let from = options.from.clone();
    let mailboxes: &[SendingMailbox] = match &route.method {
        Method::ClientSubmission(submission) => &submission.mailboxes,
        _ => &[],
    };
    let serving: Vec<String> = from
        .iter()
        .flat_map(|from| serving_all(mailboxes, from))
        .map(|mailbox| mailbox.address.clone())
        .collect();
    let is_one = mailboxes.is_empty();
    move |lane| {
        let own = lane.method.mailbox().is_some_and(|own| serving.iter().any(|one| one == own));
        from.clone().filter(|_| is_one || own)
    }
}

/// From whom to whom: as asked for, or else from the usual address to itself.
fn envelope(from: Option<Address>, options: &Check, route: &RouteFile) -> Envelope {
    let usual = || Address::parse(&usual_address(route)).ok();
    let from = from.or_else(usual);
    Envelope {
        // Names nothing: there is no message.
        id: QueueId::new(Timestamp::UNIX_EPOCH, 0),
        message_id: String::new(),
        client_name: String::new(),
        reverse_path: from.map_or(ReversePath::Null, ReversePath::Address),
        recipients: options.to.clone().or_else(usual).into_iter().collect(),
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    }
}

fn postmaster(domains: &[String]) -> String {
    domains.first().map(|domain| format!("postmaster@{domain}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::ControlService;

    use super::*;

    #[test]
    fn no_service_is_asked_that_the_sidecar_in_the_pod_has_not_noted() {
        let mut route = config::parse(config::tests::SAMPLE.as_bytes()).unwrap();
        route.control = Some(ControlService {
            address: "evil.example:8444".into(),
            token_file: "/var/run/secrets/mailroute/tokens/control".into(),
            ca_pem: String::new(),
            leases: true,
        });
        let route = Arc::new(route);
        let asks =
            |noted, is_in_pod| asking_only_the_noted(Arc::clone(&route), &noted, is_in_pod).control.is_some();
        assert!(!asks(Ok(None), true) && !asks(Err(io::ErrorKind::PermissionDenied.into()), true));
        assert!(!asks(Err(io::ErrorKind::IsADirectory.into()), false), "there is a sidecar");
        assert!(asks(Ok(None), false), "on files, without a sidecar");
        assert!(asks(Ok(Some("mailroute.svc:8444".into())), true), "the address is that of the note by now");
    }
}

//! `mailroute-sidecar check`: walks the way to Microsoft 365 up to RCPT, without a message, and explains each step.
//!
//! * [`steps`]: what was met → steps, each with what to do. Pure.
//! * [`mod@print`]: steps → text for people, JSON for programs. Pure.
//!
//! Here: the files, the walk and its time limit. The walk is the one that mail takes ([`crate::upstream::transport`]), over a
//! connection and with a token of its own, beside a sidecar that may be running: it neither disturbs that one nor shares
//! what it remembers, but asks it what it holds mail back for.

pub mod places;
pub mod print;
pub mod steps;

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mailroute_dns::resolver::Resolver;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::Method;
use mailroute_route::paths::TOKENS_DIR;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::args::Check;
use crate::cli::queue::client::ask;
use crate::cli::queue::protocol::{Answer, Request};
use crate::config::{self, Config, PodSettings};
use crate::delivery::DryRun;
use crate::message::envelope::{Address, BodyType, Envelope, QueueId, ReversePath};
use crate::metrics::Metrics;
use crate::net::control_service;
use crate::outcome::{DeliveryOutcome, Verdict};
use crate::queue::Obstacle;
use crate::route_deleted::RouteDeleted;
use crate::token::Sources;
use crate::upstream;
use steps::Findings;

/// Walks the way, and says what was found.
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
    let walk_one = |route: RouteFile| walked(options, route, &sources, &metrics);
    let second = async {
        match second {
            Some(second) => Some(walk_one(second).await),
            None => None,
        }
    };
    // At the same time, so that all fit into the one limit.
    let (first, second, obstacle) =
        tokio::join!(walk_one(RouteFile::clone(&route)), second, obstacle(options));
    let findings = Findings { route_deleted, ..first };
    let findings = match second {
        Some(second) => findings.with_fallback(second),
        None => findings,
    };
    Ok(match obstacle {
        Some(obstacle) => findings.beside(&obstacle, &route),
        None => findings,
    })
}

/// What the way that `route` describes meets.
async fn walked(options: &Check, route: RouteFile, sources: &Sources, metrics: &Arc<Metrics>) -> Findings {
    let transport = upstream::transport(&route, sources, &Resolver::new(options.nameserver), metrics);
    let envelope = envelope(options, &route);
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

/// From whom to whom: as asked for, or else from the usual address to itself.
fn envelope(options: &Check, route: &RouteFile) -> Envelope {
    let usual = || Address::parse(&usual_address(route)).ok();
    let from = options.from.clone().or_else(usual);
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

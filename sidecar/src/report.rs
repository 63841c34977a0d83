//! Tells the operator's control service what this sidecar meets.
//!
//! Promptly after a change (at most once in [`Reporter::least`]), and otherwise when the service asked for it. A replica that is not
//! the leader names the leader, which is then dialled under the service's own name. At the end what was not told yet is
//! told once more: a pod that failed after a second still shows why.
//!
//! Where the service leases the mailboxes' limits, each report also carries what the budgets ask for, and is made when one
//! says so. Without an answer mail goes on at the little that the budget allows then.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use mailroute_route::control::{
    Allotment, MailboxReport, NotLeader, Observation, Queue, REPORT_PATH, Report, ReportReply,
};
use mailroute_route::file::{ControlService, LogAddresses};
use mailroute_route::text::shortened;
use tokio::sync::watch;

use crate::attempt::Attempts;
use crate::attempt::lanes::Lanes;
use crate::clock;
use crate::config::Config;
use crate::metrics::{Metrics, ReportResult};
use crate::net::control_service::{self, ServiceError};
use crate::outcome::health::Health;
use crate::queue::QueueSummary;
use crate::route_deleted::RouteDeleted;

/// Bounds on what the service may ask for, seconds.
const NEXT_SECONDS: std::ops::RangeInclusive<u64> = 5..=3600;

/// Longest time for the last words: the stop waits for them.
const FAREWELL: Duration = Duration::from_secs(1);

/// The queue changes with every message, so that a change of it alone is told only after so many times the least pause, unless
/// the end is near.
const QUEUE_CALM: u32 = 4;

/// Longest `configError` that is sent, bytes.
const MAX_CONFIG_ERROR: usize = 512;

/// Longest message about one mailbox among several, bytes, so that a report about many stays within its bound.
const MAX_TROUBLE: usize = 200;

/// What reports are made from.
pub struct Reporter {
    /// The configuration, with the service's address.
    pub config: watch::Receiver<Config>,
    /// What was met.
    pub health: watch::Receiver<Health>,
    /// What waits.
    pub queue: Box<dyn Fn() -> Queue + Send + Sync>,
    /// Message-IDs of what waits, while the process ends.
    pub left: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Why no gateway can be reached, or why this pod has no certificate for it.
    pub gateway: watch::Receiver<Option<String>>,
    /// Where it is noted that the route was deleted.
    pub deleted: RouteDeleted,
    /// Changes with it.
    pub notable: watch::Receiver<QueueSummary>,
    /// Where results are counted.
    pub metrics: Arc<Metrics>,
    /// Least time between two reports.
    pub least: Duration,
    /// What each mailbox met and sent, and its limits, of which the service may lease a share.
    pub lanes: Arc<Lanes>,
    /// How many messages wait for each lane.
    pub waiting: Box<dyn Fn() -> Vec<u64> + Send + Sync>,
}

/// Why nobody took a report.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the control service answered HTTP {0}")]
    Status(u16),
    #[error("the control service's answer is not valid")]
    Answer,
    #[error("no replica of the control service is the leader")]
    NoLeader,
}

/// A claim that was sent.
struct SentClaim {
    attempts: Arc<Attempts>,
    mailbox: String,
    /// When it was made.
    at: Duration,
}

/// What stays between reports.
#[derive(Default)]
struct Memory {
    /// The replica that leads, when another one named it.
    leader: Option<String>,
    /// The report that was taken last.
    taken: Option<Report>,
    /// Reports in a row that nobody took.
    failures: u32,
    /// This is the last one.
    is_leaving: bool,
}

impl Reporter {
    /// Reports until `stop`, and then once more if there is news.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut memory = Memory::default();
        tokio::select! {
            () = self.keep_reporting(&mut memory) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
        self.farewell(&mut memory).await;
    }

    async fn keep_reporting(&mut self, memory: &mut Memory) {
        loop {
            let (report, control) = self.report();
            let pause = match control {
                None => None,
                Some(control) => Some(self.exchange(report, &control, memory).await),
            };
            self.due(pause, memory.failures > 0).await;
        }
    }

    /// The last report, when something is different from what was told; an exchange that the stop cut off counts as not
    /// told.
    async fn farewell(&mut self, memory: &mut Memory) {
        let (report, control) = self.report();
        let is_leased = self.lanes.in_use().any(|attempts| attempts.budget().claim().is_some());
        let news = is_leased || memory.taken.as_ref() != Some(&report);
        let Some(control) = control.filter(|_| news) else { return };
        memory.is_leaving = true;
        if tokio::time::timeout(FAREWELL, self.exchange(report, &control, memory)).await.is_err() {
            self.metrics.reported(ReportResult::Failed);
            tracing::warn!("the control service did not accept the last report in time");
        }
    }

    /// One exchange, and the pause after it.
    async fn exchange(&self, report: Report, control: &ControlService, memory: &mut Memory) -> Duration {
        let mut said = report.clone();
        let sent = self.add_claims(&mut said, memory);
        let has_several = !report.mailboxes.is_empty();
        match send(&said, control, &mut memory.leader).await {
            Ok(reply) => {
                (memory.failures, memory.taken) = (0, Some(report));
                self.metrics.reported(ReportResult::Taken);
                self.deleted.note(reply.route_deleted).await;
                // A route that was not known to its budget yet has its first claim to make now.
                for SentClaim { attempts, mailbox, at } in sent {
                    match allotment_of(&reply, &mailbox, has_several) {
                        Some(allotment) => attempts.budget().answered(at, allotment).await,
                        None => attempts.budget().unanswered(pace::FIRST),
                    }
                }
                let seconds = u64::from(reply.next_seconds);
                Duration::from_secs(seconds.clamp(*NEXT_SECONDS.start(), *NEXT_SECONDS.end()))
            }
            Err(error) => {
                memory.leader = None;
                memory.failures += 1;
                self.metrics.reported(ReportResult::Failed);
                // Once in full; a longer absence is told by the metric.
                if memory.failures == 1 {
                    tracing::warn!(%error, "the control service did not accept the report");
                }
                let pause = pace::retry_pause(memory.failures, clock::chance());
                // Mail that waits for a lease is asked for more often: a change of leader takes seconds.
                let is_wanting = self.lanes.in_use().any(|attempts| attempts.budget().is_wanting());
                let soon =
                    if is_wanting { pace::wanting_pause(memory.failures, clock::chance()) } else { pause };
                self.lanes.in_use().for_each(|attempts| attempts.budget().unanswered(soon));
                pause
            }
        }
    }

    /// Adds what the budgets have to say with this report, and remembers when they said so.
    fn add_claims(&self, report: &mut Report, memory: &Memory) -> Vec<SentClaim> {
        let waiting = (self.waiting)();
        let mut sent = Vec::new();
        for (attempts, waiting) in self.lanes.iter().zip(waiting).filter(|(lane, _)| lane.is_active()) {
            let Some((mut claim, at)) = attempts.budget().claim() else { continue };
            if claim.messages > 0 {
                claim.messages = u32::try_from(waiting).unwrap_or(u32::MAX).max(claim.messages);
            }
            claim.leaving = memory.is_leaving;
            let mailbox = claim.mailbox.clone();
            if report.mailboxes.is_empty() {
                report.claim = Some(claim);
            } else {
                let own = report.mailboxes.iter_mut().find(|own| own.mailbox.eq_ignore_ascii_case(&mailbox));
                // The route has changed since: the next report is about that mailbox, too.
                let Some(own) = own else { continue };
                own.claim = Some(claim);
            }
            sent.push(SentClaim { attempts: Arc::clone(attempts), mailbox, at });
        }
        sent
    }

    /// What there is to say of each mailbox, where there are several.
    fn mailboxes(&self) -> Vec<MailboxReport> {
        let report = |attempts: &Arc<Attempts>| {
            let health = attempts.health().subscribe();
            let trouble = health.borrow().trouble().map(|met| Observation {
                message: shortened(&met.message, MAX_TROUBLE).into_owned(),
                ..met.clone()
            });
            Some(MailboxReport {
                mailbox: attempts.mailbox()?,
                trouble,
                usage: attempts.usage(),
                claim: None,
            })
        };
        let mailboxes: Vec<_> = self.lanes.in_use().filter_map(report).collect();
        if mailboxes.len() > 1 { mailboxes } else { vec![] }
    }

    /// Completes when the next report is due: after `pause`, or soon after a change. After a report that nobody took, only another
    /// configuration and the end of the pod are changes.
    async fn due(&mut self, pause: Option<Duration>, has_failed: bool) {
        let (notable, calm) = (&mut self.notable, self.least * QUEUE_CALM);
        let queue = async {
            if has_failed {
                return wait_or_never(notable.wait_for(|queue| queue.is_ending)).await;
            }
            wait_or_never(notable.changed()).await;
            // An end may leave no time for another report, and what waits is lost with the pod.
            drop(tokio::time::timeout(calm, notable.wait_for(|queue| queue.is_ending)).await);
        };
        let changed = async {
            tokio::select! {
                _ = self.config.changed() => {}
                _ = self.health.changed(), if !has_failed => {}
                Ok(()) = self.gateway.changed(), if !has_failed => {}
                () = queue => {}
            }
        };
        let (lanes, least) = (&self.lanes, self.least);
        let claim_is_due = select_all(lanes.iter().map(|attempts| Box::pin(attempts.budget().due())));
        let reported = async {
            match pause {
                None => changed.await,
                Some(pause) => {
                    tokio::time::sleep(least).await;
                    let _ = tokio::time::timeout(pause.saturating_sub(least), changed).await;
                }
            }
        };
        tokio::select! {
            () = reported => {}
            // Nothing of it can be told while there is no service.
            _ = claim_is_due, if pause.is_some() => {}
        }
    }

    fn report(&mut self) -> (Report, Option<ControlService>) {
        let config = self.config.borrow_and_update().clone();
        let health = self.health.borrow_and_update().clone();
        self.notable.mark_unchanged();
        let route = config.route.as_deref();
        let mailboxes = self.mailboxes();
        let shows_ids = route.is_some_and(|route| route.log_addresses != LogAddresses::Hidden);
        let report = Report {
            route: route.map_or_else(String::new, |route| route.name.clone()),
            generation: route.map_or(0, |route| route.generation),
            sidecar_version: env!("CARGO_PKG_VERSION").to_owned(),
            config_error: config.objection().map(|error| shortened(error, MAX_CONFIG_ERROR).into_owned()),
            observations: health.observations().cloned().collect(),
            queue: (self.queue)(),
            usage: self.lanes.usage(),
            egress: health.egress(),
            left: if shows_ids { (self.left)() } else { vec![] },
            gateway_error: self.gateway.borrow_and_update().clone(),
            claim: None,
            mailboxes,
        };
        (report, route.and_then(|route| route.control.clone()))
    }
}

/// Completes with a change; never when there will be none.
async fn wait_or_never<T, E>(change: impl Future<Output = Result<T, E>>) {
    if change.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The answer to the claim of a mailbox.
fn allotment_of<'a>(reply: &'a ReportReply, mailbox: &str, has_several: bool) -> Option<&'a Allotment> {
    if !has_several {
        return reply.allotment.as_ref();
    }
    let own = reply.allotments.iter().find(|own| own.mailbox.eq_ignore_ascii_case(mailbox));
    own.map(|own| &own.allotment)
}

/// Posts the report to the leader if it is known, else to the service; follows one pointer to the leader.
async fn send(
    report: &Report,
    control: &ControlService,
    leader: &mut Option<String>,
) -> Result<ReportReply, ReportError> {
    let body = Bytes::from(serde_json::to_vec(report).map_err(|_| ReportError::Answer)?);
    for _ in 0..2 {
        let answer = control_service::post(control, leader.as_deref(), REPORT_PATH, body.clone()).await?;
        match answer.status {
            200 => return serde_json::from_slice(&answer.body).map_err(|_| ReportError::Answer),
            421 => {
                let named: NotLeader =
                    serde_json::from_slice(&answer.body).map_err(|_| ReportError::Answer)?;
                *leader = Some(named.leader.ok_or(ReportError::NoLeader)?);
            }
            status => return Err(ReportError::Status(status)),
        }
    }
    Err(ReportError::NoLeader)
}

#[cfg(test)]
mod tests {
    use mailroute_route::control::MailboxAllotment;

    use super::*;

    #[test]
    fn each_mailbox_has_its_own_answer_where_there_are_several() {
        let allotment = |again_millis| Allotment { again_millis, ..Allotment::default() };
        let of =
            |mailbox: &str, again| MailboxAllotment { mailbox: mailbox.into(), allotment: allotment(again) };
        let reply = ReportReply {
            next_seconds: 60,
            allotment: Some(allotment(1)),
            allotments: vec![of("a@contoso.com", 2), of("b@contoso.com", 3)],
            route_deleted: false,
        };
        let again = |mailbox, several| allotment_of(&reply, mailbox, several).map(|it| it.again_millis);
        assert_eq!(again("a@contoso.com", false), Some(1));
        assert_eq!(again("B@contoso.com", true), Some(3));
        assert_eq!(again("c@contoso.com", true), None);
    }
}

//! A report as it is kept: what the pods of a route say alike is in memory once, and apart from it what each of them counts.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use mailroute_route::control::{Queue, Report, Usage};

use super::{AccountedMail, ReceivedReport};

/// Different reports of one route that a new one is compared with.
const COMPARED: usize = 8;

/// The newest report of one pod.
#[derive(Debug)]
pub(super) struct KeptReport {
    pod: Box<str>,
    /// What it said, without [`Counts`].
    pub(super) said: Arc<Report>,
    pub(super) counts: Counts,
    pub(super) at: Timestamp,
    pub(super) since: Timestamp,
    pub(super) is_told: bool,
    pub(super) accounted: AccountedMail,
}

/// What changes from one report to the next.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) queue: Queue,
    usage: Usage,
    pub(super) egress: Option<IpAddr>,
    /// When each of the observations was made.
    met: Box<[i64]>,
}

/// What pods of one route said, so that equal reports are one.
#[derive(Debug, Default)]
pub(super) struct SaidOfRoute(Vec<Arc<Report>>);

impl SaidOfRoute {
    /// The report, or an equal one that is known.
    fn share(&mut self, report: Report) -> Arc<Report> {
        if let Some(known) = self.0.iter().find(|known| ***known == report) {
            return Arc::clone(known);
        }
        self.0.retain(|known| Arc::strong_count(known) > 1);
        if self.0.len() >= COMPARED {
            self.0.remove(0);
        }
        let report = Arc::new(report);
        self.0.push(Arc::clone(&report));
        report
    }
}

impl KeptReport {
    /// What is kept of a report.
    pub(super) fn of(received: ReceivedReport, known: &mut SaidOfRoute) -> Self {
        let ReceivedReport { pod, mut report, at, since, is_told, accounted } = received;
        let counts = Counts {
            queue: std::mem::take(&mut report.queue),
            usage: std::mem::take(&mut report.usage),
            egress: report.egress.take(),
            met: report.observations.iter_mut().map(|met| std::mem::take(&mut met.at)).collect(),
        };
        Self { pod: pod.into(), said: known.share(report), counts, at, since, is_told, accounted }
    }

    /// The report as it was received.
    pub(super) fn received(&self) -> ReceivedReport {
        let (mut report, Counts { queue, usage, egress, met }) = (Report::clone(&self.said), &self.counts);
        (report.queue, report.usage, report.egress) = (*queue, *usage, *egress);
        report.observations.iter_mut().zip(met).for_each(|(observation, at)| observation.at = *at);
        let Self { at, since, is_told, accounted, .. } = *self;
        ReceivedReport { pod: self.pod.to_string(), report, at, since, is_told, accounted }
    }
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;

    use crate::samples;

    use super::*;

    fn received(pod: &str, message: &str, at: i64) -> ReceivedReport {
        let mut report = samples::report(vec![
            samples::observation(Reason::LoggedIn, message, at),
            samples::observation(Reason::TokenAcquired, "", at + 1),
        ]);
        report.queue.messages = at as u64;
        report.egress = Some([203, 0, 113, at as u8].into());
        let at = Timestamp::from_second(at).unwrap();
        let accounted = AccountedMail { was_live: true, dead_letters: Some(3), ..Default::default() };
        ReceivedReport { pod: pod.into(), report, at, since: at, is_told: true, accounted }
    }

    #[test]
    fn what_is_kept_says_all_that_was_received() {
        let mut known = SaidOfRoute::default();
        let all = [received("a", "235", 5), received("b", "235", 6), received("c", "535", 7)];
        let kept = all.clone().map(|it| KeptReport::of(it, &mut known));
        assert_eq!(kept.each_ref().map(KeptReport::received), all);
        assert!(Arc::ptr_eq(&kept[0].said, &kept[1].said) && !Arc::ptr_eq(&kept[0].said, &kept[2].said));
    }

    #[test]
    fn a_route_whose_pods_all_say_something_else_is_compared_with_few() {
        let mut known = SaidOfRoute::default();
        let kept: Vec<_> =
            (0..100).map(|n| KeptReport::of(received("a", &n.to_string(), 1), &mut known)).collect();
        assert_eq!((known.0.len(), kept.len()), (COMPARED, 100));
        drop(kept);
        KeptReport::of(received("a", "new", 1), &mut known);
        assert_eq!(known.0.len(), 1, "what nobody says any more is dropped");
    }
}

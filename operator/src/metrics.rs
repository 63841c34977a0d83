//! Every metric of the operator, with its help line. Label values come from closed sets, apart from namespace and name of
//! MailRoutes: never a pod, an address or an error text.

mod closed;
mod families;

use std::time::Duration;

use mailroute_metrics::{Families, Family, PrintedGauge, gauges};
use mailroute_operator_core::crd::status::{QueueStatus, Sidecars};
use mailroute_operator_core::inject::Refusal;
use mailroute_operator_core::webhook_configuration::ConfigurationFinding;
use mailroute_route::condition::Reason;
use prometheus::{Registry, TextEncoder};

use self::families::{Admission, Control, Leading, Routes, Standing, Trust};
use crate::pki::BundleWritten;

/// The metrics of one operator process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    standing: Standing,
    routes: Routes,
    leading: Leading,
    control: Control,
    admission: Admission,
    trust: Trust,
}

/// What the status of a route says, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct RouteStanding<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Whether it is Ready; none when that is not known.
    pub ready: Option<bool>,
    /// Its sidecars.
    pub sidecars: Sidecars,
    /// The messages in them.
    pub queue: QueueStatus,
}

type ValueOfRoute = fn(&RouteStanding<'_>) -> i64;

/// Which certificate an expiry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// The authority that signs at present.
    Authority,
    /// What this replica serves.
    Leaf,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics share a name; a programming error that any test would show.
    pub fn new() -> Result<Self, prometheus::Error> {
        let this = Self::register(&Families::default())?;
        this.show_closed_sets();
        Ok(this)
    }

    /// Every metric family, for the reference.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn families() -> Result<Vec<Family>, prometheus::Error> {
        let families = Families::default();
        Self::register(&families)?;
        Ok(families.into_list())
    }

    fn register(r: &Families) -> Result<Self, prometheus::Error> {
        let build = gauges(r, "mailroute_operator_build_info", "The program that runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            standing: Standing::register(r)?,
            routes: Routes::register(r),
            leading: Leading::register(r)?,
            control: Control::register(r)?,
            admission: Admission::register(r)?,
            trust: Trust::register(r)?,
            registry: r.registry(),
        })
    }

    /// Makes every value of the closed sets visible before it is first counted.
    fn show_closed_sets(&self) {
        let one_label = [
            (&self.leading.reconciles, &closed::RECONCILES[..]),
            (&self.control.reports, &closed::REPORTS),
            (&self.control.leases, &closed::LEASES),
            (&self.control.token_requests, &closed::TOKEN_REQUESTS),
            (&self.control.certificate_requests, &closed::CERTIFICATE_REQUESTS),
            (&self.control.review_requests, &closed::REVIEW_REQUESTS),
            (&self.leading.evictions, &closed::EVICTIONS),
            (&self.trust.ca_bundle_writes, &closed::CA_BUNDLE_WRITES),
            (&self.leading.events, &closed::EVENTS),
            (&self.leading.dns_looks, &closed::DNS_LOOKS),
        ];
        for (counters, values) in one_label {
            for value in values {
                counters.with_label_values(&[value]);
            }
        }
        for outcome in closed::ADMISSIONS {
            self.admission.reviews.with_label_values(&[outcome, ""]);
        }
        for reason in Refusal::REASONS {
            self.admission.reviews.with_label_values(&["refused", reason]);
        }
        self.control.token_exchanges.with_label_values(&[Reason::TokenAcquired.as_str()]);
        self.webhook_findings(std::iter::empty());
    }

    /// Every metric in Prometheus' text format, but those of single routes.
    ///
    /// # Errors
    /// When a metric cannot be printed.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut page = String::new();
        self.print(&mut page)?;
        Ok(page)
    }

    /// Appends them to a page.
    ///
    /// # Errors
    /// When a metric cannot be printed.
    pub fn print(&self, page: &mut String) -> Result<(), prometheus::Error> {
        TextEncoder::new().encode_utf8(&self.registry.gather(), page)
    }

    /// Whether this replica is the leader.
    pub fn leading(&self, leading: bool) {
        self.standing.leader.set(leading.into());
    }

    /// One reconciliation ended. `outcome` is `ok` or the static label of an error.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.leading.reconciles.with_label_values(&[outcome]).inc();
        self.leading.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// How many routes have Ready with this status (`True`, `False` or `Unknown`).
    pub fn routes(&self, ready: &'static str, count: usize) {
        self.standing.routes.with_label_values(&[ready]).set(saturating(count));
    }

    /// Appends the metrics of single routes to a page. These are all routes now.
    pub fn print_routes(&self, page: &mut String, routes: &[RouteStanding<'_>]) {
        let metrics = &self.routes;
        let one_each: [(PrintedGauge, ValueOfRoute); 5] = [
            (metrics.ready, |route| route.ready.map_or(-1, i64::from)),
            (metrics.queued, |route| bounded(route.queue.messages)),
            (metrics.oldest, |route| bounded(route.queue.oldest_seconds)),
            (metrics.dead_letters, |route| bounded(route.queue.dead_letters)),
            (metrics.lost, |route| bounded(route.queue.lost)),
        ];
        for (gauge, value) in one_each {
            gauge.print(page, routes.iter().map(|route| ([route.namespace, route.name], value(route))));
        }
        let states = routes.iter().flat_map(|route| {
            let Sidecars { injected, silent, .. } = route.sidecars;
            [("injected", injected), ("silent", silent)]
                .map(|(state, count)| ([route.namespace, route.name, state], count.into()))
        });
        metrics.sidecars.print(page, states);
    }

    /// How many stored routes cannot be read.
    pub fn malformed_routes(&self, count: usize) {
        self.standing.malformed.set(saturating(count));
    }

    /// How many sidecars are in this state (`injected`, `ready`, `converged`, `outdated` or `missing` or `silent`).
    pub fn sidecars(&self, state: &'static str, count: usize) {
        self.standing.sidecars.with_label_values(&[state]).set(saturating(count));
    }

    /// A sidecar that asked for a lease was answered. `outcome` is `granted`, or what there was not enough of.
    pub fn lease(&self, outcome: &'static str) {
        self.control.leases.with_label_values(&[outcome]).inc();
    }

    /// One report was answered. `outcome` comes from a closed set of the control service.
    pub fn report(&self, outcome: &'static str) {
        self.control.reports.with_label_values(&[outcome]).inc();
    }

    /// One request for an access token was answered. `outcome` comes from a closed set of the broker.
    pub fn token_asked(&self, outcome: &'static str) {
        self.control.token_requests.with_label_values(&[outcome]).inc();
    }

    /// One request for a certificate was answered. `outcome` comes from a closed set of the control service.
    pub fn certificate_asked(&self, outcome: &'static str) {
        self.control.certificate_requests.with_label_values(&[outcome]).inc();
    }

    /// One request to review a client's token was answered. `outcome` comes from a closed set of the control service.
    pub fn review_asked(&self, outcome: &'static str) {
        self.control.review_requests.with_label_values(&[outcome]).inc();
    }

    /// One exchange of the operator's own identity ended.
    pub fn token_exchanged(&self, reason: Reason) {
        self.control.token_exchanges.with_label_values(&[reason.as_str()]).inc();
    }

    /// One admission review was answered. `outcome` and `reason` come from closed sets of the webhook; `reason` is
    /// empty where there is none.
    pub fn admission(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.admission.reviews.with_label_values(&[outcome, reason]).inc();
        self.admission.seconds.observe(took.as_secs_f64());
    }

    /// A pod was to be evicted. `outcome` is one of a closed set of the controller.
    pub fn eviction(&self, outcome: &'static str) {
        self.leading.evictions.with_label_values(&[outcome]).inc();
    }

    /// So many messages waited in a pod that has ended.
    pub fn messages_lost(&self, count: u64) {
        self.leading.messages_lost.inc_by(count);
    }

    /// When a certificate ends, seconds since the Unix epoch.
    pub fn certificate_expiry(&self, certificate: Certificate, unix_seconds: i64) {
        let label = match certificate {
            Certificate::Authority => "ca",
            Certificate::Leaf => "leaf",
        };
        self.trust.certificate_expiry.with_label_values(&[label]).set(unix_seconds);
    }

    /// The `caBundle` was written, or could not be.
    pub fn ca_bundle(&self, written: BundleWritten<'_>) {
        let result = match written {
            BundleWritten::Bundle => "published",
            BundleWritten::Repair(_) => "repaired",
            BundleWritten::Failure => "failed",
        };
        self.trust.ca_bundle_writes.with_label_values(&[result]).inc();
    }

    /// These are the reasons of what is wrong with the webhook configuration now.
    pub fn webhook_findings<'a>(&self, reasons: impl Iterator<Item = &'a str>) {
        let found: Vec<_> = reasons.collect();
        for reason in ConfigurationFinding::REASONS {
            self.trust.findings.with_label_values(&[reason]).set(found.contains(&reason).into());
        }
    }

    /// The DNS records of a domain were looked at (`published`, `findings`, `failed`).
    pub fn dns_look(&self, outcome: &'static str) {
        self.leading.dns_looks.with_label_values(&[outcome]).inc();
    }

    /// One Kubernetes Event was published, failed, or was left out (`published`, `failed`, `dropped`).
    pub fn event(&self, outcome: &'static str) {
        self.leading.events.with_label_values(&[outcome]).inc();
    }
}

fn bounded(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn saturating(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_that_is_gone_is_zero_again() {
        let metrics = Metrics::new().unwrap();
        let value = |reasons: &[&str]| {
            metrics.webhook_findings(reasons.iter().copied());
            let text = metrics.text().unwrap();
            let line = text.lines().find(|line| line.contains("reason=\"WebhookTooWide\"")).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!([value(&["WebhookTooWide"]), value(&[])], ["1", "0"]);
    }

    #[test]
    fn a_route_that_is_gone_has_no_series() {
        let metrics = Metrics::new().unwrap();
        let queue = QueueStatus { lost: 3, ..QueueStatus::default() };
        let standing = RouteStanding {
            namespace: "shop",
            name: "mail",
            ready: None,
            sidecars: Sidecars::default(),
            queue,
        };
        let text = |routes: &[RouteStanding<'_>]| {
            let mut page = String::new();
            metrics.print_routes(&mut page, routes);
            page
        };
        for line in [
            "mailroute_route_ready_status{namespace=\"shop\",route=\"mail\"} -1",
            "mailroute_route_lost_messages{namespace=\"shop\",route=\"mail\"} 3",
            "mailroute_route_sidecars{namespace=\"shop\",route=\"mail\",state=\"silent\"} 0",
        ] {
            assert!(text(&[standing]).contains(line), "{line} is not in\n{}", text(&[standing]));
        }
        assert_eq!(text(&[]), "");
    }

    /// Values come as constants, or from an enum; so what a label is called says what it can hold.
    #[test]
    fn no_label_holds_a_name_and_the_series_are_few() {
        let metrics = Metrics::new().unwrap();
        metrics.routes("True", 1000);
        metrics.sidecars("ready", 5000);
        metrics.certificate_expiry(Certificate::Leaf, 1);
        metrics.admission("refused", "UnknownRoute", Duration::ZERO);
        metrics.reconciled("ok", Duration::ZERO);
        metrics.webhook_findings(["somebody", "WebhookTooWide"].into_iter());
        let text = metrics.text().unwrap();
        let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let labels = series
            .iter()
            .filter_map(|line| line.split_once('{')?.1.split_once('}'))
            .map(|(labels, _)| labels);
        let names: std::collections::BTreeSet<_> = labels
            .flat_map(|labels| labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)))
            .collect();
        assert_eq!(
            names.into_iter().collect::<Vec<_>>(),
            ["certificate", "le", "outcome", "ready", "reason", "result", "state", "version"]
        );
        assert!(series.len() < 200 && !text.contains("somebody"), "{}", series.len());
    }

    #[test]
    fn what_happened_is_printed() {
        let metrics = Metrics::new().unwrap();
        metrics.leading(true);
        metrics.report("accepted");
        metrics.admission("refused", "UnknownRoute", Duration::from_millis(3));
        let text = metrics.text().unwrap();
        for line in [
            "mailroute_operator_leader 1",
            "mailroute_reports_received_total{outcome=\"accepted\"} 1",
            "mailroute_admissions_total{outcome=\"refused\",reason=\"UnknownRoute\"} 1",
            "mailroute_admission_duration_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}

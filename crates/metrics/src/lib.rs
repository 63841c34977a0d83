//! Metric families of a program: made here, so that each is in the registry, which is scraped, and in a list, from which the
//! reference is generated.
//!
//! One function for each shape of metric; names, labels and help lines are constants of the program. Refuses to know what is
//! counted.

use std::cell::RefCell;
use std::fmt::{self, Write};

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// What all series of one name have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name, such as `mailroute_queue_messages`.
    pub name: &'static str,
    /// Its type, as Prometheus has it.
    pub kind: Kind,
    /// Its labels; empty for a metric of a single series.
    pub labels: &'static [&'static str],
    /// One sentence that is scraped with it.
    pub help: &'static str,
}

/// The type of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the program runs.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl Kind {
    /// The word of Prometheus' text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The metric families of one program, registered one after the other.
#[derive(Debug, Default)]
pub struct Families {
    registry: Registry,
    families: RefCell<Vec<Family>>,
}

impl Families {
    /// What is scraped. Cheap to clone, and the same registry each time.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// All families so far, in the order in which they were registered.
    pub fn into_list(self) -> Vec<Family> {
        self.families.into_inner()
    }

    fn add<C: Collector + Clone + 'static>(&self, family: Family, metric: C) -> Result<C, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        self.families.borrow_mut().push(family);
        Ok(metric)
    }
}

/// A counter of one series.
///
/// # Errors
/// When the name is taken or malformed: a mistake in the program that any test shows. The same goes for all functions below.
pub fn counter(r: &Families, name: &'static str, help: &'static str) -> Result<IntCounter, Error> {
    r.add(Family { name, kind: Kind::Counter, labels: &[], help }, IntCounter::new(name, help)?)
}

/// A counter for each combination of labels.
///
/// # Errors
/// As [`counter`].
pub fn counters(
    r: &Families,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Result<IntCounterVec, Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.add(Family { name, kind: Kind::Counter, labels, help }, metric)
}

/// A gauge of whole numbers.
///
/// # Errors
/// As [`counter`].
pub fn gauge(r: &Families, name: &'static str, help: &'static str) -> Result<IntGauge, Error> {
    r.add(Family { name, kind: Kind::Gauge, labels: &[], help }, IntGauge::new(name, help)?)
}

/// A gauge of whole numbers for each combination of labels.
///
/// # Errors
/// As [`counter`].
pub fn gauges(
    r: &Families,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Result<IntGaugeVec, Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    r.add(Family { name, kind: Kind::Gauge, labels, help }, metric)
}

/// A gauge of whole numbers whose series are printed from the state that they show, and not kept: of tens of thousands of series, each
/// would take some hundred octets.
#[derive(Clone, Copy, Debug)]
pub struct PrintedGauge(Family);

/// A [`PrintedGauge`] for each combination of labels.
pub fn printed_gauges(
    r: &Families,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> PrintedGauge {
    let family = Family { name, kind: Kind::Gauge, labels, help };
    r.families.borrow_mut().push(family);
    PrintedGauge(family)
}

impl PrintedGauge {
    /// Appends the series to a page in Prometheus' text format: the values of their labels, in order, and their own.
    pub fn print<const LABELS: usize>(
        &self,
        page: &mut String,
        series: impl IntoIterator<Item = ([impl AsRef<str>; LABELS], i64)>,
    ) {
        let Family { name, kind, labels, help } = self.0;
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        for (values, value) in series {
            page.push_str(name);
            for (number, (label, text)) in labels.iter().zip(&values).enumerate() {
                let before = if number == 0 { '{' } else { ',' };
                let _ = write!(page, "{before}{label}=\"{}\"", Escaped(text.as_ref()));
            }
            let _ = writeln!(page, "}} {value}");
        }
    }
}

/// The value of a label, as the text format wants it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// A gauge of fractions.
///
/// # Errors
/// As [`counter`].
pub fn ratio(r: &Families, name: &'static str, help: &'static str) -> Result<Gauge, Error> {
    r.add(Family { name, kind: Kind::Gauge, labels: &[], help }, Gauge::new(name, help)?)
}

/// A gauge of fractions for each combination of labels.
///
/// # Errors
/// As [`counter`].
pub fn ratios(
    r: &Families,
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Result<GaugeVec, Error> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    r.add(Family { name, kind: Kind::Gauge, labels, help }, metric)
}

/// A histogram with these upper bounds, in the unit of its name.
///
/// # Errors
/// As [`counter`].
pub fn histogram(
    r: &Families,
    name: &'static str,
    help: &'static str,
    bounds: &[f64],
) -> Result<Histogram, Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?;
    r.add(Family { name, kind: Kind::Histogram, labels: &[], help }, metric)
}

/// A histogram for each combination of labels.
///
/// # Errors
/// As [`counter`].
pub fn histograms(
    r: &Families,
    name: &'static str,
    help: &'static str,
    bounds: &[f64],
    labels: &'static [&'static str],
) -> Result<HistogramVec, Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)?;
    r.add(Family { name, kind: Kind::Histogram, labels, help }, metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scraped_is_what_is_listed() {
        let r = Families::default();
        counter(&r, "mailroute_a_total", "A.").unwrap().inc();
        ratios(&r, "mailroute_b_ratio", "B.", &["limit"]).unwrap().with_label_values(&["day"]).set(0.5);
        let scraped = r.registry().gather();
        let scraped: Vec<_> = scraped.iter().map(|family| (family.name(), family.help())).collect();
        assert_eq!(scraped, [("mailroute_a_total", "A."), ("mailroute_b_ratio", "B.")]);
        let listed = r.into_list();
        assert_eq!(listed.iter().map(|family| (family.name, family.help)).collect::<Vec<_>>(), scraped);
        assert_eq!(listed[1].labels, ["limit"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_listed_twice() {
        let r = Families::default();
        gauge(&r, "mailroute_a_status", "A.").unwrap();
        assert!(gauge(&r, "mailroute_a_status", "Another.").is_err());
        assert_eq!(r.into_list().len(), 1);
    }
}

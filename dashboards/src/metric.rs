//! The metrics that a board can name: those of the agent's table, each by its type.
//!
//! They are looked up when the program is compiled, so a board that names a metric which does not
//! exist, or takes the rate of a gauge, is no program.

use agent::metrics::{Kind, PROCESS, family};

use crate::{expr::Expr, variable::Variable};

/// What rates are taken over: Grafana's own choice for the range shown and the scrape interval.
pub const RATE: &str = "$__rate_interval";

/// A metric, of whatever type.
#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    labels: &'static [&'static str],
}

/// A gauge.
#[derive(Clone, Copy)]
pub(crate) struct Gauge(Metric);

/// A counter, which shows as a rate or an increase alone.
#[derive(Clone, Copy)]
pub(crate) struct Counter(Metric);

/// A histogram.
#[derive(Clone, Copy)]
pub(crate) struct Histogram(Metric);

impl Metric {
    /// A metric of the table, which must be of this type.
    const fn of(name: &str, kind: Kind) -> Self {
        let family = family(name);
        assert!(
            matches!(
                (family.kind, kind),
                (Kind::Gauge, Kind::Gauge)
                    | (Kind::Counter, Kind::Counter)
                    | (Kind::Histogram, Kind::Histogram)
            ),
            "the metric is of another type"
        );
        Self {
            name: family.name,
            labels: family.labels,
        }
    }

    /// One of the agent's own process, by its place in [`PROCESS`].
    const fn process(place: usize) -> Self {
        Self {
            name: PROCESS[place],
            labels: &[],
        }
    }

    /// Its series that the board's variables choose, where these matchers hold besides.
    fn selector(self, matchers: &str) -> Expr {
        self.selector_of(self.name, matchers)
    }

    /// The same of a histogram's buckets.
    fn buckets(self, matchers: &str) -> Expr {
        self.selector_of(&format!("{}_bucket", self.name), matchers)
    }

    fn selector_of(self, name: &str, matchers: &str) -> Expr {
        let mut all = vec![Variable::Job.matcher(), Variable::Instance.matcher()];
        if self.labels.contains(&Variable::Workload.name()) {
            all.push(Variable::Workload.matcher());
        }
        if !matchers.is_empty() {
            all.push(matchers.to_owned());
        }
        Expr::new(format!("{name}{{{}}}", all.join(",")))
    }
}

impl Gauge {
    /// A gauge of the table.
    pub(crate) const fn of(name: &str) -> Self {
        Self(Metric::of(name, Kind::Gauge))
    }

    /// One of the agent's own process, by its place in [`PROCESS`].
    pub(crate) const fn process(place: usize) -> Self {
        Self(Metric::process(place))
    }

    /// What it is now, where these matchers hold besides those of the board.
    pub(crate) fn now(self, matchers: &str) -> Expr {
        self.0.selector(matchers)
    }

    /// How much more or less it gets a second, going by these last minutes.
    pub(crate) fn slope(self, minutes: u32, matchers: &str) -> Expr {
        let selector = self.0.selector(matchers);
        Expr::new(format!("deriv({selector}[{minutes}m])"))
    }

    /// Grafana's query for the values from which one chooses this variable, where what these
    /// variables are is chosen already.
    pub(crate) fn values(self, of: Variable, chosen: &[Variable]) -> String {
        let (metric, label) = (self.0.name, of.name());
        let matchers: Vec<_> = chosen.iter().map(|variable| variable.matcher()).collect();
        if matchers.is_empty() {
            return format!("label_values({metric}, {label})");
        }
        let matchers = matchers.join(",");
        format!("label_values({metric}{{{matchers}}}, {label})")
    }
}

impl Counter {
    /// A counter of the table.
    pub(crate) const fn of(name: &str) -> Self {
        Self(Metric::of(name, Kind::Counter))
    }

    /// One of the agent's own process, by its place in [`PROCESS`].
    pub(crate) const fn process(place: usize) -> Self {
        Self(Metric::process(place))
    }

    /// How much it rises a second.
    pub(crate) fn rate(self, matchers: &str) -> Expr {
        let selector = self.0.selector(matchers);
        Expr::new(format!("rate({selector}[{RATE}])"))
    }

    /// How much it rose in the range that the board shows.
    pub(crate) fn increase(self, matchers: &str) -> Expr {
        let selector = self.0.selector(matchers);
        Expr::new(format!("increase({selector}[$__range])"))
    }
}

impl Histogram {
    /// A histogram of the table.
    pub(crate) const fn of(name: &str) -> Self {
        Self(Metric::of(name, Kind::Histogram))
    }

    /// How many observations fell into each bucket, for a heat map.
    pub(crate) fn buckets(self, matchers: &str) -> Expr {
        let selector = self.0.buckets(matchers);
        Expr::new(format!("sum by (le) (increase({selector}[{RATE}]))"))
    }

    /// A quantile of the observations of late, by these labels.
    pub(crate) fn quantile(self, quantile: f64, by: &[&str]) -> Expr {
        let selector = self.0.buckets("");
        let by = [&["le"], by].concat().join(", ");
        Expr::new(format!(
            "histogram_quantile({quantile}, sum by ({by}) (rate({selector}[{RATE}])))"
        ))
    }
}

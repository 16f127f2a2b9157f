//! The metrics that a board can name: those of the agent's table, each by its type.
//!
//! They are looked up when the program is compiled, so a board that names a metric which does not
//! exist, or takes the rate of a gauge, is no program.

use agent::metrics::{Family, Kind, PROCESS, family};

use crate::expr::Expr;

/// What rates are taken over: Grafana's own choice for the range shown and the scrape interval.
pub const RATE: &str = "$__rate_interval";

/// A gauge.
#[derive(Clone, Copy)]
pub(crate) struct Gauge {
    name: &'static str,
    labels: &'static [&'static str],
}

/// A counter, which shows as a rate or an increase alone.
#[derive(Clone, Copy)]
pub(crate) struct Counter {
    name: &'static str,
    labels: &'static [&'static str],
}

/// A histogram.
#[derive(Clone, Copy)]
pub(crate) struct Histogram {
    name: &'static str,
    labels: &'static [&'static str],
}

const fn of_kind(family: &'static Family, kind: Kind) -> &'static Family {
    assert!(
        matches!(
            (family.kind, kind),
            (Kind::Gauge, Kind::Gauge)
                | (Kind::Counter, Kind::Counter)
                | (Kind::Histogram, Kind::Histogram)
        ),
        "the metric is of another type"
    );
    family
}

impl Gauge {
    /// A gauge of the table.
    pub(crate) const fn of(name: &str) -> Self {
        let family = of_kind(family(name), Kind::Gauge);
        Self {
            name: family.name,
            labels: family.labels,
        }
    }

    /// One of the agent's own process, by its place in [`PROCESS`].
    pub(crate) const fn process(place: usize) -> Self {
        Self {
            name: PROCESS[place],
            labels: &[],
        }
    }

    /// What it is now, where these matchers hold besides those of the board.
    pub(crate) fn now(self, matchers: &str) -> Expr {
        selector(self.name, self.labels, matchers)
    }
}

impl Counter {
    /// A counter of the table.
    pub(crate) const fn of(name: &str) -> Self {
        let family = of_kind(family(name), Kind::Counter);
        Self {
            name: family.name,
            labels: family.labels,
        }
    }

    /// One of the agent's own process, by its place in [`PROCESS`].
    pub(crate) const fn process(place: usize) -> Self {
        Self {
            name: PROCESS[place],
            labels: &[],
        }
    }

    /// How much it rises a second.
    pub(crate) fn rate(self, matchers: &str) -> Expr {
        let selector = selector(self.name, self.labels, matchers);
        Expr::new(format!("rate({selector}[{RATE}])"))
    }

    /// How much it rose in the range that the board shows.
    pub(crate) fn increase(self, matchers: &str) -> Expr {
        let selector = selector(self.name, self.labels, matchers);
        Expr::new(format!("increase({selector}[$__range])"))
    }
}

impl Histogram {
    /// A histogram of the table.
    pub(crate) const fn of(name: &str) -> Self {
        let family = of_kind(family(name), Kind::Histogram);
        Self {
            name: family.name,
            labels: family.labels,
        }
    }

    /// How many observations fell into each bucket, for a heat map.
    pub(crate) fn buckets(self, matchers: &str) -> Expr {
        let selector = selector(&format!("{}_bucket", self.name), self.labels, matchers);
        Expr::new(format!("sum by (le) (increase({selector}[{RATE}]))"))
    }

    /// A quantile of the observations of late, by these labels.
    pub(crate) fn quantile(self, quantile: f64, by: &[&str]) -> Expr {
        let selector = selector(&format!("{}_bucket", self.name), self.labels, "");
        let by = [&["le"], by].concat().join(", ");
        Expr::new(format!(
            "histogram_quantile({quantile}, sum by ({by}) (rate({selector}[{RATE}])))"
        ))
    }
}

/// The series of a name that the board's variables choose.
fn selector(name: &str, labels: &[&str], matchers: &str) -> Expr {
    let mut all = vec![r#"job=~"$job""#, r#"instance=~"$instance""#];
    if labels.contains(&"workload") {
        all.push(r#"workload=~"$workload""#);
    }
    if !matchers.is_empty() {
        all.push(matchers);
    }
    Expr::new(format!("{name}{{{}}}", all.join(",")))
}

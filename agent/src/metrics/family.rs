//! What a metric family is.

use crate::{series::number, view::View};

/// A family of metrics, as declared.
pub struct Family {
    /// Its name, prefix and unit included.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The names of its labels, in the order of [`Sample::labels`].
    pub labels: &'static [&'static str],
    /// What it means: one sentence, the HELP line.
    pub help: &'static str,
    /// Reads its samples off the view, in a fixed order.
    pub samples: fn(&View) -> Vec<Sample>,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, while the agent runs.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// As the TYPE line names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One labelled value of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels' values, in the family's order.
    pub labels: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// Upper bounds and cumulative counts, rising.
        buckets: Vec<(f64, u64)>,
        /// The sum of all observations.
        sum: f64,
        /// How many there are, those above the last bound included.
        count: u64,
    },
}

impl Sample {
    /// A number with these labels.
    pub fn number<'a>(labels: impl IntoIterator<Item = &'a str>, value: f64) -> Self {
        Self {
            labels: labels.into_iter().map(str::to_owned).collect(),
            value: Value::Number(value),
        }
    }

    /// A count with these labels.
    pub fn count<'a>(labels: impl IntoIterator<Item = &'a str>, count: u64) -> Self {
        Self::number(labels, number(count))
    }
}

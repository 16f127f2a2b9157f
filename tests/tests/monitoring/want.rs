//! What a query must answer.

use std::ops::RangeInclusive;

use tests::prometheus::Sample;

/// A series that must be there, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    labels: Vec<(&'static str, String)>,
    value: RangeInclusive<f64>,
}

/// The only series there is, without labels.
pub(crate) fn is(value: impl Bounds) -> Vec<Want> {
    vec![of(&[], value)]
}

/// A series with these labels; it may have others.
pub(crate) fn of(labels: &[(&'static str, &str)], value: impl Bounds) -> Want {
    let labels = labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Want {
        labels: labels.collect(),
        value: value.bounds(),
    }
}

/// A number that is known exactly, or within bounds.
pub(crate) trait Bounds {
    fn bounds(self) -> RangeInclusive<f64>;
}

impl Bounds for usize {
    fn bounds(self) -> RangeInclusive<f64> {
        let value = tests::http::number(self as u64);
        value..=value
    }
}

impl Bounds for RangeInclusive<f64> {
    fn bounds(self) -> RangeInclusive<f64> {
        self
    }
}

impl Want {
    /// Whether exactly one of the series has these labels, and its value is as it must be.
    pub(crate) fn is_met(&self, samples: &[Sample]) -> bool {
        let mut mine = samples.iter().filter(|sample| {
            let has = |(name, value): &(&str, String)| sample.labels.get(*name) == Some(value);
            self.labels.iter().all(has)
        });
        let (first, second) = (mine.next(), mine.next());
        first.is_some_and(|sample| self.value.contains(&sample.value)) && second.is_none()
    }
}

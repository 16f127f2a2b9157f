//! What a query must answer.

use std::ops::RangeInclusive;

use tests::prometheus::Sample;

/// A series that must be there, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    labels: Labels,
    /// The series whose value is taken off: a bucket counts those below it, too.
    without: Option<Labels>,
    value: RangeInclusive<f64>,
    /// Whether every series that nothing is wanted of must be zero.
    is_of_all: bool,
}

type Labels = Vec<(&'static str, String)>;

/// The only series there is, whatever its labels.
pub(crate) fn is(value: impl Bounds) -> Vec<Want> {
    exactly(vec![of(&[], value)])
}

/// A series with these labels; it may have others.
pub(crate) fn of(labels: &[(&'static str, &str)], value: impl Bounds) -> Want {
    let labels = labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Want {
        labels: labels.collect(),
        without: None,
        value: value.bounds(),
        is_of_all: false,
    }
}

/// What fell into the bucket up to `le`, and not into the one up to `below`.
pub(crate) fn bucket(below: &str, le: &str, value: impl Bounds) -> Want {
    Want {
        without: Some(vec![("le", below.to_owned())]),
        ..of(&[("le", le)], value)
    }
}

/// These series, and no others but such as are zero: what was there once, or might be, shows so.
pub(crate) fn exactly(mut wants: Vec<Want>) -> Vec<Want> {
    for want in &mut wants {
        want.is_of_all = true;
    }
    wants
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

/// What is wrong with an answer; nothing where every series is as it must be.
pub(crate) fn wrong(wants: &[Want], samples: &[Sample]) -> Option<String> {
    if let Some(want) = wants.iter().find(|want| !want.is_met(samples)) {
        return Some(format!("wants {want:?}"));
    }
    let unwanted = |sample: &&Sample| {
        sample.value.abs() > 0.0 && !wants.iter().any(|want| has(sample, &want.labels))
    };
    let unwanted = samples.iter().find(unwanted)?;
    let is_known = wants.iter().any(|want| want.is_of_all);
    is_known.then(|| format!("wants no {unwanted:?}"))
}

impl Want {
    /// Whether exactly one of the series has these labels, and its value is as it must be.
    fn is_met(&self, samples: &[Sample]) -> bool {
        let less = match &self.without {
            Some(labels) => one(samples, labels),
            None => Some(0.0),
        };
        one(samples, &self.labels)
            .zip(less)
            .is_some_and(|(value, less)| self.value.contains(&(value - less)))
    }
}

/// The value of the only series with these labels.
fn one(samples: &[Sample], labels: &Labels) -> Option<f64> {
    let mut mine = samples.iter().filter(|sample| has(sample, labels));
    let (first, second) = (mine.next()?, mine.next());
    second.is_none().then_some(first.value)
}

fn has(sample: &Sample, labels: &Labels) -> bool {
    let has = |(name, value): &(&str, String)| sample.labels.get(*name) == Some(value);
    labels.iter().all(has)
}

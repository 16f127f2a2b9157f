//! The table of families, in parts.

mod events;
mod sockets;
mod limits;
mod own;

use agent_ebpf::{counters::Histogram, duration::BUCKET_BOUNDS_NS};

use super::family::{Family, Sample, Value};
use crate::{series::Gauges, view::View};

/// Every family, in the order of the documentation; the exposition is sorted by name.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        sockets::FAMILIES,
        limits::FAMILIES,
        events::FAMILIES,
        own::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

/// The family of this name, found when the program is compiled: a name that the table does not have
/// stops the compiler where it is asked for in a constant, and the program anywhere else.
///
/// # Panics
///
/// Where the table has no such name.
#[must_use]
#[expect(
    clippy::panic,
    reason = "it is for constants, where a panic is an error of the compiler's"
)]
pub const fn family(name: &str) -> &'static Family {
    let tables = [
        sockets::FAMILIES,
        limits::FAMILIES,
        events::FAMILIES,
        own::FAMILIES,
    ];
    let mut table = 0;
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            if is_same(tables[table][row].name, name) {
                return &tables[table][row];
            }
            row += 1;
        }
        table += 1;
    }
    panic!("the table of metrics has no family of this name")
}

/// `==`, which constants cannot use yet.
const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut place = 0;
    while place < one.len() {
        if one[place] != other[place] {
            return false;
        }
        place += 1;
    }
    true
}

/// Bounded label sets by their columns, once there was a census. The column's name is the label
/// at `place`; an empty one is none.
fn gauges<const COLUMNS: usize>(
    view: &View,
    rows: &Gauges<COLUMNS>,
    place: usize,
    columns: [&str; COLUMNS],
) -> Vec<Sample> {
    if view.census.is_none() {
        return Vec::new();
    }
    let mut samples = Vec::with_capacity(rows.len() * COLUMNS);
    for (bounded, values) in rows {
        for (column, value) in columns.into_iter().zip(values) {
            let mut labels: Vec<&str> = bounded.iter().map(String::as_str).collect();
            if !column.is_empty() {
                labels.insert(place, column);
            }
            samples.push(Sample::number(labels, *value));
        }
    }
    samples
}

fn histogram_value(histogram: &Histogram) -> Value {
    let mut count = 0;
    let mut cumulative = histogram.buckets.iter().map(|bucket| {
        count += bucket;
        count
    });
    let buckets = BUCKET_BOUNDS_NS
        .into_iter()
        .zip(&mut cumulative)
        .map(|(bound, count)| (seconds(bound), count))
        .collect();
    let all = cumulative.last().unwrap_or(0);
    Value::Histogram {
        buckets,
        sum: seconds(histogram.sum_ns),
        count: all,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn seconds(ns: u64) -> f64 {
    // Dividing, rather than multiplying by 1e-9, gives 0.001 for the millisecond.
    ns as f64 / 1e9
}

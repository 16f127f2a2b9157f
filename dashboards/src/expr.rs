//! Expressions of `PromQL`.

use std::fmt::{self, Display, Formatter};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr(String);

impl Expr {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether the hosts that the board's variables choose can be scraped: Prometheus' own metric.
    pub(crate) fn up() -> Self {
        Self(r#"up{job=~"$job",instance=~"$instance"}"#.to_owned())
    }

    /// One sum of all.
    pub(crate) fn sum(self) -> Self {
        Self(format!("sum({self})"))
    }

    /// How many there are.
    pub(crate) fn count(self) -> Self {
        Self(format!("count({self})"))
    }

    /// The largest of all.
    pub(crate) fn max(self) -> Self {
        Self(format!("max({self})"))
    }

    /// A sum for each set of these labels' values.
    pub(crate) fn sum_by(self, labels: &[&str]) -> Self {
        Self(format!("sum by ({}) ({self})", labels.join(", ")))
    }

    /// The largest for each set of these labels' values.
    pub(crate) fn max_by(self, labels: &[&str]) -> Self {
        Self(format!("max by ({}) ({self})", labels.join(", ")))
    }

    /// The largest ones.
    pub(crate) fn top(self, count: u32) -> Self {
        Self(format!("topk({count}, {self})"))
    }

    /// Only those above a bound.
    pub(crate) fn above(self, bound: f64) -> Self {
        Self(format!("{self} > {bound}"))
    }

    /// Only those with this value.
    pub(crate) fn equal(self, value: f64) -> Self {
        Self(format!("{self} == {value}"))
    }

    /// Zero where there is nothing: findings that do not exist are not exported.
    pub(crate) fn or_zero(self) -> Self {
        Self(format!("{self} or vector(0)"))
    }

    /// The part of a whole that is not zero; both with the same labels.
    pub(crate) fn part_of(self, whole: &Self) -> Self {
        Self(format!("{self} / ({whole} > 0)"))
    }

    /// As [`Self::part_of`], where many parts belong to the whole with the same of these labels.
    pub(crate) fn parts_of(self, labels: &[&str], whole: &Self) -> Self {
        let on = labels.join(", ");
        Self(format!("{self} / on ({on}) group_left () ({whole} > 0)"))
    }

    /// How many seconds ago this time was.
    pub(crate) fn age(self) -> Self {
        Self(format!("time() - {self}"))
    }
}

impl Display for Expr {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

//! Expressions of `PromQL`.

use std::fmt::{self, Display, Formatter};

use crate::variable::Variable;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr(String);

impl Expr {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Whether the hosts that the board's variables choose can be scraped: Prometheus' own metric.
    pub(crate) fn up() -> Self {
        let [job, instance] = [Variable::Job, Variable::Instance].map(Variable::matcher);
        Self(format!("up{{{job},{instance}}}"))
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

    /// The smallest of all.
    pub(crate) fn min(self) -> Self {
        Self(format!("min({self})"))
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

    /// The smallest ones.
    pub(crate) fn bottom(self, count: u32) -> Self {
        Self(format!("bottomk({count}, {self})"))
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

    /// This many times as much.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self(format!("{self} * {factor}"))
    }

    /// What is left of it; both with the same labels.
    pub(crate) fn less(self, taken: &Self) -> Self {
        Self(format!("({self} - {taken})"))
    }

    /// As [`Self::less`], for each of many that are taken from the one with the same of these labels.
    pub(crate) fn less_each(self, labels: &[&str], taken: &Self) -> Self {
        let on = labels.join(", ");
        Self(format!("({self} - on ({on}) group_right () {taken})"))
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

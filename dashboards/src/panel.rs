//! What a panel shows, and how.

use crate::expr::Expr;

/// A panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its title, unlike that of any other of its board.
    pub title: &'static str,
    /// What it means, in a sentence or two.
    pub description: &'static str,
    /// How it shows its values.
    pub kind: Kind,
    /// The unit of its values.
    pub unit: Unit,
    /// What it asks for, in the order of the reference ids A, B, C.
    pub queries: Vec<Query>,
    /// From which value on it changes its colour.
    pub thresholds: Thresholds,
    /// Its size, in columns of 24 and rows.
    pub size: (u32, u32),
}

/// From which value on there is another colour, in ascending order. Below the first value it is
/// [`Colour::Good`]; where little is bad, the first value is minus infinity.
pub type Thresholds = &'static [(f64, Colour)];

/// How values are shown. Only kinds that Grafana has not deprecated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Lines,
    /// Areas over time, one upon the other, whose sum means something.
    Stack,
    /// The last value, as a number.
    Number,
    /// The last value, on a dial from 0 to 1.
    Dial,
    /// Buckets over time.
    Heat,
    /// The last values, a row each, with a link from the host's name to its board.
    Table,
}

/// The unit of a panel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A number of things a second.
    PerSecond,
    /// A part of one.
    Part,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// Colours with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Good,
    /// Look at it.
    Warning,
    /// Act.
    Bad,
}

/// One of a panel's queries.
#[derive(Clone, Debug)]
pub struct Query {
    /// What is asked.
    pub expr: Expr,
    /// What a series is called, or the column of a table with several queries.
    pub legend: &'static str,
    /// From which value on this column of a table changes its colour.
    pub thresholds: Thresholds,
}

impl Panel {
    /// Lines of one query, as most panels are.
    pub(crate) fn lines(title: &'static str, expr: Expr, legend: &'static str) -> Self {
        Self {
            title,
            description: "",
            kind: Kind::Lines,
            unit: Unit::Count,
            queries: vec![Query::new(expr, legend)],
            thresholds: &[],
            size: (8, 8),
        }
    }

    /// Areas.
    pub(crate) fn stack(title: &'static str, expr: Expr, legend: &'static str) -> Self {
        Self {
            kind: Kind::Stack,
            ..Self::lines(title, expr, legend)
        }
    }

    /// A number.
    pub(crate) fn number(title: &'static str, expr: Expr) -> Self {
        Self {
            kind: Kind::Number,
            size: (4, 4),
            ..Self::lines(title, expr, "")
        }
    }

    /// The few numbers that matter most, each with its name.
    pub(crate) fn numbers(title: &'static str, expr: Expr, legend: &'static str) -> Self {
        Self {
            kind: Kind::Number,
            size: (6, 5),
            ..Self::lines(title, expr, legend)
        }
    }

    /// A dial.
    pub(crate) fn dial(title: &'static str, expr: Expr, legend: &'static str) -> Self {
        Self {
            kind: Kind::Dial,
            unit: Unit::Part,
            ..Self::lines(title, expr, legend)
        }
    }

    /// A heat map of durations.
    pub(crate) fn heat(title: &'static str, expr: Expr) -> Self {
        Self {
            kind: Kind::Heat,
            unit: Unit::Seconds,
            ..Self::lines(title, expr, "{{le}}")
        }
    }

    /// A table, whose last column is called `value`.
    pub(crate) fn table(title: &'static str, expr: Expr, value: &'static str) -> Self {
        Self {
            kind: Kind::Table,
            size: (12, 9),
            ..Self::lines(title, expr, value)
        }
    }

    pub(crate) fn about(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    pub(crate) fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    pub(crate) fn and(mut self, expr: Expr, legend: &'static str) -> Self {
        self.queries.push(Query::new(expr, legend));
        self
    }

    /// Colours the panel by its values.
    pub(crate) fn thresholds(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    /// Colours the cells of the table's column that was named last, each by its value.
    pub(crate) fn judged(mut self, thresholds: Thresholds) -> Self {
        if let Some(last) = self.queries.last_mut() {
            last.thresholds = thresholds;
        }
        self
    }

    pub(crate) fn size(self, width: u32, height: u32) -> Self {
        Self {
            size: (width, height),
            ..self
        }
    }
}

impl Query {
    fn new(expr: Expr, legend: &'static str) -> Self {
        Self {
            expr,
            legend,
            thresholds: &[],
        }
    }
}

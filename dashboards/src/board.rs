//! A board: panels in rows, and what chooses the series they show.

use crate::{panel::Panel, variable::Variable};

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its address in Grafana and, without the prefix `connstate-`, the name of its file.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// What its user chooses, besides the data source.
    pub variables: &'static [Variable],
    /// What it shows from the start, as Grafana writes ranges: `now-1h`.
    pub since: &'static str,
    /// Its panels.
    pub rows: Vec<Row>,
}

/// Panels under a heading.
#[derive(Clone, Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// The panels, from left to right; one that does not fit begins a new line.
    pub panels: Vec<Panel>,
}

impl Board {
    /// Every panel.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

//! connstate's Grafana dashboards, as code.
//!
//! A [`variable`] is what a board's user chooses. A [`metric`] is a row of the agent's table of
//! metrics, and only as its type allows does it become an [`expr`]ession of `PromQL`, confined to
//! what is chosen. A [`panel`] shows some, a [`board`] lays panels out, and [`boards`] declares the
//! three there are. [`json`] is what Grafana reads of them; `cargo xtask dashboards` writes it to
//! `dashboards/grafana`.

mod variable;
mod metric;
mod expr;
mod panel;
mod board;
mod boards;
mod json;

pub use self::{
    board::{Board, Row},
    boards::boards,
    expr::Expr,
    json::{file_name, json},
    metric::RATE,
    panel::{Colour, Kind, Panel, Query, Thresholds, Unit},
    variable::Variable,
};

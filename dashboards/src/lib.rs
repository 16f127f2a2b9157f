//! connstate's Grafana dashboards, as code.
//!
//! A [`metric`] is a row of the agent's table of metrics, and only as its type allows does it become
//! an [`expr`]ession of `PromQL`. A [`panel`] shows some, a [`board`] lays panels out, and [`boards`]
//! declares the three there are. [`json`] is what Grafana reads of them; `cargo xtask dashboards`
//! writes it to `dashboards/grafana`.

mod metric;
mod expr;
mod panel;
mod board;
mod boards;
mod json;

pub use self::{
    board::{Board, Row, Variable},
    boards::boards,
    expr::Expr,
    json::{file_name, json},
    metric::RATE,
    panel::{Kind, Panel, Query, Unit},
};

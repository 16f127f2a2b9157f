//! `cargo xtask dashboards`: the Grafana dashboards, written anew from their declaration.

use anyhow::Result;

use crate::cargo;
use crate::setup::{self, Need};

pub(crate) fn main() -> Result<()> {
    // They name metrics of the agent's table, and it is built with its kernel programs.
    setup::ensure(&[Need::Build])?;
    cargo::run(cargo::cargo().args(["run", "--quiet", "--package", "dashboards"]))
}

//! `cargo xtask run`: from a fresh clone to a running agent.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{cargo, superuser};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What `agent run` is given
    #[arg(last = true)]
    agent_args: Vec<String>,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Build])?;
    let agent = cargo::build_agent()?;
    println!("$ {} run {}", agent.display(), options.agent_args.join(" "));
    let mut command = superuser::command(&agent, &[]);
    // The agent takes this process's place, so that signals and the exit code are its own.
    let error = command.arg("run").args(&options.agent_args).exec();
    Err(error).with_context(|| format!("could not start {}", agent.display()))
}

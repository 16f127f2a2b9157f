//! The `agent` binary: reads the command line and runs what it asks for.

use std::process::ExitCode;

use agent::{
    check,
    cli::{Cli, Command},
    events, logging, run, snapshot,
};
use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    logging::start(cli.log_format);
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Events(args) => events::events(&args),
        Command::Snapshot(args) => snapshot::snapshot(&args),
        Command::Check => Ok(check::check()),
    }
}

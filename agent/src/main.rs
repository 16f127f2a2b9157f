//! The `agent` binary: reads the command line and runs what it asks for.

use std::process::ExitCode;

use agent::{
    check,
    cli::{Cli, Command},
    events, logging, run, snapshot, top,
};
use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    // Its log would stand in the middle of the picture.
    if !matches!(cli.command, Command::Top(_)) {
        logging::start(cli.log_format);
    }
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Top(args) => top::top(&args),
        Command::Events(args) => events::events(&args),
        Command::Snapshot(args) => snapshot::snapshot(&args),
        Command::Check => Ok(check::check()),
    }
}

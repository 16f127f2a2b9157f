//! connstate's chores: `cargo xtask setup | run | test | vm | package | dashboards | lint |
//! fuzz | miri | bench`.
//!
//! Each subcommand has a file of its own under its own name. Beneath them lie [`cargo`], which
//! finds what was built, [`programs`], which compiles the kernel programs by themselves,
//! [`superuser`], which takes root for the one command that needs it, and [`child`], which never
//! leaves a process behind.

mod setup;

mod run;

mod test;

mod vm;

mod package;

mod dashboards;

mod lint;

mod fuzz;

mod miri;

mod bench;

mod cargo;
mod child;
mod programs;
mod superuser;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "connstate's chores"
)]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Makes this machine able to build, test and lint; says what it found and what it installs
    Setup(setup::Options),
    /// Builds the agent and runs it, taking root for the last step only
    Run(run::Options),
    /// Runs every test: the host's as you, the kernel's as root
    Test(test::Options),
    /// Runs the tests against the kernel on other kernels than this machine's, in virtual machines
    Vm(vm::Options),
    /// Builds the agent as one static executable, and the Debian package that holds it
    Package,
    /// Writes the Grafana dashboards anew from their declaration
    Dashboards,
    /// Checks formatting, clippy on host and kernel code, and the dependencies' licences
    Lint(lint::Options),
    /// Has libFuzzer think up what others could write, for as long as each target is given
    Fuzz(fuzz::Options),
    /// Interprets what decodes the kernel's bytes, and finds undefined behaviour in it
    Miri,
    /// Measures what watching costs, side by side with the peers that are installed
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> Result<()> {
    match Cli::parse().chore {
        Chore::Setup(options) => setup::main(&options),
        Chore::Run(options) => run::main(&options),
        Chore::Test(options) => test::main(&options),
        Chore::Vm(options) => vm::main(&options),
        Chore::Package => package::main(),
        Chore::Dashboards => dashboards::main(),
        Chore::Lint(options) => lint::main(&options),
        Chore::Fuzz(options) => fuzz::main(&options),
        Chore::Miri => miri::run(),
        Chore::Bench(bench) => bench::main(&bench),
    }
}

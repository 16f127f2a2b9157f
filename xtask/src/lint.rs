//! `cargo xtask lint`: what must hold before code is looked at by a person.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{cargo, programs};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also check dependencies against the advisory database of `RustSec`, from github.com
    #[arg(long)]
    advisories: bool,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Lint])?;
    cargo::run(cargo::cargo().args(["fmt", "--all", "--", "--check"]))?;
    host()?;
    kernel()?;
    dependencies(options)
}

fn host() -> Result<()> {
    let deny = ["--", "-D", "warnings"];
    let everything = [
        "clippy",
        "--workspace",
        "--exclude",
        "agent-ebpf",
        "--all-targets",
    ];
    cargo::run(cargo::cargo().args(everything).args(deny))?;
    // The ABI library is the half of agent-ebpf that the host compiles.
    let abi = [
        "clippy",
        "--package",
        "agent-ebpf",
        "--lib",
        "--tests",
        "--all-features",
    ];
    cargo::run(cargo::cargo().args(abi).args(deny))
}

fn kernel() -> Result<()> {
    cargo::run(programs::cargo("clippy", "").args(["--", "-D", "warnings"]))
}

fn dependencies(options: &Options) -> Result<()> {
    cargo::run(cargo::cargo().args([
        "deny",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]))?;
    if options.advisories {
        return cargo::run(cargo::cargo().args(["deny", "check", "advisories"]));
    }
    println!(
        "advisories NOT checked: the RustSec database is not part of this repository; `cargo xtask lint --advisories` fetches it from github.com"
    );
    Ok(())
}

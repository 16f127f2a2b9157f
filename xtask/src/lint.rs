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

/// The workspaces: everything, and what is fuzzed with.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "agent/fuzz/Cargo.toml"];

pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Lint])?;
    for manifest in MANIFESTS {
        let format = ["fmt", "--all", "--manifest-path", manifest, "--", "--check"];
        cargo::run(cargo::cargo().args(format))?;
    }
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
    for manifest in MANIFESTS {
        let mut deny = cargo::cargo();
        deny.args(["deny", "--manifest-path", manifest, "--config", "deny.toml"]);
        deny.args(["check", "--hide-inclusion-graph"]);
        cargo::run(deny.args(["licenses", "bans", "sources"]))?;
    }
    if options.advisories {
        return cargo::run(cargo::cargo().args(["deny", "check", "advisories"]));
    }
    println!(
        "advisories NOT checked: the RustSec database is not part of this repository; `cargo xtask lint --advisories` fetches it from github.com"
    );
    Ok(())
}

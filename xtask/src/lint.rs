//! `cargo xtask lint`: what must hold before code is looked at by a person.

use std::env::consts::ARCH;
use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::setup::toolchain::TOOLCHAIN;
use crate::setup::{self, Need};

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

/// Clippy on the kernel programs, as the agent's build script compiles them: the same toolchain,
/// target, `core` built from source, and the cfg by which aya-ebpf tells architectures apart.
fn kernel() -> Result<()> {
    let mut clippy = Command::new("rustup");
    clippy.args([
        "run",
        TOOLCHAIN,
        "cargo",
        "clippy",
        "--package",
        "agent-ebpf",
        "--bins",
        "--release",
    ]);
    clippy.args([
        "--target",
        bpf_target(),
        "-Z",
        "build-std=core",
        "--",
        "-D",
        "warnings",
    ]);
    clippy.current_dir(cargo::root());
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy.env(
        "CARGO_ENCODED_RUSTFLAGS",
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
    );
    // These would pin the toolchain that runs this task in place of the one named above.
    clippy
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    cargo::run(&mut clippy)
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

fn bpf_target() -> &'static str {
    if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

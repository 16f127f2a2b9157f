//! `cargo xtask package`: the agent as one static executable, and the Debian package that holds it.
//!
//! Static, so that one executable serves every release of Debian and hosts that are none, and
//! against glibc, for which every Rust toolchain has its standard library.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::setup::{self, Need};

pub(crate) fn main() -> Result<()> {
    setup::ensure(&[Need::Build, Need::Package])?;
    build().map(|_package| ())
}

/// Builds both, and returns where the package is. What that needs must be there.
pub(crate) fn build() -> Result<PathBuf> {
    let started = Instant::now();
    let directory = cargo::root().join("target/package");
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    // Where [package.metadata.deb] of the agent's manifest names it.
    let executable = directory.join("connstate-agent");
    let built = static_agent()?;
    fs::copy(&built, &executable).with_context(|| {
        let (from, to) = (built.display(), executable.display());
        format!("could not copy {from} to {to}")
    })?;
    let package = debian_package(&directory)?;
    for file in [&executable, &package] {
        println!("{}: {} KiB", file.display(), kibibytes(file)?);
    }
    println!("built in {} s", started.elapsed().as_secs());
    Ok(package)
}

/// The agent, linked with no shared library and without symbols.
fn static_agent() -> Result<PathBuf> {
    let target = format!("{ARCH}-unknown-linux-gnu");
    let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=symbols"].join("\u{1f}");
    cargo::build_agent_with(|command| {
        // Named, so that the flags are not those of build scripts and macros.
        command.args(["--target", &target]);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    })
}

fn debian_package(directory: &Path) -> Result<PathBuf> {
    let mut command = cargo::cargo();
    // Its only warnings are that it shall not build what is built, and of no use.
    command.args(["deb", "--quiet", "--package", "agent"]);
    command.args(["--no-build", "--no-strip", "--output"]);
    command.arg(directory);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("could not start cargo deb")?;
    if !output.status.success() {
        bail!(
            "cargo deb failed ({}); its own message above says why",
            output.status
        );
    }
    // All that it prints is where the package is.
    let printed = String::from_utf8(output.stdout).context("cargo deb printed no path")?;
    let package = cargo::root().join(printed.trim());
    if !package.is_file() {
        bail!("cargo deb made no package: it printed {printed:?}");
    }
    Ok(package)
}

fn kibibytes(file: &Path) -> Result<u64> {
    let metadata =
        fs::metadata(file).with_context(|| format!("could not look at {}", file.display()))?;
    Ok(metadata.len() / 1024)
}

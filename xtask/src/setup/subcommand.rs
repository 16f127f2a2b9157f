//! Subcommands of cargo that come from crates.io.

use std::process::Stdio;

use anyhow::Result;

use super::{Finding, Requirement};
use crate::cargo;

/// A subcommand, at the one version that this repository is written for.
pub(super) struct Subcommand {
    /// What follows `cargo`; the crate is called `cargo-` and this.
    name: &'static str,
    version: &'static str,
}

/// Holds dependencies to `deny.toml`.
pub(super) const DENY: Subcommand = Subcommand {
    name: "deny",
    version: "0.20.2",
};

/// Makes the Debian package.
pub(super) const DEB: Subcommand = Subcommand {
    name: "deb",
    version: "3.8.0",
};

/// Builds what libFuzzer calls, with the compiler's options that it takes.
pub(super) const FUZZ: Subcommand = Subcommand {
    name: "fuzz",
    version: "0.13.1",
};

impl Requirement for Subcommand {
    fn name(&self) -> String {
        format!("cargo-{} {}", self.name, self.version)
    }

    fn find(&self) -> Result<Finding> {
        let output = cargo::cargo()
            .args([self.name, "--version"])
            .stderr(Stdio::null())
            .output()?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(if answer == self.name() {
            Finding::Met("cargo finds it".to_owned())
        } else if answer.is_empty() {
            Finding::Missing("cargo does not find it".to_owned())
        } else {
            Finding::Missing(format!("cargo finds {answer}"))
        })
    }

    fn install(&self) -> Result<()> {
        println!("building {}, which takes a minute or two", self.name());
        let mut install = cargo::cargo();
        let package = format!("cargo-{}", self.name);
        install.args(["install", &package, "--version", self.version]);
        // Unoptimized: two cores build cargo-deny in 80 s, optimized in 5 min, and each runs for some
        // seconds.
        install.args(["--locked", "--force", "--quiet", "--debug"]);
        cargo::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0"))
    }
}

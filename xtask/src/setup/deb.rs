//! cargo-deb, which makes the Debian package.

use std::process::Stdio;

use anyhow::Result;

use super::{Finding, Requirement};
use crate::cargo;

const VERSION: &str = "3.8.0";

/// The cargo subcommand, from crates.io.
pub(super) struct CargoDeb;

impl Requirement for CargoDeb {
    fn name(&self) -> String {
        format!("cargo-deb {VERSION}")
    }

    fn find(&self) -> Result<Finding> {
        let output = cargo::cargo()
            .args(["deb", "--version"])
            .stderr(Stdio::null())
            .output()?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(if answer == format!("cargo-deb {VERSION}") {
            Finding::Met("cargo finds it".to_owned())
        } else if answer.is_empty() {
            Finding::Missing("cargo does not find it".to_owned())
        } else {
            Finding::Missing(format!("cargo finds {answer}"))
        })
    }

    fn install(&self) -> Result<()> {
        println!("building cargo-deb {VERSION}, which takes a minute");
        let mut install = cargo::cargo();
        // Unoptimized: two cores build it in a minute, and it packs the agent in some seconds.
        install.args([
            "install",
            "cargo-deb",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--quiet",
            "--debug",
        ]);
        cargo::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0"))
    }
}

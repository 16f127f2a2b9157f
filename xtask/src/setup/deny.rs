//! cargo-deny, which holds dependencies to `deny.toml`.

use std::process::Stdio;

use anyhow::Result;

use super::{Finding, Requirement};
use crate::cargo;

const VERSION: &str = "0.20.2";

/// The cargo subcommand, from crates.io.
pub(super) struct CargoDeny;

impl Requirement for CargoDeny {
    fn name(&self) -> String {
        format!("cargo-deny {VERSION}")
    }

    fn find(&self) -> Result<Finding> {
        let output = cargo::cargo()
            .args(["deny", "--version"])
            .stderr(Stdio::null())
            .output()?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(if answer == format!("cargo-deny {VERSION}") {
            Finding::Met("cargo finds it".to_owned())
        } else if answer.is_empty() {
            Finding::Missing("cargo does not find it".to_owned())
        } else {
            Finding::Missing(format!("cargo finds {answer}"))
        })
    }

    fn install(&self) -> Result<()> {
        println!("building cargo-deny {VERSION}, which takes a minute or two");
        let mut install = cargo::cargo();
        // Unoptimized: two cores build it in 80 s, optimized in 5 min, and it runs for a second.
        install.args([
            "install",
            "cargo-deny",
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

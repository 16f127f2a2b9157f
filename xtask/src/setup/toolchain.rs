//! The Rust toolchain of the kernel programs.
//!
//! The BPF target has no prebuilt `core`, so the toolchain needs its own source, and leave to use
//! unstable options: `RUSTC_BOOTSTRAP=1` gives that leave to any compiler, nightly or not. Where
//! the toolchain comes from differs from machine to machine; its name is always [`TOOLCHAIN`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Finding, Requirement, debian, program};
use crate::cargo;
use crate::child::Guarded;

/// What rustup calls the toolchain; the agent's build script uses it by this name.
pub(crate) const TOOLCHAIN: &str = "connstate-ebpf";

/// The nightly taken from rustup: its LLVM must be one that [`super::linker`] supports.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-20";

/// Longest that rustup may take. A download takes about 20 s on a good line; a network that
/// swallows packets must not hold up setup where Debian has the same thing.
const RUSTUP_DEADLINE: Duration = Duration::from_mins(3);

/// Debian's rustc as built for its browsers, with cargo and sources: far newer than its rustc.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The compiler, and the source of its `core`.
pub(super) struct Toolchain;

impl Requirement for Toolchain {
    fn name(&self) -> String {
        format!("toolchain {TOOLCHAIN}")
    }

    fn find(&self) -> Result<Finding> {
        if program::path("rustup").is_none() {
            bail!(
                "rustup is missing, and it is by rustup that {TOOLCHAIN} is found; https://rustup.rs says how to install it"
            );
        }
        let Some(sysroot) = sysroot(TOOLCHAIN) else {
            return Ok(Finding::Missing(
                "rustup has no toolchain of this name".to_owned(),
            ));
        };
        if !has_source(&sysroot) {
            return Ok(Finding::Missing(format!(
                "{} has no source of core",
                sysroot.display()
            )));
        }
        let version = rustc(TOOLCHAIN, &["--version"]).context("rustc does not say its version")?;
        Ok(Finding::Met(format!("{version}, in {}", sysroot.display())))
    }

    fn install(&self) -> Result<()> {
        let from_rustup = match install_nightly() {
            Ok(sysroot) => return link(&sysroot),
            Err(error) => error,
        };
        println!("rustup could not give {NIGHTLY} ({from_rustup:#}); turning to Debian's packages");
        if !debian::is_here() {
            bail!(
                "{NIGHTLY} could not be installed, and this is not Debian, whose packages would do; with a network, `rustup toolchain install {NIGHTLY} --profile minimal --component rust-src,clippy` says what is wrong"
            );
        }
        debian::install(&DEBIAN_PACKAGES, None)?;
        require_one_version(&DEBIAN_PACKAGES)?;
        link(Path::new("/usr"))
    }
}

/// Clippy of the same toolchain: lints are part of the compiler they were built with.
pub(super) struct Clippy;

impl Requirement for Clippy {
    fn name(&self) -> String {
        format!("clippy of {TOOLCHAIN}")
    }

    fn find(&self) -> Result<Finding> {
        let Some(sysroot) = sysroot(TOOLCHAIN) else {
            return Ok(Finding::Missing("the toolchain itself is".to_owned()));
        };
        let driver = sysroot.join("bin/clippy-driver");
        Ok(if driver.exists() {
            Finding::Met(driver.display().to_string())
        } else {
            Finding::Missing(format!("no {}", driver.display()))
        })
    }

    fn install(&self) -> Result<()> {
        if sysroot(TOOLCHAIN).is_some_and(|sysroot| sysroot == Path::new("/usr")) {
            debian::install(&["rust-web-clippy"], None)?;
            return require_one_version(&["rustc-web", "rust-web-clippy"]);
        }
        cargo::run(Command::new("rustup").args([
            "component",
            "add",
            "clippy",
            "--toolchain",
            NIGHTLY,
        ]))
    }
}

/// The major version of the LLVM that the toolchain's compiler emits bitcode of.
pub(super) fn llvm_major() -> Result<u32> {
    let verbose =
        rustc(TOOLCHAIN, &["--version", "--verbose"]).context("rustc does not say its version")?;
    let llvm = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let major = llvm.and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("no LLVM version in the output of rustc -vV: {verbose}"))
}

/// Installs the pinned nightly where rustup can reach its server, and gives its sysroot.
fn install_nightly() -> Result<PathBuf> {
    let mut rustup = Command::new("rustup");
    rustup.args([
        "toolchain",
        "install",
        NIGHTLY,
        "--no-self-update",
        "--profile",
        "minimal",
    ]);
    rustup.args(["--component", "rust-src", "--component", "clippy"]);
    rustup
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = Guarded::spawn(&mut rustup)?;
    let status = child
        .wait(RUSTUP_DEADLINE)?
        .with_context(|| format!("no answer within {} s", RUSTUP_DEADLINE.as_secs()))?;
    if !status.success() {
        bail!("{status}");
    }
    let sysroot = sysroot(NIGHTLY).context("installed, but its rustc does not run")?;
    if !has_source(&sysroot) {
        bail!("installed without rust-src");
    }
    Ok(sysroot)
}

fn link(sysroot: &Path) -> Result<()> {
    cargo::run(
        Command::new("rustup")
            .args(["toolchain", "link", TOOLCHAIN])
            .arg(sysroot),
    )
}

/// A compiler only takes a `core` and a cargo of its own version, and Debian upgrades package by
/// package.
fn require_one_version(packages: &[&str]) -> Result<()> {
    let versions: Vec<String> = packages
        .iter()
        .filter_map(|package| debian::version(package))
        .collect();
    if versions.len() != packages.len() || versions.windows(2).any(|pair| pair[0] != pair[1]) {
        let names = packages.join(" ");
        bail!(
            "{names} must all be installed in one version, and are: {}; `apt-get update && apt-get install {names}` mends it",
            versions.join(", ")
        );
    }
    Ok(())
}

fn sysroot(toolchain: &str) -> Option<PathBuf> {
    rustc(toolchain, &["--print", "sysroot"]).map(PathBuf::from)
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").exists()
}

/// What a toolchain's compiler answers; none where it cannot be run.
fn rustc(toolchain: &str, arguments: &[&str]) -> Option<String> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["run", toolchain, "rustc"])
        .args(arguments)
        .env_remove("RUSTUP_TOOLCHAIN");
    let output = rustup
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned())
}

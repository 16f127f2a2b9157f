//! `cargo xtask miri`: the tests of what decodes the kernel's bytes, under Miri.
//!
//! It interprets them, finds reads out of bounds, unaligned or of the wrong type, and takes a
//! thousand times as long: only the tests named here.

use std::process::Command;

use anyhow::Result;

use crate::cargo;
use crate::setup::toolchain::NIGHTLY;
use crate::setup::{self, Need};

/// The records of the ring buffer, with those that were kept of fuzzing, and the records that the
/// iterators write, whose reader is `unsafe`.
const TESTS: [&str; 3] = ["decode::", "fuzz::kept::decode", "kernel::census::"];

/// Of each property; each takes a second or so.
const CASES: &str = "16";

/// Runs them.
pub(crate) fn run() -> Result<()> {
    setup::ensure(&[Need::Miri])?;
    let mut miri = Command::new("rustup");
    miri.args(["run", NIGHTLY, "cargo", "miri", "test"]);
    miri.args(["--package", "agent", "--lib", "--"]).args(TESTS);
    // The inputs that were kept are files.
    miri.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    miri.env("PROPTEST_CASES", CASES);
    // Of the cargo that runs this task, which is another toolchain's.
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "CARGO_TARGET_DIR",
    ] {
        miri.env_remove(name);
    }
    cargo::run(miri.current_dir(cargo::root()))
}

//! `cargo xtask test`: every test there is.
//!
//! The host's tests need no privilege and run as whoever calls. The kernel's tests (package
//! `tests`) load programs and make network namespaces: they are built without privilege, and only
//! then run as root, one at a time, because they all watch the same kernel.

use std::ffi::OsStr;

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{cargo, superuser};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Tests])?;
    host(options)?;
    kernel(options)
}

fn host(options: &Options) -> Result<()> {
    let mut command = cargo::cargo();
    command.args(["test", "--workspace", "--exclude", "tests"]);
    cargo::run(command.args(&options.filter))
}

fn kernel(options: &Options) -> Result<()> {
    let agent = cargo::build_agent()?;
    let mut build = cargo::cargo();
    let executables =
        cargo::build(build.args(["test", "--release", "--package", "tests", "--no-run"]))?;
    let mut failed = Vec::new();
    for executable in &executables {
        let variables = [
            ("CONNSTATE_AGENT", agent.as_os_str()),
            ("RUST_BACKTRACE", OsStr::new("1")),
        ];
        let mut test = superuser::command(&executable.path, &variables);
        // Not captured: a test that cannot run on this kernel says so, and that must be seen.
        test.args(["--test-threads=1", "--nocapture"])
            .args(&options.filter);
        test.current_dir(cargo::root().join("tests"));
        println!("\nkernel tests: {}", executable.target);
        // A failure in one file must not hide what the others would have said.
        if let Err(error) = cargo::run(&mut test) {
            eprintln!("{error:#}");
            failed.push(executable.target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("kernel tests failed: {}", failed.join(", "));
    }
    println!("\nkernel tests: {} files passed", executables.len());
    Ok(())
}

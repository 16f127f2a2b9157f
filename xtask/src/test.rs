//! `cargo xtask test`: every test there is.
//!
//! All are built at once and without privilege. The host's tests run as whoever calls; the
//! kernel's (package `tests`) load programs and make network namespaces: they run as root, one at
//! a time, because they all watch the same kernel. One of them reaches a limit of the whole host:
//! it runs last, in a virtual machine. Another installs the package, which is built for it.

mod transcript;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Executable};
use crate::fuzz;
use crate::miri;
use crate::package;
use crate::setup::{self, Need};
use crate::superuser;
use crate::vm;
use transcript::Transcript;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// The long ones, too: on every kernel of docs/kernels.md all tests that can run there, and
    /// each fuzz target for a minute; and what decodes the kernel's bytes under Miri
    #[arg(long, conflicts_with = "filter")]
    all: bool,
}

/// How long a fuzz target runs among the long ones.
const FUZZED_SECONDS: u32 = 60;

/// What is run besides, and what it is called.
type Chore = (&'static str, fn() -> Result<()>);

pub(crate) fn main(options: &Options) -> Result<()> {
    // Who asks for tests by name asks for no machine, and for no package, which takes minutes.
    let is_whole = options.filter.is_none();
    setup::ensure(&[Need::Build, Need::Tests])?;
    if is_whole {
        setup::ensure(&[Need::Vm, Need::Package])?;
    }
    let mut build = cargo::cargo();
    // The agent's own tests have its binary built, too, which the kernel's tests start.
    let executables = cargo::build(build.args(["test", "--workspace", "--no-run"]))?;
    let agent = executables
        .iter()
        .find(|executable| executable.target == "agent" && !executable.is_test)
        .context("cargo built no binary of the agent beside its tests")?;
    let mut tests: Vec<_> = executables
        .iter()
        .filter(|executable| executable.is_test)
        .collect();
    // The host's first: they are the quicker ones to fail.
    tests.sort_by_key(|test| is_kernel_test(test));
    let package = if is_whole {
        Some(package::build()?)
    } else {
        None
    };
    let (mut failed, mut said) = (Vec::new(), Vec::new());
    for test in &tests {
        println!("\n{} of {}", test.target, test.package.display());
        let mut command = if is_kernel_test(test) {
            kernel(test, agent, package.as_deref())
        } else {
            Command::new(&test.path)
        };
        command.args(&options.filter).current_dir(&test.package);
        // A failure in one file must not hide what the others would have said.
        let (passed, transcript) = Transcript::of(&mut command)?;
        if !passed {
            failed.push(test.target.as_str());
            said.push(transcript.told());
        }
    }
    let mut chores: Vec<Chore> = Vec::new();
    if options.all {
        chores.push(("the virtual machines'", vm::run_all));
        chores.push(("the fuzz targets", || fuzz::run(FUZZED_SECONDS)));
        chores.push(("Miri's", miri::run));
    } else if is_whole {
        chores.push(("the virtual machines'", vm::run));
    }
    for (name, run) in chores {
        if let Err(error) = run() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        // Once more, where it is looked for first.
        println!("\n{}\n", said.join("\n"));
        bail!("tests failed: {}", failed.join(", "));
    }
    let machine = if is_whole {
        ", and those in the virtual machines"
    } else {
        ""
    };
    println!("\n{} test files passed{machine}", tests.len());
    Ok(())
}

fn is_kernel_test(test: &Executable) -> bool {
    test.package.ends_with("tests")
}

fn kernel(test: &Executable, agent: &Executable, package: Option<&Path>) -> Command {
    let mut variables = vec![
        ("CONNSTATE_AGENT", agent.path.as_os_str()),
        ("RUST_BACKTRACE", OsStr::new("1")),
    ];
    variables.extend(package.map(|package| ("CONNSTATE_PACKAGE", package.as_os_str())));
    let mut command = superuser::command(&test.path, &variables);
    // Not captured: a test that cannot run on this kernel says so, and that must be seen.
    command.args(["--test-threads=1", "--nocapture"]);
    command
}

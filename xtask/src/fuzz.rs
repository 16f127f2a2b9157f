//! `cargo xtask fuzz`: libFuzzer on what others write, for a time that has an end.
//!
//! docs/fuzzing.md says what the targets are; they are the executables of `agent/fuzz`, which has a
//! workspace of its own. No sanitizer: it takes a nightly compiler, and what is fuzzed has no
//! `unsafe`. The compiler's own checks, of overflow and bounds, are all on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo;
use crate::setup::{self, Need};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these; all unless named
    targets: Vec<String>,
    /// How long each is run
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Adds to the corpus the least of what was found that covers more than it does
    #[arg(long)]
    keep: bool,
}

/// What one input may take: seconds, and MiB together with all that the fuzzer remembers.
const BOUNDS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

pub(crate) fn main(options: &Options) -> Result<()> {
    let all = targets()?;
    let mut named = options.targets.iter();
    if let Some(target) = named.find(|target| !all.contains(target)) {
        bail!(
            "there is no target {target}: write some of {}",
            all.join(", ")
        );
    }
    let chosen = if options.targets.is_empty() {
        &all
    } else {
        &options.targets
    };
    fuzz(chosen, options.seconds)?;
    if options.keep {
        for target in chosen {
            keep(target)?;
        }
    }
    Ok(())
}

/// Runs every target for so many seconds.
pub(crate) fn run(seconds: u32) -> Result<()> {
    fuzz(&targets()?, seconds)
}

/// Each has a source.
fn targets() -> Result<Vec<String>> {
    let sources = folder("fuzz_targets");
    let entries =
        fs::read_dir(&sources).with_context(|| format!("{} cannot be read", sources.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        targets.extend(stem.map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

fn fuzz(targets: &[String], seconds: u32) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Fuzz])?;
    cargo::run(&mut cargo_fuzz("build")).context("the fuzz targets do not build")?;
    let mut failed = Vec::new();
    for target in targets {
        println!("\n{target}, for {seconds} s");
        let mut command = on_corpora(target, [found(target)?, folder("corpus").join(target)]);
        command.arg(format!("-max_total_time={seconds}"));
        command.args(["-verbosity=0", "-print_final_stats=1"]);
        // A failure of one must not hide what the others would have found.
        if let Err(error) = cargo::run(&mut command) {
            eprintln!("{error:#}");
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!(
            "not all holds of what was thought up for {}: above stands the input's file, and how to try it again; docs/fuzzing.md says what then",
            failed.join(", ")
        );
    }
    println!(
        "\n{} fuzz targets ran for {seconds} s each, and all held",
        targets.len()
    );
    Ok(())
}

/// As few as cover all that was reached.
fn keep(target: &str) -> Result<()> {
    let mut command = on_corpora(target, [folder("corpus").join(target), found(target)?]);
    cargo::run(command.args(["-set_cover_merge=1", "-verbosity=0"]))
}

/// A target on two folders of inputs, of which the first takes up what is new.
fn on_corpora(target: &str, corpora: [PathBuf; 2]) -> Command {
    let mut command = cargo_fuzz("run");
    command.arg(target).args(corpora).arg("--").args(BOUNDS);
    command
}

/// A subcommand of cargo-fuzz.
fn cargo_fuzz(subcommand: &str) -> Command {
    let mut command = cargo::cargo();
    command.args(["fuzz", subcommand, "--sanitizer", "none"]);
    command.arg("--fuzz-dir").arg(folder(""));
    command.arg("--target-dir").arg(built());
    command
}

fn folder(name: &str) -> PathBuf {
    cargo::root().join("agent/fuzz").join(name)
}

fn built() -> PathBuf {
    cargo::root().join("target/fuzz")
}

/// Where what was thought up stays, for the next run to go on from.
fn found(target: &str) -> Result<PathBuf> {
    let folder = built().join("found").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

//! `cargo xtask vm`: the tests against the kernel, on other kernels than this machine's.
//!
//! [`series`] says which kernels there are, [`mirror`] asks Debian for them and [`kernel`] keeps
//! them; [`suite`] says which tests run there, [`guest`] packs these with what they need, among it
//! the kernel's [`modules`]; [`qemu`] boots, [`console`] reads what came of it, [`judgement`]
//! judges that, and [`table`] and [`document`] tell it. Nothing needs root, nor a processor that
//! can virtualise: qemu emulates one.

pub(crate) mod series;
mod mirror;
mod kernel;
mod suite;
mod guest;
mod modules;
mod qemu;
mod console;
mod judgement;
mod table;
mod document;

use std::collections::VecDeque;
use std::env::consts::ARCH;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use document::Report;
use guest::Guest;
use judgement::File;
use kernel::Kernel;
use series::Series;
use suite::Purpose;

use crate::cargo;
use crate::setup::{self, Need};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The kernels, each as a series of kernel.org (6.1) or `newest`, and all tests there; without
    /// any, those that CI runs, and the tests it has the time for
    series: Vec<Series>,
    /// A test file that runs alone, however long it takes; can be given several times
    #[arg(long = "test", value_name = "NAME", value_parser = suite::named)]
    tests: Vec<&'static str>,
    /// Run no tests, and write docs/kernels.md anew from what `agent check` says; of the series
    /// that it tells of, if none is named
    #[arg(long, conflicts_with = "tests")]
    write_docs: bool,
}

/// What came of one kernel.
struct Outcome {
    name: String,
    files: Vec<File>,
    report: Option<Report>,
    failures: Vec<String>,
}

/// As many machines run at once; each keeps one processor busy.
const AT_ONCE: usize = 2;

pub(crate) fn main(options: &Options) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Vm])?;
    let (series, purpose) = match (options.series.as_slice(), options.write_docs) {
        ([], false) => (&series::CI[..], Purpose::Ci),
        ([], true) => (&series::DOCUMENTED[..], Purpose::Report),
        (named, true) => (named, Purpose::Report),
        (named, false) => (named, Purpose::All),
    };
    let purpose = match options.tests.as_slice() {
        [] => purpose,
        tests => Purpose::Named(tests),
    };
    let outcomes = boot(series, purpose)?;
    if options.write_docs {
        write_docs(&outcomes)?;
    }
    judge(&outcomes)
}

/// Runs the tests on the kernels of CI. What that needs must be there.
pub(crate) fn run() -> Result<()> {
    judge(&boot(&series::CI, Purpose::Ci)?)
}

/// Runs all tests on every kernel that the documentation tells of: the better part of an hour.
pub(crate) fn run_all() -> Result<()> {
    judge(&boot(&series::DOCUMENTED, Purpose::All)?)
}

/// Boots a kernel of each series.
fn boot(serieses: &[Series], purpose: Purpose<'_>) -> Result<Vec<Outcome>> {
    if ARCH != "x86_64" {
        bail!("the virtual machine is an x86-64 one, and its tests cannot be built on {ARCH}");
    }
    let kept = cargo::root().join("target/vm");
    fs::create_dir_all(&kept).with_context(|| format!("could not make {}", kept.display()))?;
    let kernels = kernel::each(serieses, &kept)?;
    let guest = Guest::build(purpose)?;
    // Of this run alone: another may go on beside it.
    let scratch = tempfile::tempdir_in(&kept).context("could not make a directory to work in")?;
    let packed = guest.pack(scratch.path())?;
    let started = Instant::now();
    let waiting: VecDeque<_> = serieses.iter().zip(kernels).enumerate().collect();
    let waiting = Mutex::new(waiting);
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let next = || {
                    waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front()
                };
                while let Some((number, (series, kernel))) = next() {
                    let outcome = kernel
                        .map_err(|error| error.context("it could not be fetched"))
                        .and_then(|kernel| outcome(&kernel, purpose, &packed, &kept))
                        .unwrap_or_else(|error| Outcome {
                            name: series.to_string(),
                            files: Vec::new(),
                            report: None,
                            failures: vec![format!("{error:#}")],
                        });
                    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.push((number, outcome));
                }
            });
        }
    });
    println!("all machines ended after {} s", started.elapsed().as_secs());
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|(number, _)| *number);
    Ok(ended.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Boots one kernel, and judges what came of it.
fn outcome(kernel: &Kernel, purpose: Purpose<'_>, packed: &Path, kept: &Path) -> Result<Outcome> {
    let scratch = tempfile::tempdir_in(kept).context("could not make a directory to work in")?;
    let unpacked = kernel.unpack(&scratch.path().join("unpacked"))?;
    let is_full = kernel.series.is_full();
    let plan = guest::plan(purpose, is_full);
    let initramfs = guest::complete(packed, &unpacked.modules, &plan, scratch.path())?;
    // Kept, for whoever asks why.
    let kept_console = kept.join(kernel.series.to_string()).join("console");
    println!("{} under qemu", kernel.release);
    let ended = qemu::boot(&unpacked.image, &initramfs, &kept_console)?;
    println!("{} ended after {} s", kernel.release, ended.took.as_secs());
    let runs = console::runs(&ended.console);
    let files = if purpose == Purpose::Report {
        Vec::new()
    } else {
        judgement::files(&runs, purpose, is_full)
    };
    let check = judgement::check(&runs, is_full);
    let report = check.as_ref().ok().map(|text| Report::read(text));
    let mut failures = Vec::new();
    failures.extend(ended.end.failure());
    let fault = console::fault(&ended.console);
    failures.extend(fault.map(|told| {
        let console = kept_console.display();
        format!("the kernel failed, more is in {console}: {told}")
    }));
    failures.extend(check.err());
    failures.extend(files.iter().flat_map(File::failures));
    if ended.end.failure().is_some() {
        println!(
            "{}\nthe console of {} ends here",
            ended.console, kernel.release
        );
    } else {
        for file in files.iter().filter(|file| !file.failures().is_empty()) {
            let run = runs.iter().find(|run| run.name == file.name);
            let output = run.map_or("nothing", |run| run.output.as_str());
            println!("{} on {}:\n{output}", file.name, kernel.release);
        }
    }
    Ok(Outcome {
        name: kernel.release.clone(),
        files,
        report,
        failures,
    })
}

/// Shows what came of every kernel, and makes anything but passes an error.
fn judge(outcomes: &[Outcome]) -> Result<()> {
    let head = outcomes.iter().map(|outcome| outcome.name.clone());
    let head: Vec<_> = ["test file".to_owned()].into_iter().chain(head).collect();
    let rows = suite::TESTS.iter().filter_map(|(name, place)| {
        let suite::Where::Host(why) = place else {
            let files = outcomes.iter().map(|outcome| {
                let mut files = outcome.files.iter();
                files.find(|file| file.name == *name)
            });
            // Of none where others were asked for.
            files.clone().flatten().next()?;
            let cells = files.map(|file| file.map_or_else(|| "–".to_owned(), File::brief));
            return Some([(*name).to_owned()].into_iter().chain(cells).collect());
        };
        println!("skipped in machines: {name}: {why}");
        None
    });
    let rows: Vec<Vec<String>> = rows.collect();
    for outcome in outcomes {
        for file in &outcome.files {
            for skip in &file.skipped {
                println!("skipped on {}: {}: {skip}", outcome.name, file.name);
            }
        }
    }
    if outcomes.iter().any(|outcome| !outcome.files.is_empty()) {
        println!("\n{}", table::table(&head, &rows));
    }
    let failures = outcomes.iter().flat_map(|outcome| {
        let failures = outcome.failures.iter();
        failures.map(|failure| format!("{}: {failure}", outcome.name))
    });
    let failures: Vec<_> = failures.collect();
    if !failures.is_empty() {
        bail!("on other kernels:\n{}", failures.join("\n"));
    }
    Ok(())
}

fn write_docs(outcomes: &[Outcome]) -> Result<()> {
    let reports = outcomes.iter().map(|outcome| {
        let report = outcome.report.clone();
        report.with_context(|| {
            format!(
                "docs/kernels.md lacks {}: no report came back",
                outcome.name
            )
        })
    });
    let reports = reports.collect::<Result<Vec<_>>>()?;
    let path = cargo::root().join("docs/kernels.md");
    fs::write(&path, document::page(&reports)).context("could not write docs/kernels.md")?;
    println!("wrote {}", path.display());
    Ok(())
}

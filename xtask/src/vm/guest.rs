//! What runs in the machine: an initial file system of two files, process 1 and the test.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// The test, of package `tests`.
const TEST: &str = "orphan_kills";

/// Where the test lies in the guest.
pub(super) const TEST_PATH: &str = "/test";

/// Named to cargo, so that what is linked statically lies apart from what is not, and neither is
/// built anew for the other; build scripts and macros are not of it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The executables, as built.
pub(super) struct Guest {
    init: PathBuf,
    test: PathBuf,
}

impl Guest {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        // There are no shared libraries in the guest, and little memory.
        let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=debuginfo"].join("\u{1f}");
        let mut command = cargo::cargo();
        command.args(["test", "--no-run", "--package", "tests", "--test", TEST]);
        command.args(["--target", TARGET]);
        // This comes before whatever flags the environment or the configuration name.
        let executables = cargo::build(command.env("CARGO_ENCODED_RUSTFLAGS", flags))?;
        let find = |target: &str, is_test: bool| {
            let mut built = executables.iter();
            let found = built
                .find(|executable| executable.target == target && executable.is_test == is_test);
            let path = found.map(|executable| executable.path.clone());
            path.with_context(|| format!("cargo built no {target} in package tests"))
        };
        Ok(Self {
            init: find("init", false)?,
            test: find(TEST, true)?,
        })
    }

    /// Makes the initial file system in `directory`, as an archive that the kernel unpacks.
    pub(super) fn pack(&self, directory: &Path) -> Result<PathBuf> {
        let files = directory.join("guest");
        fs::create_dir(&files).context("could not make a directory")?;
        for (executable, name) in [(&self.init, "init"), (&self.test, "test")] {
            fs::copy(executable, files.join(name))
                .with_context(|| format!("could not copy {}", executable.display()))?;
        }
        let archive = directory.join("initramfs");
        cpio(&files, &["init", "test"], &archive)?;
        Ok(archive)
    }
}

/// Packs files of a directory into an archive of the one format the kernel reads.
fn cpio(directory: &Path, names: &[&str], archive: &Path) -> Result<()> {
    let output =
        File::create(archive).with_context(|| format!("could not make {}", archive.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--quiet", "--format=newc", "--owner=+0:+0"]);
    cpio.current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(output);
    let mut cpio = cpio.spawn().context("could not start cpio")?;
    let mut list = cpio.stdin.take().context("cpio's input was not piped")?;
    let listed = list.write_all(names.join("\n").as_bytes());
    drop(list);
    let status = cpio.wait().context("could not wait for cpio")?;
    if !status.success() {
        bail!("cpio failed ({status}); its own message above says why");
    }
    listed.context("could not tell cpio what to pack")
}

//! What runs in the machines: an initial file system of process 1, the tests, the agent, and the
//! programs of this host that tests call.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::modules;
use super::suite::{Purpose, in_guests, left_out};
use crate::cargo::{self, Executable};
use crate::setup::program;

/// Where the agent lies in the guest, and the name of its own report on the kernel.
pub(super) const AGENT: &str = "/agent";
pub(super) const CHECK: &str = "check";

/// Named to cargo, so that what is linked statically lies apart from what is not, and neither is
/// built anew for the other; build scripts and macros are not of it.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What tests call. The guest has them where the host does, with their libraries.
const PROGRAMS: [&str; 14] = [
    "ip", "ss", "tc", "nft", "sleep", "sh", "bash", "setpriv", "prlimit", "unshare", "mount",
    "umount", "curl", "nsenter",
];

/// What no test takes as long as, and a hung one is killed after.
const SECONDS: u64 = 480;

/// The executables, as built.
pub(super) struct Guest<'a> {
    purpose: Purpose<'a>,
    executables: Vec<Executable>,
}

impl<'a> Guest<'a> {
    /// Builds them.
    pub(super) fn build(purpose: Purpose<'a>) -> Result<Self> {
        // There are no shared libraries of Rust's in the guest, and little memory.
        let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=debuginfo"].join("\u{1f}");
        let mut command = cargo::cargo();
        command.args(["build", "--package", "tests", "--package", "agent"]);
        for binary in ["agent", "init", "holder"] {
            command.args(["--bin", binary]);
        }
        for (test, _) in in_guests(purpose) {
            command.args(["--test", test]);
        }
        command.args(["--target", TARGET]);
        // This comes before whatever flags the environment or the configuration name.
        let executables = cargo::build(command.env("CARGO_ENCODED_RUSTFLAGS", flags))?;
        Ok(Self {
            purpose,
            executables,
        })
    }

    /// Makes the part of the initial file system that is the same for every kernel.
    pub(super) fn pack(&self, directory: &Path) -> Result<PathBuf> {
        let files = directory.join("guest");
        place(self.find("init", false)?, &files, "/init")?;
        place(self.find("agent", false)?, &files, AGENT)?;
        // Tests know the path that it was built at.
        let holder = self.find("holder", false)?;
        place(holder, &files, &holder.to_string_lossy())?;
        for (test, _) in in_guests(self.purpose) {
            place(self.find(test, true)?, &files, &test_path(test))?;
        }
        // The table of capabilities that the agent's unit names is read by a test of rights.
        let unit = cargo::root().join("deploy/systemd/connstate-agent.service");
        place(&unit, &files, &unit.to_string_lossy())?;
        let tests = cargo::root().join("tests");
        make(&inside(&files, &tests.to_string_lossy()))?;
        for name in PROGRAMS {
            let path = program::path(name);
            let path = path.with_context(|| format!("there is no {name}: tests call it"))?;
            for file in libraries(&path)?.iter().chain([&path]) {
                place(file, &files, &file.to_string_lossy())?;
            }
        }
        let archive = directory.join("guest.cpio");
        cpio(&files, &archive)?;
        Ok(archive)
    }

    fn find(&self, target: &str, is_test: bool) -> Result<&Path> {
        let mut built = self.executables.iter();
        let found =
            built.find(|executable| executable.target == target && executable.is_test == is_test);
        let path = found.map(|executable| executable.path.as_path());
        path.with_context(|| format!("cargo built no {target}"))
    }
}

/// Completes the initial file system, with the modules of a kernel and what shall be run: the
/// kernel unpacks one archive after the other.
pub(super) fn complete(
    packed: &Path,
    modules: &Path,
    plan: &str,
    directory: &Path,
) -> Result<PathBuf> {
    let files = directory.join("kernel");
    let loaded = files.join("modules");
    make(&loaded)?;
    modules::copy(modules, &loaded)?;
    fs::write(files.join("plan"), plan).context("could not write the plan")?;
    let more = directory.join("kernel.cpio");
    cpio(&files, &more)?;
    let archive = directory.join("initramfs");
    let mut whole = File::create(&archive).context("could not make the initial file system")?;
    for part in [packed, &more] {
        let mut part = File::open(part).context("could not open an archive")?;
        io::copy(&mut part, &mut whole).context("could not write the initial file system")?;
    }
    Ok(archive)
}

/// Where a test lies in the guest.
fn test_path(test: &str) -> String {
    format!("/tests/{test}")
}

/// What process 1 reads: a command a line.
pub(super) fn plan(purpose: Purpose<'_>, is_full: bool) -> String {
    let mut plan = format!("{CHECK} {SECONDS} {AGENT} check\n");
    for (test, place) in in_guests(purpose) {
        if left_out(place, purpose, is_full).is_none() {
            let path = test_path(test);
            let command = format!("{test} {SECONDS} {path} --test-threads=1 --nocapture\n");
            plan.push_str(&command);
        }
    }
    plan
}

/// The files that a program of this host needs, the loader among them.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut ldd = Command::new("ldd");
    let output = ldd.arg(program).env("LC_ALL", "C").output();
    let output = output.context("could not start ldd")?;
    if !output.status.success() {
        bail!("ldd cannot tell what {} needs", program.display());
    }
    Ok(needed(&String::from_utf8_lossy(&output.stdout)))
}

/// The files in what ldd prints: `name => /path (address)`, or `/path (address)`.
fn needed(ldd: &str) -> BTreeSet<PathBuf> {
    let paths = ldd.lines().filter_map(|line| {
        let (before, _) = line.trim().rsplit_once(" (")?;
        let path = before.split_once("=> ").map_or(before, |(_, path)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// A path of the guest, below the directory that becomes its root.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Copies a file to a place in the guest.
fn place(file: &Path, root: &Path, path: &str) -> Result<()> {
    let to = inside(root, path);
    make(to.parent().unwrap_or(root))?;
    fs::copy(file, &to).with_context(|| format!("could not copy {}", file.display()))?;
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))
}

/// Everything below a directory, relative to it, each directory before what is in it.
fn tree(root: &Path, below: &Path, names: &mut String) -> Result<()> {
    let entries = fs::read_dir(root.join(below)).context("could not list a directory")?;
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        names.push_str(&path.to_string_lossy());
        names.push('\n');
        if entry.file_type()?.is_dir() {
            tree(root, &path, names)?;
        }
    }
    Ok(())
}

/// Packs a directory into an archive of the one format the kernel reads.
fn cpio(directory: &Path, archive: &Path) -> Result<()> {
    let mut names = String::new();
    tree(directory, Path::new(""), &mut names)?;
    let output =
        File::create(archive).with_context(|| format!("could not make {}", archive.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--quiet", "--format=newc", "--owner=+0:+0"]);
    cpio.current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(output);
    let mut cpio = cpio.spawn().context("could not start cpio")?;
    let mut list = cpio.stdin.take().context("cpio's input was not piped")?;
    let listed = list.write_all(names.as_bytes());
    drop(list);
    let status = cpio.wait().context("could not wait for cpio")?;
    if !status.success() {
        bail!("cpio failed ({status}); its own message above says why");
    }
    listed.context("could not tell cpio what to pack")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_those_that_have_a_file() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f1)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(needed(ldd), expected.map(PathBuf::from).into());
        assert!(needed("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_reduced_kernel_runs_what_needs_no_more() {
        let reduced = plan(Purpose::All, false);
        let names: Vec<_> = reduced.lines().map(|line| line.split(' ').next()).collect();
        assert_eq!(names[..2], [Some(CHECK), Some("verdicts")]);
        assert!(!names.contains(&Some("rights")));
        let all = plan(Purpose::All, true).lines().count();
        assert_eq!(all, 1 + in_guests(Purpose::All).count());
        let alone = plan(Purpose::Named(&["rights"]), true);
        assert_eq!(alone.lines().count(), 2);
        assert_eq!(plan(Purpose::Report, true).lines().count(), 1);
    }

    #[test]
    fn directories_are_packed_before_what_is_in_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "").unwrap();
        let mut names = String::new();
        tree(root.path(), Path::new(""), &mut names).unwrap();
        assert_eq!(names, "a\na/b\na/b/c\n");
    }
}

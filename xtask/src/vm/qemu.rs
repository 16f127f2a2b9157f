//! The machine: booted, watched to its end, and judged.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::guest::TEST_PATH;
use super::kernel::Kernel;
use crate::child::Guarded;

/// A run takes some ten seconds; this is what a slow host that has other things to do needs not.
const DEADLINE: Duration = Duration::from_mins(10);

/// What process 1 writes to the device that ends the machine, where the test passed and where it
/// failed. qemu makes it its own status, twice as much and one: neither is what qemu itself or a
/// machine without a verdict ends with.
const PASSED: i32 = 16;
const FAILED: i32 = 17;

/// The line that the test prints when it has seen what it shall show: a test that skips passes, too.
const PROOF: &str = "seen-in-the-vm";

/// How a run of the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The test passed, and said that it had seen everything.
    Passed,
    /// The test passed without that: it skipped, or another one ran.
    Unproven,
    /// The test failed.
    Failed,
    /// The kernel panicked: a fault of its own, or of process 1.
    Panicked,
    /// The machine was powered off before the test had an end: process 1 failed.
    PoweredOff,
    /// qemu failed, or was killed.
    Emulator(ExitStatus),
    /// None of these within the deadline.
    TimedOut,
}

impl Verdict {
    /// Of qemu's status, where it ended, and what the guest wrote on its console.
    fn of(status: Option<ExitStatus>, console: &str) -> Self {
        const PASS: i32 = 2 * PASSED + 1;
        const FAIL: i32 = 2 * FAILED + 1;
        let Some(status) = status else {
            return Self::TimedOut;
        };
        match status.code() {
            Some(PASS) if console.lines().any(|line| line.trim_end() == PROOF) => Self::Passed,
            Some(PASS) => Self::Unproven,
            Some(FAIL) => Self::Failed,
            Some(0) if console.contains("Kernel panic") => Self::Panicked,
            Some(0) => Self::PoweredOff,
            _ => Self::Emulator(status),
        }
    }

    /// What went wrong, in words.
    fn failure(self) -> Option<String> {
        let seconds = DEADLINE.as_secs();
        Some(match self {
            Self::Passed => return None,
            Self::Unproven => {
                format!("the test passed without the line `{PROOF}`, so that it has shown nothing")
            }
            Self::Failed => "the test failed in the virtual machine".to_owned(),
            Self::Panicked => "the virtual machine's kernel panicked".to_owned(),
            Self::PoweredOff => "the virtual machine ended before its test did".to_owned(),
            Self::Emulator(status) => format!("qemu failed ({status})"),
            Self::TimedOut => {
                format!("the virtual machine did not end within {seconds} s, and was killed")
            }
        })
    }
}

/// Boots the kernel with this initial file system, and makes anything but a proven pass an error.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, directory: &Path) -> Result<()> {
    println!("\n{} under qemu", kernel.package);
    let console = directory.join("console");
    let output = File::create(&console).context("could not make a file for the console")?;
    let started = Instant::now();
    let mut qemu = Guarded::spawn(
        command(&kernel.image, initramfs)
            .stdin(Stdio::null())
            .stdout(output),
    )?;
    let status = qemu.wait(DEADLINE)?;
    let took = started.elapsed().as_secs_f64();
    drop(qemu);
    let console = fs::read(&console).context("could not read the console")?;
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    print!("{console}");
    if let Some(failure) = Verdict::of(status, &console).failure() {
        bail!("{failure}; its console above says more");
    }
    println!("passed on {} after {took:.1} s", kernel.package);
    Ok(())
}

/// One emulated processor: with several, each in a thread of its own, machines were seen to hang.
fn command(image: &Path, initramfs: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=single", "-M", "pc", "-cpu", "max"]);
    qemu.args(["-smp", "1", "-m", "256M", "-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-no-reboot", "-monitor", "none"]);
    qemu.args(["-serial", "stdio"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    qemu.arg("-kernel").arg(image);
    qemu.arg("-initrd").arg(initramfs);
    // What the kernel does not know itself it gives process 1: variables in its environment, and
    // behind the dashes its arguments.
    let variables = format!("RUST_BACKTRACE=1 CONNSTATE_VM={PROOF}");
    let arguments = format!("{PASSED} {FAILED} {TEST_PATH} --test-threads=1 --nocapture");
    let line = format!("console=ttyS0 panic=-1 quiet {variables} -- {arguments}");
    qemu.args(["-append", &line]);
    qemu
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Of qemu that exits with `code`.
    fn verdict(code: i32, console: &str) -> Verdict {
        Verdict::of(Some(ExitStatus::from_raw(code << 8)), console)
    }

    #[test]
    fn only_a_status_and_a_proof_together_are_a_pass() {
        let proven = format!("test x ... 300 killed\r\n{PROOF}\r\nok\r\n");
        assert_eq!(verdict(33, &proven), Verdict::Passed);
        let skipped = "test x ... skipped: not here\nok\n";
        assert_eq!(verdict(33, skipped), Verdict::Unproven);
        let given = format!("Command line: quiet CONNSTATE_VM={PROOF}\n");
        assert_eq!(verdict(33, &given), Verdict::Unproven);
        assert_eq!(verdict(35, &proven), Verdict::Failed);
    }

    #[test]
    fn every_other_end_is_told_apart() {
        let panic = "[    1.2] Kernel panic - not syncing: Attempted to kill init!\n";
        assert_eq!(verdict(0, panic), Verdict::Panicked);
        let init = "init: cgroup2 cannot be mounted on /sys/fs/cgroup\n";
        assert_eq!(verdict(0, init), Verdict::PoweredOff);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(Verdict::of(Some(killed), ""), Verdict::Emulator(killed));
        let refused = ExitStatus::from_raw(1 << 8);
        assert_eq!(Verdict::of(Some(refused), ""), Verdict::Emulator(refused));
        assert_eq!(Verdict::of(None, PROOF), Verdict::TimedOut);
    }

    #[test]
    fn all_but_a_pass_say_what_went_wrong() {
        let emulator = Verdict::Emulator(ExitStatus::from_raw(1 << 8));
        for verdict in [
            Verdict::Unproven,
            Verdict::Failed,
            Verdict::Panicked,
            Verdict::PoweredOff,
            emulator,
            Verdict::TimedOut,
        ] {
            assert!(verdict.failure().is_some(), "{verdict:?}");
        }
        assert_eq!(Verdict::Passed.failure(), None);
    }
}

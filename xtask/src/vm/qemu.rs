//! A machine: booted, and watched to its end.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::child::Guarded;

/// All tests take a quarter of an hour; this is what a slow host that has other things to do needs
/// not.
const DEADLINE: Duration = Duration::from_mins(40);

/// What process 1 writes to the device that ends the machine, once it has carried out its plan.
/// qemu makes it its own status, twice as much and one: that is neither what qemu itself nor what
/// a machine without a verdict ends with.
const CARRIED_OUT: i32 = 16;

/// The line that a test prints when it has seen what only a machine of its own can show: a test
/// that skips passes, too.
pub(super) const PROOF: &str = "seen-in-the-vm";

/// A machine that ended.
pub(super) struct Ended {
    pub(super) end: End,
    /// What it wrote.
    pub(super) console: String,
    pub(super) took: Duration,
}

/// How a run of the machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Process 1 carried out its plan.
    CarriedOut,
    /// The kernel panicked: a fault of its own, or of process 1.
    Panicked,
    /// The machine was powered off before the plan had an end: process 1 failed.
    PoweredOff,
    /// qemu failed, or was killed.
    Emulator(ExitStatus),
    /// None of these within the deadline.
    TimedOut,
}

impl End {
    /// Of qemu's status, where it ended, and what the guest wrote on its console.
    fn of(status: Option<ExitStatus>, console: &str) -> Self {
        const STATUS: i32 = 2 * CARRIED_OUT + 1;
        let Some(status) = status else {
            return Self::TimedOut;
        };
        match status.code() {
            Some(STATUS) => Self::CarriedOut,
            Some(0) if console.contains("Kernel panic") => Self::Panicked,
            Some(0) => Self::PoweredOff,
            _ => Self::Emulator(status),
        }
    }

    /// What went wrong, in words.
    pub(super) fn failure(self) -> Option<String> {
        let seconds = DEADLINE.as_secs();
        Some(match self {
            Self::CarriedOut => return None,
            Self::Panicked => "the kernel panicked".to_owned(),
            Self::PoweredOff => "the machine ended before its tests did".to_owned(),
            Self::Emulator(status) => format!("qemu failed ({status})"),
            Self::TimedOut => {
                format!("the machine did not end within {seconds} s, and was killed")
            }
        })
    }
}

/// Boots a kernel with this initial file system, its console going to a file.
pub(super) fn boot(image: &Path, initramfs: &Path, console: &Path) -> Result<Ended> {
    let output = File::create(console).context("could not make a file for the console")?;
    let started = Instant::now();
    let mut qemu = command(image, initramfs);
    let mut qemu = Guarded::spawn(qemu.stdin(Stdio::null()).stdout(output))?;
    let status = qemu.wait(DEADLINE)?;
    let took = started.elapsed();
    drop(qemu);
    let console = fs::read(console).context("could not read the console")?;
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    Ok(Ended {
        end: End::of(status, &console),
        console,
        took,
    })
}

/// Two emulated processors, by turns in one thread: in a thread each, machines were seen to hang.
/// The second is off, so that what is counted depends on one, until a test brings it in; without
/// MWAIT, which qemu lets one of several spin in, a processor at rest halts.
fn command(image: &Path, initramfs: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=single", "-M", "pc"]);
    qemu.args(["-cpu", "max,monitor=off", "-smp", "2", "-m", "1536M"]);
    qemu.args(["-nodefaults", "-no-user-config"]);
    qemu.args(["-display", "none", "-no-reboot", "-monitor", "none"]);
    qemu.args(["-serial", "stdio"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    qemu.arg("-kernel").arg(image);
    qemu.arg("-initrd").arg(initramfs);
    // What the kernel does not know itself it gives process 1: variables in its environment, and
    // behind the dashes its arguments.
    let variables = [
        "RUST_BACKTRACE=1",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("CONNSTATE_AGENT={}", super::guest::AGENT),
        &format!("CONNSTATE_VM={PROOF}"),
    ];
    let variables = variables.join(" ");
    let line = format!("console=ttyS0 panic=-1 quiet maxcpus=1 {variables} -- {CARRIED_OUT}");
    qemu.args(["-append", &line]);
    qemu
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Of qemu that exits with `code`.
    fn end(code: i32, console: &str) -> End {
        End::of(Some(ExitStatus::from_raw(code << 8)), console)
    }

    #[test]
    fn every_end_is_told_apart() {
        assert_eq!(end(33, "init: smoke ended"), End::CarriedOut);
        let panic = "[    1.2] Kernel panic - not syncing: Attempted to kill init!\n";
        assert_eq!(end(0, panic), End::Panicked);
        let init = "init: cgroup2 cannot be mounted on /sys/fs/cgroup\n";
        assert_eq!(end(0, init), End::PoweredOff);
        let killed = ExitStatus::from_raw(9);
        assert_eq!(End::of(Some(killed), ""), End::Emulator(killed));
        let refused = ExitStatus::from_raw(1 << 8);
        assert_eq!(End::of(Some(refused), ""), End::Emulator(refused));
        assert_eq!(End::of(None, "init: smoke ended"), End::TimedOut);
    }

    #[test]
    fn all_but_one_say_what_went_wrong() {
        let emulator = End::Emulator(ExitStatus::from_raw(1 << 8));
        for end in [End::Panicked, End::PoweredOff, emulator, End::TimedOut] {
            assert!(end.failure().is_some(), "{end:?}");
        }
        assert_eq!(End::CarriedOut.failure(), None);
    }
}

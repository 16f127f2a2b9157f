//! Process 1 of the virtual machine that `cargo xtask vm` boots.
//!
//! `init PASSED FAILED COMMAND [ARGUMENT...]` mounts what tests look at, sets the loopback
//! interface up and runs COMMAND. It ends the machine with the status PASSED where that succeeds,
//! and with FAILED where it does not; where it cannot get so far, it says why on the console and
//! powers the machine off.

use std::{
    env, fs, io, mem,
    os::fd::AsRawFd as _,
    process::{self, Command},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{ioctl_write_ptr_bad, libc};
use rustix::{
    mount::{MountFlags, mount},
    net::{AddressFamily, SocketType, socket},
    system::{RebootCommand, reboot},
    termios::tcdrain,
};

/// File systems, and where they belong: what holds another comes first.
const MOUNTS: [(&str, &str); 8] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
];

mod ioctl {
    //! `linux/sockios.h`.
    use super::{ioctl_write_ptr_bad, libc};

    ioctl_write_ptr_bad!(
        /// Sets the flags of an interface, by its name.
        siocsifflags,
        libc::SIOCSIFFLAGS,
        libc::ifreq
    );
}

fn main() -> Result<()> {
    ensure!(
        process::id() == 1,
        "this is process 1 of the machine that `cargo xtask vm` boots, and nothing else"
    );
    if let Err(error) = run() {
        eprintln!("init: {error:#}");
    }
    // Only where something failed: `run` ends the machine.
    tcdrain(io::stderr())?;
    reboot(RebootCommand::PowerOff).context("the machine cannot be powered off")
}

fn run() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = |what| arguments.next().with_context(|| format!("no {what}"));
    let (passed, failed) = (next("PASSED")?.parse()?, next("FAILED")?.parse()?);
    let command = next("COMMAND")?;
    for (kind, directory) in MOUNTS {
        fs::create_dir_all(directory).with_context(|| format!("no {directory}"))?;
        mount(kind, directory, kind, MountFlags::empty(), None)
            .with_context(|| format!("{kind} cannot be mounted on {directory}"))?;
    }
    loopback_up().context("the loopback interface cannot be set up")?;
    let status = Command::new(&command)
        .args(arguments)
        .status()
        .with_context(|| format!("{command} cannot be run"))?;
    println!("init: {command} ended: {status}");
    end(if status.success() { passed } else { failed })
}

fn loopback_up() -> Result<()> {
    // SAFETY: ifreq is integers and unions of them, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP.try_into()?;
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: the descriptor is a socket, and the request one of the kind it takes.
    unsafe { ioctl::siocsifflags(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Ends the machine through qemu's isa-debug-exit, once the console has been written.
#[cfg(target_arch = "x86_64")]
fn end(status: u32) -> Result<()> {
    /// Where that device listens.
    const PORT: u16 = 0xf4;
    const LENGTH: libc::c_ulong = 4;

    tcdrain(io::stdout())?;
    // SAFETY: the call gives this process the right to four ports, and touches no memory.
    let allowed = unsafe { libc::ioperm(PORT.into(), LENGTH, 1) };
    ensure!(allowed == 0, "ioperm: {}", io::Error::last_os_error());
    // SAFETY: no memory is touched, and the right to the port has just been given. It is that of
    // a device which ends the machine: process 1 runs nowhere else.
    unsafe {
        std::arch::asm!(
            "out dx, eax",
            in("dx") PORT,
            in("eax") status,
            options(nomem, nostack, preserves_flags)
        );
    }
    bail!("no device to end the machine answers at port {PORT:#x}")
}

/// The device is of machines with an ISA bus.
#[cfg(not(target_arch = "x86_64"))]
fn end(_status: u32) -> Result<()> {
    bail!("this architecture has no device to end the machine with a status")
}

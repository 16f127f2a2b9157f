//! Process 1 of the virtual machines that `cargo xtask vm` boots.
//!
//! `init STATUS` mounts what tests look at, sets the loopback interface up, loads the modules in
//! /modules in their names' order and runs the commands of /plan one after the other. What begins
//! and how it ends is told on the console, and judged by who reads it. Once all have ended, init
//! ends the machine with STATUS; where it cannot get so far, it says why and powers the machine off.
//!
//! A line of /plan is a name, the seconds that the command may take, its program and its arguments.

use std::{
    env,
    fs::{self, File},
    io, mem,
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{self, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{ioctl_write_ptr_bad, libc};
use rustix::{
    mount::{MountFlags, mount},
    net::{AddressFamily, SocketType, socket},
    system::{RebootCommand, finit_module, reboot},
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
    let status = env::args().nth(1).context("no STATUS")?.parse()?;
    for (kind, directory) in MOUNTS {
        fs::create_dir_all(directory).with_context(|| format!("no {directory}"))?;
        mount(kind, directory, kind, MountFlags::empty(), None)
            .with_context(|| format!("{kind} cannot be mounted on {directory}"))?;
    }
    loopback_up().context("the loopback interface cannot be set up")?;
    load_modules()?;
    for line in fs::read_to_string("/plan").context("no /plan")?.lines() {
        let mut words = line.split(' ');
        let mut next = |what| {
            words
                .next()
                .with_context(|| format!("{line:?} has no {what}"))
        };
        let (name, seconds) = (next("name")?, next("seconds")?.parse()?);
        let mut command = Command::new(next("program")?);
        command.args(words).stdin(Stdio::null());
        println!("init: {name} begins");
        let began = Instant::now();
        let end = match run_within(&mut command, Duration::from_secs(seconds)) {
            Ok(Some(status)) => format!("ended: {status}"),
            Ok(None) => "was killed".to_owned(),
            Err(error) => format!("could not be run: {error}"),
        };
        // On a line of its own, whatever the command printed last.
        println!("\ninit: {name} {end} after {} s", began.elapsed().as_secs());
    }
    end(status)
}

/// Runs a command; tells how it ended, or kills it after as long as `deadline`.
fn run_within(command: &mut Command, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    const PAUSE: Duration = Duration::from_millis(50);
    let began = Instant::now();
    let mut child = command.spawn()?;
    while began.elapsed() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(PAUSE);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Loads modules; whoever packed them named them so that each comes after those it needs.
fn load_modules() -> Result<()> {
    let files = fs::read_dir("/modules").context("no /modules")?;
    let files = files.map(|file| Ok(file?.path()));
    let mut files: Vec<PathBuf> = files.collect::<io::Result<_>>()?;
    files.sort();
    for file in files {
        finit_module(File::open(&file)?, c"", 0)
            .with_context(|| format!("{} cannot be loaded", file.display()))?;
    }
    Ok(())
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

//! A network namespace for one run, which goes with the process that entered it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::setup::program;

/// Few `TIME_WAIT` sockets, many ports, and leave to use a port again: the load must be bound by
/// the processor alone. /proc/sys/net shows the namespace of whoever looks at it.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "2000"),
    ("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000"),
    ("/proc/sys/net/ipv4/tcp_tw_reuse", "1"),
];

/// Moves this process, which must still have but one thread, into a new network namespace with
/// nothing but loopback.
pub(super) fn enter() -> Result<()> {
    // SAFETY: only the network namespace is left; the file descriptor table stays shared as it
    // was, which is what the function's contract is about.
    let left = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    left.context("could not make a network namespace; it takes root")?;
    for (path, value) in SYSCTLS {
        fs::write(path, value).with_context(|| format!("could not write {value} to {path}"))?;
    }
    let ip = program::path("ip").context("ip is missing; it is in Debian's package iproute2")?;
    let status = Command::new(ip)
        .args(["link", "set", "lo", "up"])
        .status()
        .context("could not start ip")?;
    if !status.success() {
        bail!("`ip link set lo up` failed ({status})");
    }
    Ok(())
}

//! `cargo xtask vm`: a kernel test in a virtual machine, where limits of the whole host can be
//! reached without harm to this one.
//!
//! [`kernel`] fetches the kernel, [`guest`] builds what it starts, [`qemu`] boots both and tells
//! how that ended. Nothing needs root, nor a processor that can virtualise: qemu emulates one.

mod kernel;
mod guest;
mod qemu;

use std::env::consts::ARCH;
use std::fs;

use anyhow::{Context, Result, bail};

use guest::Guest;

use crate::cargo;
use crate::setup::{self, Need};

pub(crate) fn main() -> Result<()> {
    setup::ensure(&[Need::Build, Need::Vm])?;
    run()
}

/// Boots the kernel of this machine's own Debian release. What that needs must be there.
pub(crate) fn run() -> Result<()> {
    if ARCH != "x86_64" {
        bail!("the virtual machine is an x86-64 one, and its test cannot be built on {ARCH}");
    }
    let kept = cargo::root().join("target/vm");
    fs::create_dir_all(&kept).with_context(|| format!("could not make {}", kept.display()))?;
    let kernel = kernel::own(&kept)?;
    let guest = Guest::build()?;
    // Of this run alone: another may go on beside it.
    let scratch = tempfile::tempdir_in(&kept).context("could not make a directory to work in")?;
    let initramfs = guest.pack(scratch.path())?;
    qemu::boot(&kernel, &initramfs, scratch.path())
}

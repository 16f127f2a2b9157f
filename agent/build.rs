//! Builds the kernel programs and hands their object to the agent, which embeds it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// The rustup toolchain that can build for BPF; `cargo xtask setup` makes it.
const TOOLCHAIN: &str = "connstate-ebpf";

const REMEDY: &str = "run `cargo xtask setup`, which installs it";

fn main() -> Result<()> {
    require(
        Command::new("rustup").args(["run", TOOLCHAIN, "rustc", "--version"]),
        "the rustup toolchain `connstate-ebpf`, which builds the kernel programs,",
    )?;
    require(
        Command::new("bpf-linker").arg("--version"),
        "bpf-linker, which links the kernel programs,",
    )?;
    // SAFETY: nothing else runs in this process yet that could read the environment. The compiler
    // takes `-Z build-std` from a stable release only where this says so, and aya-build passes
    // the environment on.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [Package {
            name: "agent-ebpf",
            root_dir: "../agent-ebpf",
            ..Package::default()
        }],
        Toolchain::Custom(TOOLCHAIN),
    )
    .context("the kernel programs do not build")
}

/// Fails in one sentence where a tool is missing.
fn require(command: &mut Command, what: &str) -> Result<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("{what} is missing: {REMEDY}");
    }
    Ok(())
}

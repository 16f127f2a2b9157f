//! Builds the kernel programs and hands their object to the agent, which embeds it.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// The rustup toolchain that can build for BPF; `cargo xtask setup` makes it.
const TOOLCHAIN: &str = "connstate-ebpf";

const REMEDY: &str = "run `cargo xtask setup`, which installs it";

fn main() -> Result<()> {
    if ["CARGO_CFG_FUZZING", "CARGO_CFG_MIRI"]
        .iter()
        .any(|name| env::var_os(name).is_some())
    {
        return without_programs();
    }
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
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
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

/// An empty object. Fuzz targets and Miri load no programs, and building them takes a minute.
fn without_programs() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var_os("OUT_DIR").context("cargo says not where to build")?;
    fs::write(Path::new(&out).join("connstate-ebpf"), []).context("no object can be written")
}

/// Fails in one sentence where a tool is missing.
fn require(command: &mut Command, what: &str) -> Result<()> {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("{what} is missing: {REMEDY}");
    }
    Ok(())
}

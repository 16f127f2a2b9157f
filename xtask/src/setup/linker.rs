//! bpf-linker, which makes one BPF object of the bitcode rustc emits.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Finding, Requirement, debian, program, toolchain};
use crate::cargo;

const VERSION: &str = "0.13.0";

/// The LLVM versions this bpf-linker can be built against, each a feature `llvm-N`. An LLVM reads
/// the bitcode of its own version and of older ones.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// The linker that rustc's BPF targets call by name.
pub(super) struct Linker;

impl Requirement for Linker {
    fn name(&self) -> String {
        format!("bpf-linker {VERSION}")
    }

    fn find(&self) -> Result<Finding> {
        let Some(path) = program::path("bpf-linker") else {
            return Ok(Finding::Missing(
                "not in PATH, to which ~/.cargo/bin should belong".to_owned(),
            ));
        };
        let output = Command::new(&path)
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        let answer = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(match answer {
            Ok(answer) if answer == format!("bpf-linker {VERSION}") => {
                Finding::Met(path.display().to_string())
            }
            Ok(answer) if answer.is_empty() => {
                Finding::Missing(format!("{} does not run", path.display()))
            }
            Ok(answer) => Finding::Missing(format!("{} is {answer}", path.display())),
            Err(error) => Finding::Missing(format!("{} does not run: {error}", path.display())),
        })
    }

    fn install(&self) -> Result<()> {
        if program::path("cargo-binstall").is_some() && install_prebuilt().is_ok() {
            return Ok(());
        }
        let wanted = toolchain::llvm_major()?;
        let (major, prefix) = llvm(wanted)?;
        println!(
            "building bpf-linker {VERSION} against LLVM {major} in {}, which takes a minute or two",
            prefix.display()
        );
        let mut install = cargo::cargo();
        install.args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--quiet",
        ]);
        install.args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ]);
        cargo::run(install.env("LLVM_PREFIX", prefix))
    }
}

/// The released binary carries the newest LLVM inside it, and serves every rustc before it.
fn install_prebuilt() -> Result<()> {
    let package = format!("bpf-linker@{VERSION}");
    cargo::run(cargo::cargo().args([
        "binstall",
        "--no-confirm",
        "--force",
        "--disable-strategies",
        "compile",
        &package,
    ]))
}

/// The oldest LLVM that reads this rustc's bitcode and has its development files, from Debian
/// where they are not here yet.
fn llvm(wanted: u32) -> Result<(u32, PathBuf)> {
    let majors = || LLVM_MAJORS.into_iter().filter(|major| *major >= wanted);
    let prefix = |major: u32| PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if majors().next().is_none() {
        bail!(
            "rustc emits bitcode of LLVM {wanted}, and bpf-linker {VERSION} knows none newer than {}; raise its version in xtask/src/setup/linker.rs",
            LLVM_MAJORS[2]
        );
    }
    let advice = format!(
        "`cargo install cargo-binstall && cargo binstall bpf-linker@{VERSION}` needs no LLVM"
    );
    if !debian::is_here() {
        // Elsewhere LLVM is wherever the distribution puts it: llvm-config knows.
        let (major, prefix) = llvm_config()
            .with_context(|| format!("no LLVM {wanted} development files here; {advice}"))?;
        if !majors().any(|candidate| candidate == major) {
            bail!("llvm-config is of LLVM {major}, and rustc needs {wanted} or newer; {advice}");
        }
        return Ok((major, prefix));
    }
    for major in majors() {
        let packages = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
        let mut names: Vec<&str> = packages.iter().map(String::as_str).collect();
        // LLVM's own dependencies, linked by name.
        names.extend(["zlib1g-dev", "libzstd-dev", "g++"]);
        let here = names.iter().all(|name| debian::version(name).is_some());
        if here || debian::install(&names, None).is_ok() {
            return Ok((major, prefix(major)));
        }
    }
    bail!("Debian has no llvm-N-dev for LLVM {wanted} or newer; {advice}");
}

fn llvm_config() -> Option<(u32, PathBuf)> {
    let ask = |question| {
        let output = Command::new("llvm-config")
            .arg(question)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let major = ask("--version")?.split('.').next()?.parse().ok()?;
    let prefix = ask("--prefix")?;
    Path::new(&prefix).is_dir().then(|| (major, prefix.into()))
}

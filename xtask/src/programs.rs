//! The crate of the kernel programs, compiled by itself as the agent's build script does it: the
//! same toolchain and target, `core` built from source.

use std::env::consts::ARCH;
use std::process::Command;

use crate::cargo;
use crate::setup::toolchain::TOOLCHAIN;

/// A cargo command on the programs alone, with further flags for the compiler, parted by 0x1f.
pub(crate) fn cargo(subcommand: &str, flags: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo", subcommand]);
    command.args(["--package", "agent-ebpf", "--bins", "--release"]);
    command.args(["--target", TARGET, "-Z", "build-std=core"]);
    command.current_dir(cargo::root());
    command.env("RUSTC_BOOTSTRAP", "1");
    // By this cfg aya-ebpf tells architectures apart.
    let architecture = format!("--cfg=bpf_target_arch=\"{ARCH}\"");
    command.env("CARGO_ENCODED_RUSTFLAGS", architecture + flags);
    // These would pin the toolchain that runs this task in place of the one named above.
    command
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The object, compiled anew. `core` is kept from one time to the next: it takes a minute.
    fn object() -> Vec<u8> {
        let directory = cargo::root().join("target/programs");
        let mut clean = cargo::cargo();
        clean.args(["clean", "--release", "--package", "agent-ebpf"]);
        clean
            .args(["--target", TARGET, "--target-dir"])
            .arg(&directory);
        cargo::run(&mut clean).unwrap();
        // The flags are those that aya-build asks for besides.
        let mut build = cargo("build", "\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf");
        build.arg("--target-dir").arg(&directory);
        cargo::run(&mut build).unwrap();
        fs::read(directory.join(TARGET).join("release/connstate-ebpf")).unwrap()
    }

    #[test]
    fn the_object_is_the_same_byte_for_byte_when_built_anew() {
        let (first, second) = (object(), object());
        println!("{} bytes", first.len());
        assert!(first == second, "the same sources made two objects");
    }
}

//! Programs that tests and benchmarks run, and the Debian package that brings each.

use std::path::PathBuf;

use anyhow::Result;

use super::{Finding, Requirement, debian};

/// A program, and where Debian keeps it.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
    /// A service the package would start by itself.
    service: Option<&'static str>,
}

impl Program {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self {
            name,
            package,
            service: None,
        }
    }

    const fn with_service(self, service: &'static str) -> Self {
        Self {
            service: Some(service),
            ..self
        }
    }
}

/// What the kernel tests make traffic and check outputs with, the terminal that `agent top` is tried
/// in, and what brings or makes what the manifests are checked with.
pub(super) const TESTS: [Program; 19] = [
    Program::new("ip", "iproute2"),
    Program::new("ss", "iproute2"),
    Program::new("iptables", "iptables"),
    Program::new("nft", "nftables"),
    // Watches beside the agent.
    Program::new("tcpstates", "libbpf-tools"),
    Program::new("promtool", "prometheus").with_service("prometheus.service"),
    Program::new("prometheus", "prometheus").with_service("prometheus.service"),
    Program::new("prometheus-alertmanager", "prometheus-alertmanager")
        .with_service("prometheus-alertmanager.service"),
    Program::new("amtool", "prometheus-alertmanager")
        .with_service("prometheus-alertmanager.service"),
    Program::new("curl", "curl"),
    Program::new("openssl", "openssl"),
    Program::new("ps", "procps"),
    Program::new("tmux", "tmux"),
    Program::new("node", "nodejs"),
    Program::new("npm", "npm"),
    Program::new("python3", "python3"),
    Program::new("buildah", "buildah"),
    // A system of its own for the Debian package.
    Program::new("debootstrap", "debootstrap"),
    Program::new("systemd-nspawn", "systemd-container"),
];

/// What libFuzzer is built with.
pub(super) const CPP: Program = Program::new("c++", "g++");

/// What virtual machines are emulated by and their initial file systems made with, and what tests
/// call there.
pub(super) const VM: [Program; 8] = [
    Program::new("qemu-system-x86_64", "qemu-system-x86"),
    Program::new("cpio", "cpio"),
    Program::new("xz", "xz-utils"),
    Program::new("ip", "iproute2"),
    Program::new("ss", "iproute2"),
    Program::new("nft", "nftables"),
    Program::new("setpriv", "util-linux"),
    Program::new("prlimit", "util-linux"),
];

/// What the benchmarks drive, and whom they compare with.
pub(super) const BENCH: [Program; 8] = [
    Program::new("ip", "iproute2"),
    Program::new("nginx", "nginx").with_service("nginx.service"),
    Program::new("wrk", "wrk"),
    Program::new("perf", "linux-perf"),
    Program::new("tcpstates", "libbpf-tools"),
    Program::new("tcplife", "libbpf-tools"),
    Program::new("nsenter", "util-linux"),
    Program::new("prometheus-node-exporter", "prometheus-node-exporter")
        .with_service("prometheus-node-exporter.service"),
];

impl Requirement for Program {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn find(&self) -> Result<Finding> {
        Ok(match path(self.name) {
            Some(path) => Finding::Met(path.display().to_string()),
            None => Finding::Missing(format!("in Debian's package {}", self.package)),
        })
    }

    fn install(&self) -> Result<()> {
        debian::install(&[self.package], self.service)
    }
}

/// Where a program is. The administrator's directories are searched too: Debian leaves them out
/// of an ordinary user's PATH, but sudo finds what is there.
pub(crate) fn path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .into_iter()
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

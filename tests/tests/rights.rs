//! What the agent finds on this host, how few rights it needs, and what it says with fewer.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use agent_ebpf::{fields::FIELDS, programs::PROGRAMS};
use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tests::{
    daemon::{Daemon, RUN, binary, output},
    load::{RESET_BY_LINGER, reset_by_linger},
    netns::Netns,
};

#[test]
fn check_lists_every_program_and_field() -> Result<()> {
    let ended = output(Command::new(binary()?).arg("check"))?;
    let report = String::from_utf8(ended.stdout)?;
    assert_eq!(ended.status.code(), Some(0), "{report}");
    for program in PROGRAMS {
        let attached = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(program.name) && words.next() == Some("attached")
        };
        assert!(report.lines().any(attached), "{}: {report}", program.name);
    }
    for field in FIELDS {
        let name = format!("{}.{}", field.container, field.path);
        let located = |line: &str| {
            let mut words = line.split_whitespace();
            let offset = words.nth(1).map(|word| word.trim_end_matches(','));
            line.trim_start().starts_with(&format!("{name} "))
                && offset.is_some_and(|offset| offset.parse::<u32>().is_ok())
        };
        assert!(report.lines().any(located), "{name}: {report}");
    }
    Ok(())
}

/// The agent where a user without rights can run it.
struct Unprivileged {
    folder: TempDir,
}

/// Of `nobody`, on every distribution.
const NOBODY: &str = "65534";

impl Unprivileged {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), readable)?;
        std::fs::copy(binary()?, folder.path().join("agent"))?;
        Ok(Self { folder })
    }

    /// The agent as nobody with these capabilities, written as setpriv takes them.
    fn with(&self, capabilities: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        command.arg(self.agent());
        command
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let nobody = Unprivileged::new()?;
    for (held, missing, not_missing) in [
        ("-all", &["CAP_BPF", "CAP_PERFMON"][..], &[][..]),
        ("-all,+bpf", &["CAP_PERFMON"], &["missing CAP_BPF"]),
        ("-all,+perfmon", &["CAP_BPF"], &["missing CAP_PERFMON"]),
    ] {
        let ran = output(nobody.with(held).args(RUN))?;
        let errors = String::from_utf8(ran.stderr)?;
        assert_eq!(ran.status.code(), Some(1), "{held}: {errors}");
        let checked = output(nobody.with(held).arg("check"))?;
        let report = String::from_utf8(checked.stdout)?;
        assert_eq!(checked.status.code(), Some(2), "{held}: {report}");
        for name in missing {
            assert!(errors.contains(name), "{held}: {errors}");
            assert!(report.contains(name), "{held}: {report}");
        }
        for name in not_missing {
            assert!(!errors.contains(name), "{held}: {errors}");
            assert!(!report.contains(name), "{held}: {report}");
        }
        // The remedy.
        assert!(errors.contains("setcap cap_bpf,cap_perfmon=ep"), "{errors}");
    }
    Ok(())
}

#[test]
fn two_capabilities_suffice() -> Result<()> {
    let nobody = Unprivileged::new()?;
    let capabilities = "-all,+bpf,+perfmon";
    let checked = output(nobody.with(capabilities).arg("check"))?;
    let report = String::from_utf8(checked.stdout)?;
    assert_eq!(checked.status.code(), Some(0), "{report}");

    let mut daemon = Daemon::spawn(nobody.with(capabilities).args(RUN))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    // CAP_PERFMON is 38, CAP_BPF 39.
    assert!(status.contains("CapEff:\t000000c000000000\n"), "{status}");
    let netns = Netns::new()?;
    let before = daemon.scrape()?.value(RESET_BY_LINGER)?;
    reset_by_linger(&netns, 10)?;
    daemon.wait("ten closes", |daemon| {
        let now = daemon.scrape().ok()?.value(RESET_BY_LINGER).ok()?;
        (now >= before + 10.0).then_some(())
    })?;
    // The programs' own numbers come from /proc/self/fdinfo, which needs no more either.
    let misses = daemon
        .scrape()?
        .series("connstate_bpf_program_misses_total");
    assert_eq!(misses, PROGRAMS.len());
    Ok(())
}

#[test]
fn the_hosts_namespace_takes_a_capability() -> Result<()> {
    let nobody = Unprivileged::new()?;
    let mut command = nobody.with("-all,+bpf,+perfmon");
    let ended = output(command.args(RUN).args(["--netns", "host"]))?;
    let errors = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(1), "{errors}");
    for part in ["--netns host", "CAP_SYS_PTRACE"] {
        assert!(errors.contains(part), "{part} is not in: {errors}");
    }
    Ok(())
}

#[test]
fn a_small_memlock_limit_does_no_harm() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(5), Some(11)) {
        eprintln!("skipped: before 5.11 the kernel charges maps to RLIMIT_MEMLOCK");
        return Ok(());
    }
    let mut command = Command::new("prlimit");
    command
        .arg("--memlock=65536:65536")
        .arg(binary()?)
        .args(RUN);
    let daemon = Daemon::spawn(&mut command)?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()))?;
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max locked memory"));
    let limit = limit.context("no limit on locked memory")?;
    assert!(
        limit.split_whitespace().any(|word| word == "65536"),
        "{limit}"
    );
    Ok(())
}

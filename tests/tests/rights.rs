//! What the agent finds on this host, how few rights it needs, and what it says with fewer.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use agent_ebpf::{fields::FIELDS, programs::PROGRAMS};
use anyhow::{Context as _, Result, ensure};
use socket2::Socket;
use tempfile::TempDir;
use tests::{
    cgroup::Cgroup,
    daemon::{Daemon, RUN, binary, output},
    holder::{Holder, Plan, Role},
    http::number,
    load::{RESET_BY_LINGER, reset_by_linger},
    netns::Netns,
    place::{Family, Place},
    unit, wait,
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

    /// The agent as nobody with these capabilities and no way to others, written as setpriv takes
    /// them.
    fn with(&self, capabilities: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        command.args(["--inh-caps", capabilities, "--ambient-caps", capabilities]);
        command.args(["--bounding-set", capabilities, "--no-new-privs"]);
        command.arg(self.agent());
        command
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("agent")
    }
}

/// Whether `agent check` says so of this capability.
fn is_missing(report: &str, name: &str) -> bool {
    let mut lines = report.lines().map(|line| line.split_whitespace());
    lines.any(|mut words| words.next() == Some(name) && words.next() == Some("missing"))
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let nobody = Unprivileged::new()?;
    for (held, missing, not_missing) in [
        ("-all", &["CAP_BPF", "CAP_PERFMON"][..], &[][..]),
        ("-all,+bpf", &["CAP_PERFMON"], &["CAP_BPF"]),
        ("-all,+perfmon", &["CAP_BPF"], &["CAP_PERFMON"]),
    ] {
        let ran = output(nobody.with(held).args(RUN))?;
        let errors = String::from_utf8(ran.stderr)?;
        assert_eq!(ran.status.code(), Some(1), "{held}: {errors}");
        let checked = output(nobody.with(held).arg("check"))?;
        let report = String::from_utf8(checked.stdout)?;
        assert_eq!(checked.status.code(), Some(2), "{held}: {report}");
        for name in missing {
            assert!(errors.contains(name), "{held}: {errors}");
            assert!(is_missing(&report, name), "{held}: {report}");
        }
        for name in not_missing {
            assert!(
                !errors.contains(&format!("missing {name}")),
                "{held}: {errors}"
            );
            assert!(!is_missing(&report, name), "{held}: {report}");
        }
        // The remedy.
        assert!(errors.contains("setcap cap_bpf,cap_perfmon=ep"), "{errors}");
    }
    Ok(())
}

/// A container without the host's processes: whose the sockets are stays unknown, and that is said.
#[test]
fn a_pid_namespace_of_its_own_is_named() -> Result<()> {
    let apart = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(binary().unwrap_or_default());
        command
    };
    let checked = output(apart().arg("check"))?;
    let report = String::from_utf8(checked.stdout)?;
    assert_eq!(checked.status.code(), Some(1), "{report}");
    assert!(report.contains("PID namespace not the host's"), "{report}");
    assert!(report.contains("--pid=host"), "{report}");
    let daemon = Daemon::spawn(apart().args(RUN))?;
    let said = daemon.log().join("\n");
    assert!(said.contains("not in the host's PID namespace"), "{said}");
    Ok(())
}

#[test]
fn two_capabilities_suffice() -> Result<()> {
    let nobody = Unprivileged::new()?;
    let capabilities = "-all,+bpf,+perfmon";
    let checked = output(nobody.with(capabilities).arg("check"))?;
    let report = String::from_utf8(checked.stdout)?;
    // Not for everything: other network namespaces take two more.
    assert_eq!(checked.status.code(), Some(1), "{report}");
    for name in ["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"] {
        assert!(is_missing(&report, name), "{report}");
    }

    let mut daemon = Daemon::spawn(nobody.with(capabilities).args(RUN))?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    // Once it runs it has given them up.
    assert!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
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

/// As setpriv takes them.
fn written<'a>(capabilities: impl IntoIterator<Item = &'a String>) -> String {
    let names = capabilities.into_iter().map(|capability| {
        let name = capability.trim_start_matches("CAP_").to_lowercase();
        format!(",+{name}")
    });
    format!("-all{}", names.collect::<String>())
}

/// A service in a network namespace of its own that leaks connections in CLOSE_WAIT.
struct Leak {
    netns: Netns,
    _holder: Holder,
    _cgroup: Cgroup,
    _peers: Vec<Socket>,
    series: String,
}

/// How many it leaks.
const LEAKED: usize = 3;

impl Leak {
    /// Nothing, aloud, where there is no cgroup for the service.
    fn new() -> Result<Option<Self>> {
        let netns = Netns::new()?;
        let name = format!("connstate-rights-{}.service", std::process::id());
        let Some(cgroup) = Cgroup::named(name)? else {
            return Ok(None);
        };
        let place = Place::new(Family::V4);
        let plan = Plan {
            process: "leaker",
            role: Role::Server(false),
            port: place.port,
            count: LEAKED,
            thread: None,
        };
        let mut holder = Holder::start(env!("CARGO_BIN_EXE_holder"), &netns, &cgroup, &plan)?;
        holder.go_on()?;
        holder.says("listening")?;
        let peers = netns.run(|| {
            let peers = (0..LEAKED).map(|_| place.connect());
            let peers = peers.collect::<Result<Vec<_>>>()?;
            for peer in &peers {
                peer.shutdown(std::net::Shutdown::Write)?;
            }
            wait::servers_in(place.port, "close-wait", LEAKED)?;
            Ok(peers)
        })?;
        holder.says("holding")?;
        let series = format!(
            "connstate_close_wait_leaked{{cause=\"eof_unread\",workload=\"unit:{}\",\
             process=\"leaker\",port=\"{}\",side=\"server\"}}",
            cgroup.name(),
            place.port
        );
        Ok(Some(Self {
            netns,
            _holder: holder,
            _cgroup: cgroup,
            _peers: peers,
            series,
        }))
    }

    /// A knob of its namespace.
    fn sysctl(&self) -> String {
        let inode = self.netns.inode();
        format!("connstate_sysctl{{netns=\"{inode}\",name=\"tcp_fin_timeout\"}}")
    }
}

const LEAK_AT_ONCE: [&str; 2] = ["--close-wait-leak-after", "1s"];

#[test]
fn the_units_capabilities_suffice_for_everything() -> Result<()> {
    let nobody = Unprivileged::new()?;
    let capabilities = unit::capabilities()?;
    let held = written(&capabilities);
    let checked = output(nobody.with(&held).arg("check"))?;
    let report = String::from_utf8(checked.stdout)?;
    assert_eq!(checked.status.code(), Some(0), "{report}");

    let Some(leak) = Leak::new()? else {
        return Ok(());
    };
    leak.netns.sysctl("tcp_fin_timeout", "47")?;
    let mut command = nobody.with(&held);
    command.args(RUN).args(LEAK_AT_ONCE).arg("--bpf-stats");
    let mut daemon = Daemon::spawn(&mut command)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let mask = unit::mask(capabilities.iter().map(String::as_str))?;
    for line in [
        format!("Uid:\t{}\n", [NOBODY; 4].join("\t")),
        format!("CapBnd:\t{mask}\n"),
    ] {
        assert!(status.contains(&line), "no {line} in {status}");
    }
    // Its sockets, and whose they are: the process, its unit and its port.
    daemon.wait("the leak of another namespace", |daemon| {
        let told = daemon.scrape().ok()?.value(&leak.series).ok()?;
        (told >= number(LEAKED.try_into().ok()?)).then_some(())
    })?;
    let scrape = daemon.scrape()?;
    assert_eq!(scrape.value(&leak.sysctl())?.to_string(), "47");
    let host = "connstate_netns_info{netns=\"host\"";
    assert!(scrape.0.keys().any(|series| series.starts_with(host)));
    let attached = scrape.series("connstate_bpf_program_attached");
    assert_eq!(
        scrape.series("connstate_bpf_program_runs_total"),
        attached,
        "--bpf-stats"
    );
    let log = daemon.log().join("\n");
    assert!(!log.contains("missing"), "{log}");
    Ok(())
}

/// The reasons that the unit gives for its capabilities, one by one.
#[test]
fn without_one_capability_of_the_unit_what_is_lost_is_said() -> Result<()> {
    let nobody = Unprivileged::new()?;
    let capabilities = unit::capabilities()?;
    let Some(leak) = Leak::new()? else {
        return Ok(());
    };
    for left_out in &capabilities {
        let held = written(capabilities.iter().filter(|name| *name != left_out));
        let checked = output(nobody.with(&held).arg("check"))?;
        let report = String::from_utf8(checked.stdout)?;
        let mut command = nobody.with(&held);
        let mut daemon = Daemon::spawn(command.args(RUN).args(LEAK_AT_ONCE))?;
        if ["CAP_BPF", "CAP_PERFMON"].contains(&left_out.as_str()) {
            // CAP_SYS_ADMIN contains both.
            assert_eq!(checked.status.code(), Some(0), "{left_out}: {report}");
            daemon.wait("the leak of another namespace", |daemon| {
                daemon.scrape().ok()?.value(&leak.series).ok()
            })?;
            continue;
        }
        assert_eq!(checked.status.code(), Some(1), "{left_out}: {report}");
        assert!(is_missing(&report, left_out), "{report}");
        assert!(report.contains("network namespaces"), "{report}");
        let log = daemon.log().join("\n");
        assert!(log.contains(left_out.as_str()), "{log}");
        // It is ready, so a census is over; the other namespace is not in it.
        let scrape = daemon.scrape()?;
        ensure!(
            !scrape.0.contains_key(&leak.sysctl()),
            "{left_out}: the namespace was read all the same"
        );
    }
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

/// With so little it would end in the middle of loading the programs, without a word of its own.
#[test]
fn too_little_address_space_is_refused() -> Result<()> {
    let mut command = Command::new("prlimit");
    command.arg("--as=60000000").arg(binary()?).args(RUN);
    let ran = output(&mut command)?;
    let errors = String::from_utf8(ran.stderr)?;
    assert_eq!(ran.status.code(), Some(1), "{errors}");
    assert!(errors.contains("LimitAS="), "{errors}");
    Ok(())
}

//! The Debian package, in a fresh Debian: it installs, starts, and goes without a trace, and the
//! agent it starts has no rights but those its unit gives a reason for.

#[path = "package/judgement.rs"]
mod judgement;
#[path = "package/pages.rs"]
mod pages;

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    daemon::output,
    debian::{Machine, Root},
    http::Scrape,
    netns::Netns,
    unit,
};

const UNIT: &str = "connstate-agent.service";

/// Where the package lies in the fresh system.
const INSIDE: &str = "/connstate-agent.deb";

const DEADLINE: Duration = Duration::from_mins(1);

/// What the package brings, but for pages of documentation.
const FILES: [&str; 6] = [
    "/etc/default/connstate-agent",
    "/usr/bin/connstate-agent",
    "/usr/lib/systemd/system/connstate-agent.service",
    "/usr/share/doc/connstate-agent/changelog.Debian.gz",
    "/usr/share/doc/connstate-agent/copyright",
    "/usr/share/lintian/overrides/connstate-agent",
];

/// A fresh Debian with the package lying in it; nothing, aloud, where none was built.
fn fresh() -> Result<Option<Root>> {
    let Some(package) = std::env::var_os("CONNSTATE_PACKAGE") else {
        eprintln!(
            "skipped: CONNSTATE_PACKAGE names no package; `cargo xtask test` without --filter \
             builds one, which takes minutes, and so does `cargo xtask package`"
        );
        return Ok(None);
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let root = Root::new(kept)?;
    fs::copy(&package, root.path().join(&INSIDE[1..]))
        .with_context(|| format!("no package at {}", package.display()))?;
    Ok(Some(root))
}

#[test]
fn it_installs_and_goes_without_a_trace() -> Result<()> {
    let Some(root) = fresh()? else { return Ok(()) };
    let before = named_after_us(root.path())?;
    root.command(&["dpkg", "--install", INSIDE])?;

    // What it brought, whose that is, and who may change it.
    let listed = root.command(&["dpkg", "--listfiles", "connstate-agent"])?;
    let listed: BTreeSet<&str> = listed.lines().collect();
    for file in FILES {
        assert!(listed.contains(file), "{file} is not among {listed:?}");
    }
    for file in listed.iter().filter(|file| file.contains("connstate")) {
        let metadata = fs::metadata(within(&root, file))?;
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{file}");
        let is_executable = metadata.is_dir() || *file == "/usr/bin/connstate-agent";
        let mode = if is_executable { 0o755 } else { 0o644 };
        assert_eq!(metadata.mode() & 0o7777, mode, "{file}");
        let is_page = metadata.is_dir() || file.starts_with("/usr/share/doc/connstate-agent/");
        assert!(is_page || FILES.contains(file), "{file} is not expected");
    }
    let (user, group) = user(&root)?;
    assert!(user != 0 && group != 0);
    let configuration = fs::metadata(root.path().join("etc/connstate"))?;
    assert_eq!((configuration.uid(), configuration.gid()), (0, group));
    assert_eq!(configuration.mode() & 0o7777, 0o750);
    let wanted = root
        .path()
        .join("etc/systemd/system/multi-user.target.wants")
        .join(UNIT);
    assert!(wanted.is_symlink(), "the unit is not enabled");

    judgement::unit_is_sound(&root)?;
    judgement::exposure_is_as_documented(&root)?;
    pages::pages_are_whole(&root)?;

    // What an administrator wrote stays, also that the unit shall not run.
    let options = root.path().join("etc/default/connstate-agent");
    fs::write(&options, "CONNSTATE_ARGS=\"--netns host\"\n")?;
    root.command(&["systemctl", "disable", "--quiet", UNIT])?;
    root.command(&["dpkg", "--install", INSIDE])?;
    assert!(fs::read_to_string(&options)?.contains("--netns host"));
    assert!(!wanted.is_symlink(), "an upgrade has enabled the unit");

    root.command(&["dpkg", "--remove", "connstate-agent"])?;
    for file in FILES {
        let is_kept = file.starts_with("/etc/");
        assert_eq!(within(&root, file).exists(), is_kept, "{file}");
    }
    root.command(&["dpkg", "--purge", "connstate-agent"])?;
    let mut left = named_after_us(root.path())?;
    left.retain(|path| !before.contains(path));
    assert_eq!(left, BTreeSet::<PathBuf>::new(), "left behind");
    Ok(())
}

/// An agent that looks for a shared library would not start where there is none.
#[test]
fn the_executable_needs_no_library() -> Result<()> {
    let Some(root) = fresh()? else { return Ok(()) };
    root.command(&["dpkg-deb", "--extract", INSIDE, "/unpacked"])?;
    let ran = output(
        Command::new("chroot")
            .arg(root.path().join("unpacked"))
            .args(["/usr/bin/connstate-agent", "--version"]),
    )?;
    let version = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{version}{:?}", ran.stderr);
    assert_eq!(version.trim(), concat!("agent ", env!("CARGO_PKG_VERSION")));
    names_need_no_library(&root.path().join("unpacked"))?;

    // The package's own version goes with it.
    let packaged = root.command(&["dpkg-deb", "--field", INSIDE, "Version"])?;
    assert_eq!(packaged.trim(), concat!(env!("CARGO_PKG_VERSION"), "-1"));
    let changes = "/unpacked/usr/share/doc/connstate-agent/changelog.Debian.gz";
    let changes = root.command(&["zcat", changes])?;
    assert!(
        changes.starts_with(&format!("connstate-agent ({})", packaged.trim())),
        "{changes}"
    );
    Ok(())
}

/// Where the host has a module asked first, which the executable has no glibc for: it is not asked,
/// else the name were not found.
fn names_need_no_library(root: &Path) -> Result<()> {
    fs::write(root.join("etc/hosts"), "127.0.0.1 agent.example\n")?;
    let modules = "hosts: none [UNAVAIL=return] files\n";
    fs::write(root.join("etc/nsswitch.conf"), modules)?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["/usr/bin/connstate-agent", "events"]);
    let url = format!("http://agent.example:{closed}");
    let asked = output(command.args(["--url", &url]))?;
    let errors = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(errors.contains("Connection refused"), "{errors}");
    Ok(())
}

#[test]
fn systemd_runs_it_with_its_rights_alone() -> Result<()> {
    let Some(root) = fresh()? else { return Ok(()) };
    let machine = root.boot()?;

    // Installing starts it.
    machine.command(&["dpkg", "--install", INSIDE])?;
    is_ready(&machine)?;

    // Who it is, and what it may do.
    let told = main_status(&machine)?;
    let field = |name: &str| field(&told, name);
    let (user, group) = user(&root)?;
    assert_eq!(field("Uid")?, [user.to_string().as_str(); 4].join("\t"));
    assert_eq!(field("Gid")?, [group.to_string().as_str(); 4].join("\t"));
    let capabilities = unit::capabilities()?;
    let mask = unit::mask(capabilities.iter().map(String::as_str))?;
    assert_eq!(field("CapBnd")?, mask);
    // What it was given it has given up, but for the census's thread.
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set)?, "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs")?, field("Seccomp")?), ("1", "2"));
    let modes = machine.command(&["stat", "--format=%a %U", "/run/connstate", API_SOCKET])?;
    assert_eq!(modes, "700 connstate\n600 connstate\n");

    // Every program runs, and nothing was refused. The machine has a PID namespace of its own, which
    // is what the agent and its check may have to say.
    let log = journal(&machine)?;
    let is_odd = |line: &str| {
        let levels = ["WARN", "ERROR", "lost:"];
        levels.iter().any(|level| line.contains(level)) && !line.contains("PID namespace")
    };
    assert!(!log.lines().any(is_odd), "{log}");
    let scrape = scrape(&machine)?;
    let attached = scrape.series("connstate_bpf_program_attached");
    let running = scrape.0.iter().filter(|(series, value)| {
        series.starts_with("connstate_bpf_program_attached{") && **value > 0.0
    });
    assert_eq!(running.count(), attached);

    other_namespaces_are_counted(&machine)?;

    // Root's own commands find it, and a restart serves them anew. Without the unit's filter of
    // system calls fewer are in force: the others are of its other settings, and the agent's own.
    let checked = machine.command(&["sh", "-c", "connstate-agent check || test $? = 1"])?;
    assert!(!checked.lines().any(is_odd), "{checked}");
    let filters = field("Seccomp_filters")?.parse::<u32>()?;
    machine.command(&["sh", "-c", UNFILTERED])?;
    machine.command(&["systemctl", "restart", UNIT])?;
    is_ready(&machine)?;
    machine.command(&["test", "-S", API_SOCKET])?;
    let unfiltered = self::field(&main_status(&machine)?, "Seccomp_filters")?.parse::<u32>()?;
    assert!(
        filters > unfiltered,
        "{filters} with the unit's own, {unfiltered} without"
    );

    machine.command(&["systemctl", "stop", UNIT])?;
    let properties = ["systemctl", "show", "-p", "Result,ExecMainStatus,NRestarts"];
    let ended = machine.command(&[&properties[..], &[UNIT]].concat())?;
    for property in ["Result=success", "ExecMainStatus=0", "NRestarts=0"] {
        assert!(ended.lines().any(|line| line == property), "{ended}");
    }
    assert!(journal(&machine)?.contains("stopped: every program and map is gone"));

    // Removing the package stops what runs.
    machine.command(&["systemctl", "start", UNIT])?;
    is_ready(&machine)?;
    machine.command(&["dpkg", "--purge", "connstate-agent"])?;
    machine.wait(&["systemctl", "is-active", UNIT], "inactive")?;
    assert_eq!(status(&machine, "/readyz")?, "000", "it is still served");
    Ok(())
}

const API_SOCKET: &str = "/run/connstate/api.sock";

/// Takes away the unit's filter of system calls, until the next boot.
const UNFILTERED: &str = "mkdir /run/systemd/system/connstate-agent.service.d \
     && printf '[Service]\\nSystemCallFilter=\\n' \
         >/run/systemd/system/connstate-agent.service.d/unfiltered.conf \
     && systemctl daemon-reload";

/// /proc/PID/status of the agent that the unit runs.
fn main_status(machine: &Machine) -> Result<String> {
    let main = machine.command(&["systemctl", "show", "--value", "-p", "MainPID", UNIT])?;
    machine.command(&["cat", &format!("/proc/{}/status", main.trim())])
}

/// What stands behind this name in /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.with_context(|| format!("{name} is not in {status}"))
}

/// One namespace has a process, of another user than the agent's; the other is kept by a mount,
/// made after the agent was started.
fn other_namespaces_are_counted(machine: &Machine) -> Result<()> {
    let (lived_in, mounted) = (Netns::new()?, Netns::new()?);
    let enter = |netns: &Netns| {
        let net = format!("--net={}", netns.path().display());
        let mut command = machine.enter(&["--mount", "--pid", &net]);
        command.arg("--");
        command
    };
    let mut inhabitant = enter(&lived_in).args(["sleep", "600"]).spawn()?;
    let kept = "touch /run/kept && mount --bind /proc/self/ns/net /run/kept";
    let mount = output(enter(&mounted).args(["sh", "-c", kept]))?;
    ensure!(mount.status.success(), "{:?}", mount.stderr);
    let connect = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let server = listener.accept()?;
        Ok((listener, client, server))
    };
    let held = (lived_in.run(connect)?, mounted.run(connect)?);
    // Both ends of both connections; the machine has no others but ours to /metrics.
    let counted = wait("sockets of other namespaces", || {
        let scrape = scrape(machine)?;
        let established = scrape.value("connstate_sockets{state=\"established\"}")?;
        let names_both = [&lived_in, &mounted].iter().all(|netns| {
            let series = format!("connstate_time_wait_sockets{{netns=\"{}\"}}", netns.inode());
            scrape.0.contains_key(&series)
        });
        Ok((names_both && established >= 4.0).then_some(()))
    });
    drop(held);
    let unmounted = machine.command(&["umount", "/run/kept"]);
    inhabitant.kill()?;
    inhabitant.wait()?;
    counted.and(unmounted.map(|_text| ()))
}

/// Waits until it runs and serves. systemd takes it to be active from its first moment on.
fn is_ready(machine: &Machine) -> Result<()> {
    machine.wait(&["systemctl", "is-active", UNIT], "active")?;
    wait("an answer on /readyz", || {
        Ok((status(machine, "/readyz")? == "200").then_some(()))
    })
}

/// The name of the path in the fresh system, seen from here.
fn within(root: &Root, path: &str) -> PathBuf {
    root.path().join(path.trim_start_matches('/'))
}

/// The numbers of the user and the group that the package has made.
fn user(root: &Root) -> Result<(u32, u32)> {
    let users = fs::read_to_string(root.path().join("etc/passwd"))?;
    let user = users.lines().find(|line| line.starts_with("connstate:"));
    let user: Vec<&str> = user
        .context("there is no user connstate")?
        .split(':')
        .collect();
    ensure!(user.len() == 7, "{user:?} is no user");
    assert_eq!((user[5], user[6]), ("/nonexistent", "/usr/sbin/nologin"));
    Ok((user[2].parse()?, user[3].parse()?))
}

/// Every file of the system that bears our name.
fn named_after_us(root: &Path) -> Result<BTreeSet<PathBuf>> {
    fn visit(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains("connstate") {
                found.insert(path.clone());
            }
            if entry.file_type()?.is_dir() {
                visit(&path, found)?;
            }
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    visit(root, &mut found)?;
    Ok(found)
}

fn journal(machine: &Machine) -> Result<String> {
    machine.command(&["journalctl", "--no-pager", "--unit", UNIT])
}

/// The status that the agent answers with; 000 where nobody does.
fn status(machine: &Machine, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:10735{path}");
    let mut command = machine.enter(&["--net"]);
    command.args(["curl", "--silent", "--output", "/dev/null"]);
    let answer = output(command.args(["--write-out", "%{http_code}", &url]))?;
    Ok(String::from_utf8(answer.stdout)?)
}

fn scrape(machine: &Machine) -> Result<Scrape> {
    let mut command = machine.enter(&["--net"]);
    command.args([
        "curl",
        "--silent",
        "--fail",
        "http://127.0.0.1:10735/metrics",
    ]);
    Scrape::parse(&String::from_utf8(output(&mut command)?.stdout)?)
}

fn wait<T>(what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "no {what} in time");
        thread::sleep(Duration::from_millis(50));
    }
}

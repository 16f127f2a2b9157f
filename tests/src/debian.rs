//! A Debian of the tests' own: its files made anew for each test, its commands run and, where a
//! test asks for it, its systemd booted in namespaces of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long the system may take to boot, or to stop.
const DEADLINE: Duration = Duration::from_mins(1);

/// What there is besides the smallest system: systemd, and what the package depends on.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,adduser";

/// The files of a Debian of this host's own release.
#[derive(Debug)]
pub struct Root {
    folder: TempDir,
}

impl Root {
    /// Makes one below `kept`, where the archive it is unpacked from stays for the next time.
    ///
    /// # Errors
    ///
    /// Where this host is no Debian, or the files cannot be fetched or unpacked.
    pub fn new(kept: &Path) -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.context("/etc/os-release names no release of Debian")?;
        let suite = suite.trim_matches('"');
        let archive = kept.join(format!("debian-{suite}.tar"));
        if !archive.exists() {
            bootstrap(suite, kept, &archive)?;
        }
        let folder = TempDir::with_prefix_in("debian-", kept)?;
        run(Command::new("tar")
            .args(["--extract", "--numeric-owner", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(folder.path()))?;
        Ok(Self { folder })
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command there, where no systemd runs, and returns what it prints.
    ///
    /// # Errors
    ///
    /// Where it fails.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        run(self.container("--as-pid2").arg("--").args(words))
    }

    /// Boots it, with every capability and a network of its own.
    ///
    /// # Errors
    ///
    /// Where its systemd does not come up.
    pub fn boot(&self) -> Result<Machine> {
        let mut command = self.container("--boot");
        // What the agent needs and systemd-nspawn by itself withholds.
        command.args(["--capability=all", "--system-call-filter=bpf"]);
        command.args(["--private-network", "--link-journal=no"]);
        // Of hosts with cgroups of both versions the second is what the machine gets.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .spawn()
            .context("systemd-nspawn cannot be run: `cargo xtask setup` installs it")?;
        let mut machine = Machine { child, init: 0 };
        let deadline = Instant::now() + DEADLINE;
        while machine.init == 0 || !machine.is_up() {
            if let Some(status) = machine.child.try_wait()? {
                bail!("systemd-nspawn ended with {status}; its own message above says why");
            }
            ensure!(Instant::now() < deadline, "systemd does not come up");
            machine.init = first_process(machine.child.id()).unwrap_or(0);
            thread::sleep(Duration::from_millis(50));
        }
        Ok(machine)
    }

    /// systemd-nspawn, as yet without what it shall run.
    fn container(&self, how: &str) -> Command {
        // It ends with the test, whatever becomes of that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "systemd-nspawn", "--quiet", how]);
        command.args(["--register=no", "--keep-unit", "--console=pipe"]);
        command.arg("--directory").arg(self.path());
        command
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        remove_cgroups();
    }
}

/// A booted one; it is switched off with the value.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    /// Its process 1, by this host's number.
    init: u32,
}

impl Machine {
    /// Its process 1, by this host's number.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A command that enters these of its namespaces, as nsenter names them.
    #[must_use]
    pub fn enter(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args(namespaces);
        command
    }

    /// Runs a command inside, and returns what it prints.
    ///
    /// # Errors
    ///
    /// Where it fails.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        run(self.inside(words))
    }

    /// Polls until a command inside prints this.
    ///
    /// # Errors
    ///
    /// Where it does not in time.
    pub fn wait(&self, words: &[&str], printed: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // `systemctl is-active` fails while it prints anything else.
            let output = self.inside(words).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            if text.trim() == printed {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{words:?} prints {text}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn inside(&self, words: &[&str]) -> Command {
        let namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"];
        let mut command = self.enter(&namespaces);
        command.arg("--").args(words);
        command
    }

    fn is_up(&self) -> bool {
        let output = self.inside(&["systemctl", "is-system-running"]).output();
        let state = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        // A unit that fails in a container of this kind is not what is tried.
        state.is_ok_and(|state| state == "running" || state == "degraded")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // systemd-nspawn has process 1 stop everything, and then ends by itself.
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        let _told = pid.map(|pid| kill(pid, Signal::SIGTERM));
        let deadline = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // Both fail only where it has ended, as it should.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The archive of the smallest system with [`PACKAGES`].
fn bootstrap(suite: &str, kept: &Path, archive: &Path) -> Result<()> {
    let mirror = mirror(suite)?;
    let folder = TempDir::with_prefix_in("debootstrap-", kept)?;
    let root = folder.path().join("root");
    eprintln!("debootstrap of {suite}, which takes a minute");
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include", PACKAGES, suite])
        .arg(&root)
        .arg(mirror))?;
    // Made whole, or not at all.
    let unfinished = folder.path().join("archive");
    run(Command::new("tar")
        .args(["--create", "--numeric-owner", "--file"])
        .arg(&unfinished)
        // What was fetched has been installed.
        .args(["--exclude=./var/cache/apt/archives/*.deb", "--directory"])
        .arg(&root)
        .arg("."))?;
    fs::rename(&unfinished, archive)?;
    Ok(())
}

/// The first place that this host's apt fetches the release from.
fn mirror(suite: &str) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"]);
    let targets = run(command.args(["Created-By: Packages", "Component: main"]))?;
    let mut targets = targets.lines().map(|line| line.split(' '));
    let mirror = targets.find_map(|mut words| {
        let codename = words.next()?;
        (codename == suite).then(|| words.next_back().map(str::to_owned))?
    });
    mirror.context("apt fetches this release from nowhere: `apt-get update` may say why")
}

/// Process 1 of the container that this systemd-nspawn runs, once there is one.
fn first_process(nspawn: u32) -> Option<u32> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = status.lines();
            lines.find_map(|line| line.strip_prefix(name)?.split_whitespace().next_back())
        };
        field("PPid:") == Some(&nspawn.to_string())
            && field("NSpid:") == Some("1")
            && field("Name:") == Some("systemd")
    })
}

/// Removes the cgroups that systemd-nspawn has made beside the test's own and left behind. What is
/// not empty stays.
fn remove_cgroups() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(kind), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let is_mount = |mount: &&str| {
            let (_, file_system) = mount.split_once(" - ").unwrap_or_default();
            match kind {
                "" => file_system.starts_with("cgroup2 "),
                "name=systemd" => file_system.contains("name=systemd"),
                _ => false,
            }
        };
        let mount = mounts.lines().find(is_mount);
        let Some(mount) = mount.and_then(|mount| mount.split(' ').nth(4)) else {
            continue;
        };
        let cgroup = PathBuf::from(format!("{mount}{path}"));
        for name in ["payload", "supervisor"] {
            remove_empty(&cgroup.join(name));
        }
    }
}

/// Removes a cgroup and those in it, from the innermost on.
fn remove_empty(cgroup: &Path) {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // Refused where there are processes.
    let _removed = fs::remove_dir(cgroup);
}

/// Runs a command to its end, and returns what it prints.
fn run(mut command: impl std::borrow::BorrowMut<Command>) -> Result<String> {
    let command = command.borrow_mut();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?} cannot be run: `cargo xtask setup` installs it"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure!(
        status.success(),
        "{command:?} failed ({status}): {text}{errors}"
    );
    Ok(text)
}

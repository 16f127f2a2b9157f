//! The observers: how each is started, when it is ready, and how it ends.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tempfile::TempDir;

use super::metrics::{Account, Metrics};
use crate::child::Guarded;
use crate::setup::program;

const READY_DEADLINE: Duration = Duration::from_secs(20);

/// What a load is measured under.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// No observer: how far two runs differ by themselves.
    Nothing,
    /// The agent as it is by default.
    Agent,
    /// The agent with a record of every transition.
    AgentStreamAll,
    /// `agent events --all` by programs of its own, its lines to a file: what tcpstates does.
    AgentEvents,
    /// libbpf-tools' tcpstates, its lines to a file.
    Tcpstates,
    /// libbpf-tools' tcplife, its lines to a file.
    Tcplife,
}

/// The agent under test.
pub(super) struct Subject {
    pub(super) agent: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
}

/// An observer that is ready.
pub(super) struct Running {
    pub(super) process: Guarded,
    /// The agent's own account.
    pub(super) metrics: Option<Metrics>,
    /// How long it took to say that it runs.
    pub(super) start_up: Duration,
    /// Where the output goes, as long as it runs.
    output: TempDir,
    /// Whether the output ends in an account.
    tells_account: bool,
}

impl Running {
    /// Ends the observer; returns what it says of itself in its last words, if it does.
    pub(super) fn stop(self) -> Result<Option<Account>> {
        let log = self.output.path().join(OUTPUT);
        self.process.stop()?;
        if !self.tells_account {
            return Ok(None);
        }
        let said = fs::read_to_string(&log).context("could not read the output")?;
        let last = said.lines().last().unwrap_or_default();
        let account = Account::of_last_words(last);
        account
            .with_context(|| format!("the observer's last words are no account: {last:?}"))
            .map(Some)
    }
}

/// The file that an observer's output goes to.
const OUTPUT: &str = "output";

impl Tool {
    pub(super) const ALL: [Self; 6] = [
        Self::Nothing,
        Self::Agent,
        Self::AgentStreamAll,
        Self::AgentEvents,
        Self::Tcpstates,
        Self::Tcplife,
    ];

    pub(super) fn is_agent(self) -> bool {
        matches!(self, Self::Agent | Self::AgentStreamAll | Self::AgentEvents)
    }

    /// What its row is called.
    pub(super) fn label(self, subject: &Subject) -> String {
        let name = match self {
            Self::Nothing => return "nothing (noise floor)".to_owned(),
            Self::Agent => "connstate",
            Self::AgentStreamAll => "connstate --stream all",
            Self::AgentEvents => return "agent events --all, output to a file".to_owned(),
            Self::Tcpstates => return "tcpstates (libbpf-tools), output to a file".to_owned(),
            Self::Tcplife => return "tcplife (libbpf-tools), output to a file".to_owned(),
        };
        [&[name.to_owned()], subject.arguments.as_slice()]
            .concat()
            .join(" ")
    }

    /// The Debian package of a peer.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            Self::Tcpstates | Self::Tcplife => Some("libbpf-tools"),
            _ => None,
        }
    }

    /// The package without which this row cannot be measured.
    pub(super) fn missing_package(self) -> Option<&'static str> {
        self.package().filter(|_| self.peer().is_none())
    }

    /// Refuses a host that lacks what it takes besides.
    pub(super) fn require(self) -> Result<()> {
        // libbpf looks for it here, and below debugfs only where that is mounted.
        if self.peer().is_some() && !Path::new("/sys/kernel/tracing/events").exists() {
            bail!(
                "tracefs is not mounted: `mount -t tracefs tracefs /sys/kernel/tracing` mounts it"
            );
        }
        Ok(())
    }

    /// Starts the observer and waits until it observes; none where there is nothing to start.
    pub(super) fn start(self, subject: &Subject) -> Result<Option<Running>> {
        let output = tempfile::tempdir().context("could not make a directory for the output")?;
        if let Some(program) = self.peer() {
            return start_peer(&program, output).map(Some);
        }
        if self == Self::Nothing {
            return Ok(None);
        }
        let agent = subject.agent.as_deref().context("no agent was built")?;
        if self == Self::AgentEvents {
            return start_events(agent, output).map(Some);
        }
        let mut arguments = subject.arguments.clone();
        if self == Self::AgentStreamAll {
            arguments.extend(["--stream".to_owned(), "all".to_owned()]);
        }
        start_agent(agent, &arguments, output).map(Some)
    }

    fn peer(self) -> Option<PathBuf> {
        match self {
            Self::Tcpstates => program::path("tcpstates"),
            Self::Tcplife => program::path("tcplife"),
            _ => None,
        }
    }
}

fn start_agent(agent: &Path, arguments: &[String], output: TempDir) -> Result<Running> {
    let address = free_address()?;
    let mut command = Command::new(agent);
    command
        .args(["run", "--web.listen-address", &address.to_string()])
        .args(arguments);
    let log = output.path().join(OUTPUT);
    let started = Instant::now();
    let mut process = spawn_into(&mut command, &log)?;
    wait_until(&mut process, &log, || says(&log, "listening="))?;
    let start_up = started.elapsed();
    let metrics = Metrics::at(address);
    wait_until(&mut process, &log, || metrics.is_ready())?;
    rest();
    Ok(Running {
        process,
        metrics: Some(metrics),
        start_up,
        output,
        tells_account: false,
    })
}

fn start_events(agent: &Path, output: TempDir) -> Result<Running> {
    let mut command = Command::new(agent);
    // Nobody listens there, so it loads programs of its own.
    let nowhere = output.path().join("api.sock");
    command.args(["events", "--all", "--table", "--api-socket"]);
    let log = output.path().join(OUTPUT);
    let mut process = spawn_into(command.arg(nowhere), &log)?;
    let started = Instant::now();
    wait_until(&mut process, &log, || says(&log, "listening"))?;
    let start_up = started.elapsed();
    rest();
    Ok(Running {
        process,
        metrics: None,
        start_up,
        output,
        tells_account: true,
    })
}

fn start_peer(program: &Path, output: TempDir) -> Result<Running> {
    let log = output.path().join(OUTPUT);
    let mut process = spawn_into(&mut Command::new(program), &log)?;
    let descriptors = format!("/proc/{}/fd", process.id());
    let started = Instant::now();
    wait_until(&mut process, &log, || observes(Path::new(&descriptors)))?;
    let start_up = started.elapsed();
    rest();
    Ok(Running {
        process,
        metrics: None,
        start_up,
        output,
        tells_account: false,
    })
}

/// Whether a libbpf tool has its program attached (a link) and reads what it sends (the epoll
/// instance of its perf buffer, which is made last).
fn observes(descriptors: &Path) -> bool {
    let Ok(entries) = fs::read_dir(descriptors) else {
        return false;
    };
    let targets: Vec<PathBuf> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    ["anon_inode:bpf_link", "anon_inode:[eventpoll]"]
        .iter()
        .all(|kind| targets.iter().any(|target| target == Path::new(kind)))
}

fn spawn_into(command: &mut Command, log: &Path) -> Result<Guarded> {
    let file = File::create(log).context("could not make a file for the output")?;
    let errors = file
        .try_clone()
        .context("could not share the file for the output")?;
    Guarded::spawn(command.stdin(Stdio::null()).stdout(file).stderr(errors))
}

fn wait_until(process: &mut Guarded, log: &Path, ready: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + READY_DEADLINE;
    while !ready() {
        let ended = process.wait(Duration::from_millis(1))?;
        let said = || fs::read_to_string(log).unwrap_or_default();
        if let Some(status) = ended {
            bail!("the observer ended by itself ({status}): {}", said());
        }
        if Instant::now() > deadline {
            bail!(
                "the observer was not ready within {} s: {}",
                READY_DEADLINE.as_secs(),
                said()
            );
        }
    }
    Ok(())
}

fn says(log: &Path, words: &str) -> bool {
    fs::read_to_string(log).is_ok_and(|said| said.contains(words))
}

/// So that what starting stirred up is over before the load begins.
fn rest() {
    thread::sleep(Duration::from_millis(100));
}

/// An address nothing listens on: the kernel's choice, given back at once.
fn free_address() -> Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("could not find a free port")?;
    listener
        .local_addr()
        .context("the free port has no address")
}

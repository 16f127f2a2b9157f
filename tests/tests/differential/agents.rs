//! The agent, beside the workload: one for the whole host, whose events are heard, and one for
//! each namespace, whose counters and gauges are those of the workload alone.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use agent::api::event::{EventLine, Kind};
use agent_ebpf::{close::CloseCause, state::TcpState};
use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    daemon::{Daemon, RUN, binary},
    http::{Response, Scrape, exchange, whole},
    netns::Netns,
    states::States,
    trace::Trace,
    wait,
};

use super::step::{Key, Told};

/// Starts the agent where the workload's namespace is that of process 1, which `--netns host`
/// watches, and where its own sockets are in a namespace of their own.
const APART: &str = r#"unshare --net sh -c 'ip link set lo up && exec "$@"' sh "$@"; exit "$?""#;

/// An agent that answers at a socket.
#[derive(Debug)]
pub(super) struct Agent {
    _daemon: Daemon,
    socket: PathBuf,
}

impl Agent {
    /// Of one namespace alone.
    pub(super) fn of_namespace(directory: &Path, netns: &Netns) -> Result<Self> {
        let socket = directory.join(format!("{}.sock", netns.inode()));
        let daemon = netns.run(|| {
            let mut command = Command::new("unshare");
            command
                .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
                .args(["sh", "-c", APART, "sh"])
                .arg(binary()?)
                .args(RUN)
                .args(["--netns", "host", "--census-interval", "500ms"])
                .arg("--api-socket")
                .arg(&socket);
            Daemon::launch(&mut command)
        })?;
        Self::ready(daemon, socket)
    }

    /// Of the whole host.
    pub(super) fn of_host(directory: &Path) -> Result<Self> {
        let socket = directory.join("host.sock");
        let path = socket.to_str().context("a name without a text")?;
        let daemon = Daemon::start(&["--api-socket", path])?;
        Self::ready(daemon, socket)
    }

    fn ready(daemon: Daemon, socket: PathBuf) -> Result<Self> {
        let agent = Self {
            _daemon: daemon,
            socket,
        };
        wait::until("the agent", || {
            Ok(agent
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(agent)
    }

    fn get(&self, path: &str) -> Result<Response> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        exchange(stream, "agent", "GET", path)
    }

    /// What it has counted.
    pub(super) fn counted(&self) -> Result<Counted> {
        Counted::of(&Scrape::parse(&self.get("/metrics")?.body)?)
    }

    /// Sockets by state, in its namespace, of a census that begins after this call.
    pub(super) fn census(&self) -> Result<States> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let mut found = None;
        wait::until("a census", || {
            let snapshot: Value = serde_json::from_str(&self.get("/api/v1/snapshot")?.body)?;
            let time = |key: &str| snapshot[key].as_f64().context("no time");
            if time("completed")? - time("took")? <= since {
                return Ok(false);
            }
            let namespaces = snapshot["namespaces"].as_array().context("no namespaces")?;
            ensure!(namespaces.len() == 1, "{namespaces:?}");
            let states = &namespaces[0]["states"];
            let states = TcpState::ALL.map(|state| {
                let count = states[state.name()].as_u64().context("a state is missing");
                Ok((state.name(), count?))
            });
            let states = states.into_iter().collect::<Result<States>>()?;
            found = Some(states.into_iter().filter(|(_, count)| *count > 0).collect());
            Ok(true)
        })?;
        found.context("no census")
    }
}

/// An agent's counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// Transitions, without those to the same state, and closes.
    pub(super) trace: Trace,
    /// Transitions and revisions of causes that the kernel skipped the programs for
    /// (`bpf_prog_inc_misses_counter()`), on the whole host.
    pub(super) skipped: u64,
}

impl Counted {
    fn of(scrape: &Scrape) -> Result<Self> {
        let value = |series: String| Ok::<_, anyhow::Error>(whole(scrape.value(&series)?));
        let mut trace = Trace::NONE;
        for from in TcpState::ALL {
            // No transition to TIME_WAIT is ever made.
            let others = TcpState::ALL.into_iter();
            for to in others.filter(|to| *to != from && *to != TcpState::TimeWait) {
                let series = format!(
                    "connstate_state_transitions_total{{from=\"{}\",to=\"{}\"}}",
                    from.name(),
                    to.name()
                );
                trace.transitions[from as usize][to as usize] = value(series)?;
            }
        }
        for cause in CloseCause::ALL {
            let series = format!("connstate_closes_total{{cause=\"{}\"}}", cause.name());
            trace.closes[cause as usize] = value(series)?;
        }
        let skipped = |program: &str| {
            value(format!(
                "connstate_bpf_program_misses_total{{program=\"{program}\"}}"
            ))
        };
        Ok(Self {
            trace,
            skipped: skipped("inet_sock_set_state")? + skipped("tcp_send_reset")?,
        })
    }
}

/// `agent events`, listening to the host's.
#[derive(Debug)]
pub(super) struct Listening {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

/// What was heard, and what was not.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// In the order it was told.
    pub(super) told: Vec<Told>,
    /// How many it was too slow for, of the whole host's.
    pub(super) lost: u64,
}

impl Listening {
    /// Starts it.
    pub(super) fn start(directory: &Path, agent: &Agent) -> Result<Self> {
        let (output, errors) = (directory.join("events"), directory.join("events.errors"));
        let child = Command::new(binary()?)
            .args(["events", "--all", "--api-socket"])
            .arg(&agent.socket)
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?)
            .spawn()?;
        let listening = Self {
            child,
            output,
            errors,
        };
        wait::until("agent events", || {
            Ok(fs::read_to_string(&listening.errors)?.contains("listening"))
        })?;
        Ok(listening)
    }

    /// How much it told of the workload's ports so far.
    pub(super) fn count(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.output)?;
        Ok(text.lines().filter_map(key).count() as u64)
    }

    /// What it told of them.
    fn told(&self) -> Result<Vec<Told>> {
        let text = fs::read_to_string(&self.output)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let told = whole.lines().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(told.into_iter().flatten().collect())
    }

    /// Ends it.
    pub(super) fn end(mut self) -> Result<Heard> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGINT,
        )?;
        let status = self.child.wait()?;
        let words = fs::read_to_string(&self.errors)?;
        ensure!(
            status.success(),
            "agent events ended with {status}: {words}"
        );
        let lost = words.split_once(" events; ").and_then(|(_, rest)| {
            let (lost, _) = rest.split_once(" lost")?;
            lost.parse().ok()
        });
        Ok(Heard {
            told: self.told()?,
            lost: lost.with_context(|| format!("no last words: {words}"))?,
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whose event it is, without a look at the rest: most are of the host's other sockets.
fn key(line: &str) -> Option<Key> {
    let port = |end: &str| {
        let (_, after) = line.split_once(end)?;
        let (address, _) = after.split_once('"')?;
        address.rsplit_once(':')?.1.parse().ok()
    };
    Key::of(port("\"local\":\"")?, port("\"remote\":\"")?)
}

/// Sockets of others, and retransmissions, are nothing.
fn parse(line: &str) -> Result<Option<Told>> {
    let Some(key) = key(line) else {
        return Ok(None);
    };
    let event: EventLine = serde_json::from_str(line)?;
    ensure!(
        Key::of(event.local.port(), event.remote.port()) == Some(key),
        "another's: {line}"
    );
    if event.event != Kind::Transition {
        return Ok(None);
    }
    let step = event.from.zip(event.to).context("no states")?;
    Ok(Some(Told {
        key,
        netns: event.netns,
        step,
        cause: event.cause,
    }))
}

//! What a census costs beside `ss` and `node_exporter`, on the same sockets, by turns; and the agent
//! [`watched`] beside them.

mod watched;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::hold::{Holder, Sockets};
use super::machine;
use super::table::Spread;
use super::tool::{Subject, Tool};
use crate::child::Guarded;
use crate::setup::program;
pub(super) use watched::{Watched, watch};

/// How long the agent runs beside sockets in TIME_WAIT: shorter than these last after all before
/// it, and not long enough for a gauge to grow older.
const WHILE_THEY_WAIT: Duration = Duration::from_secs(30);

/// How long it runs beside established ones: thrice what a gauge's age may be, to see the age that
/// it has.
const LONG: Duration = Duration::from_secs(90);

/// Where node_exporter listens, in the namespace of the sockets: below their range of ports, since
/// one in TIME_WAIT cannot be listened on.
const EXPORTER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1000);

const DEADLINE: Duration = Duration::from_mins(2);

/// The sockets to be counted.
#[derive(Clone, Copy)]
pub(super) struct Mix {
    pub(super) name: &'static str,
    pub(super) sockets: Sockets,
    /// How long the agent is watched beside them.
    watched: Duration,
    /// The census's budget as a part of what `ss` and `node_exporter` take.
    pub(super) budget: Option<[f64; 2]>,
}

/// How long each took in one round, in milliseconds.
pub(super) struct Round {
    pub(super) census: f64,
    pub(super) ss: f64,
    pub(super) exporter: Option<f64>,
}

/// What a census costs, in milliseconds and as parts of what the peers take.
pub(super) struct Cost {
    pub(super) mix: Mix,
    census: Spread,
    pub(super) by_ss: Spread,
    pub(super) by_exporter: Option<Spread>,
}

/// What all of it came to.
pub(super) struct Censuses {
    pub(super) costs: Vec<Cost>,
    pub(super) watched: Vec<Watched>,
}

const SIXTH_AND_THIRD: [f64; 2] = [1.0 / 6.0, 1.0 / 3.0];
const HALVES: [f64; 2] = [0.5, 0.5];

const MIXES: [Mix; 5] = [
    Mix {
        name: "300 000 TIME_WAIT",
        sockets: Sockets::of(300_000, 0, 0),
        watched: WHILE_THEY_WAIT,
        budget: Some(SIXTH_AND_THIRD),
    },
    Mix {
        name: "200 000 established",
        sockets: Sockets::of(0, 200_000, 0),
        watched: LONG,
        budget: Some(HALVES),
    },
    Mix {
        name: "300 000 established",
        sockets: Sockets::of(0, 300_000, 0),
        watched: LONG,
        budget: None,
    },
    Mix {
        name: "300 000 TIME_WAIT, 100 namespaces",
        sockets: Sockets::of(300_000, 0, 100),
        watched: WHILE_THEY_WAIT,
        budget: None,
    },
    Mix {
        name: "300 000 established, 100 namespaces",
        sockets: Sockets::of(0, 300_000, 100),
        watched: LONG,
        budget: None,
    },
];

/// Measures the mixes of the design, and as many sockets again beside a hundred namespaces.
pub(super) fn run(rounds: u32, subject: &Subject) -> Result<Censuses> {
    let mut censuses = Censuses {
        costs: Vec::new(),
        watched: Vec::new(),
    };
    for mix in MIXES {
        eprintln!("{}: making the sockets", mix.name);
        let held = Holder::start(mix.sockets)?;
        if mix.budget.is_some() {
            censuses.costs.push(cost(mix, rounds, &held, subject)?);
        }
        let time = mix.watched;
        eprintln!("{}: the agent runs for {} s", mix.name, time.as_secs());
        censuses.watched.push(watch(mix.name, time, subject)?);
        held.finish()?;
    }
    Ok(censuses)
}

impl Censuses {
    /// Two tables.
    pub(super) fn render(&self) -> String {
        let mut text = String::from(
            "| sockets | census | ÷ `ss -tanH` | ÷ node_exporter tcpstat |\n|---|---|---|---|\n",
        );
        for cost in &self.costs {
            text += &cost.row();
        }
        text += &watched::head();
        for watched in &self.watched {
            text += &watched.row();
        }
        text
    }
}

impl Cost {
    fn row(&self) -> String {
        let by_exporter = self.by_exporter.as_ref();
        format!(
            "| {} | {} ms | {} | {} |\n",
            self.mix.name,
            self.census.show(0),
            self.by_ss.show(2),
            by_exporter.map_or("not installed".to_owned(), |spread| spread.show(2)),
        )
    }
}

/// The machine and the versions the tables hold for.
pub(super) fn describe(subject: &Subject) -> String {
    let packages = ["iproute2", "prometheus-node-exporter"];
    let versions = packages.map(machine::version);
    let machine = machine::describe(&[Tool::Agent], &[], subject);
    format!("{machine}; {}", versions.join("; "))
}

/// Does something in the namespace of the sockets, on a thread of its own.
fn inside<T: Send>(held: &Holder, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = held.namespace();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let file = File::open(&path).with_context(|| format!("could not open {path}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("could not enter the namespace of the sockets")?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

fn cost(mix: Mix, rounds: u32, held: &Holder, subject: &Subject) -> Result<Cost> {
    let measured = by_turns(mix.name, rounds, held, subject)?;
    let censuses = Spread::of(measured.iter().map(|round| round.census));
    let by_ss = Spread::of(measured.iter().map(|round| round.census / round.ss));
    let by_exporter = measured
        .iter()
        .filter_map(|round| Some(round.census / round.exporter?));
    Ok(Cost {
        mix,
        census: censuses.context("no round was measured")?,
        by_ss: by_ss.context("no round was measured")?,
        by_exporter: Spread::of(by_exporter),
    })
}

/// All three count the same sockets, by turns.
pub(super) fn by_turns(
    name: &str,
    rounds: u32,
    held: &Holder,
    subject: &Subject,
) -> Result<Vec<Round>> {
    let exporter = exporter(held)?;
    let client = client();
    let mut measured = Vec::new();
    for round in 1..=rounds {
        eprintln!("{name}: round {round} of {rounds}");
        let census = census(subject)?;
        let ss = inside(held, ss)?;
        let exporter = exporter
            .is_some()
            .then(|| inside(held, || scrape(&client)))
            .transpose()?;
        measured.push(Round {
            census,
            ss,
            exporter,
        });
    }
    Ok(measured)
}

/// Milliseconds of a census of the whole host, by the agent's own account.
pub(super) fn census(subject: &Subject) -> Result<f64> {
    let agent = subject.agent.as_deref().context("no agent was built")?;
    let mut command = Command::new(agent);
    command.args(["snapshot", "--json"]);
    let output = command.output().context("could not start the agent")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`agent snapshot` failed: {words}");
    }
    let snapshot: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("the snapshot is no JSON")?;
    let seconds = snapshot["took"].as_f64();
    Ok(seconds.context("the snapshot does not say what it took")? * 1e3)
}

/// Milliseconds of `ss` where the calling thread is.
fn ss() -> Result<f64> {
    timed(Command::new("ss").arg("-tanH"))
}

/// Milliseconds of a command whose output goes nowhere.
pub(super) fn timed(command: &mut Command) -> Result<f64> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    let status = command.stdout(Stdio::null()).status();
    let status = status.with_context(|| format!("could not start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// `node_exporter` in the namespace of the sockets, with nothing but its census; none where it is
/// not installed.
fn exporter(held: &Holder) -> Result<Option<Guarded>> {
    let Some(program) = program::path("prometheus-node-exporter") else {
        return Ok(None);
    };
    // Not from a thread of the namespace: the end of that would be the end of its child, too.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", held.namespace()))
        .arg(program)
        .args(["--collector.disable-defaults", "--collector.tcpstat"])
        .arg(format!("--web.listen-address={EXPORTER}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut exporter = Guarded::spawn(&mut command)?;
    let client = client();
    let deadline = Instant::now() + DEADLINE;
    while inside(held, || scrape(&client)).is_err() {
        if Instant::now() > deadline {
            bail!("node_exporter does not answer at {EXPORTER}");
        }
        if let Some(status) = exporter.wait(Duration::from_millis(100))? {
            bail!("node_exporter ended by itself ({status})");
        }
    }
    Ok(Some(exporter))
}

/// Every request by a connection of its own would be another socket to count.
fn client() -> ureq::Agent {
    let config = ureq::Agent::config_builder().proxy(None);
    config.timeout_global(Some(DEADLINE)).build().new_agent()
}

fn scrape(client: &ureq::Agent) -> Result<f64> {
    let started = Instant::now();
    let mut response = client.get(format!("http://{EXPORTER}/metrics")).call()?;
    let text = response.body_mut().read_to_string()?;
    if !text.contains("node_tcp_connection_states") {
        bail!("node_exporter tells no states");
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

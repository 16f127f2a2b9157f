//! What a census costs beside `ss` and `node_exporter`, on the same sockets, by turns.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::hold::{Holder, Sockets};
use super::table::Spread;
use super::tool::{Subject, Tool};
use super::{cpu, machine, prom};
use crate::child::Guarded;
use crate::setup::program;

/// How long the agent runs by itself: shorter than TIME_WAIT lasts after all before it.
const WATCHED: Duration = Duration::from_secs(30);

/// Where node_exporter listens, in the namespace of the sockets: below their range of ports, since
/// one in TIME_WAIT cannot be listened on.
const EXPORTER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1000);

const DEADLINE: Duration = Duration::from_mins(2);

/// The sockets to be counted.
#[derive(Clone, Copy)]
struct Mix {
    name: &'static str,
    sockets: Sockets,
    /// The census's budget as a part of what `ss` and `node_exporter` take.
    budget: Option<[f64; 2]>,
}

/// How long each took in one round, in milliseconds.
struct Round {
    census: f64,
    ss: f64,
    exporter: Option<f64>,
}

/// Measures both mixes of the design, and the first again beside a hundred namespaces.
pub(super) fn run(rounds: u32, subject: &Subject) -> Result<String> {
    let sixth = [1.0 / 6.0, 1.0 / 3.0];
    let sockets = |time_wait, established, namespaces| Sockets {
        time_wait,
        established,
        namespaces,
        here: false,
    };
    let mixes = [
        Mix {
            name: "300 000 TIME_WAIT",
            sockets: sockets(300_000, 0, 0),
            budget: Some(sixth),
        },
        Mix {
            name: "200 000 established",
            sockets: sockets(0, 200_000, 0),
            budget: Some([0.5, 0.5]),
        },
        Mix {
            name: "300 000 TIME_WAIT, 100 namespaces",
            sockets: sockets(300_000, 0, 100),
            budget: None,
        },
    ];
    let mut costs = String::from(
        "| sockets | census | ÷ `ss -tanH` | budget | ÷ node_exporter tcpstat | budget |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut watched = String::from(
        "| sockets | CPU of one core | resident memory | oldest gauge | oldest full pass |\n\
         |---|---|---|---|---|\n",
    );
    for mix in mixes {
        eprintln!("{}: making the sockets", mix.name);
        let held = Holder::start(mix.sockets)?;
        if let Some(budget) = mix.budget {
            costs += &cost(mix, budget, rounds, &held, subject)?;
        }
        eprintln!("{}: the agent runs for {} s", mix.name, WATCHED.as_secs());
        watched += &watch(mix, subject)?;
        held.finish()?;
    }
    Ok(format!(
        "{costs}\nThe agent at its default interval, for {} s:\n\n{watched}",
        WATCHED.as_secs()
    ))
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

fn cost(
    mix: Mix,
    budget: [f64; 2],
    rounds: u32,
    held: &Holder,
    subject: &Subject,
) -> Result<String> {
    let agent = subject.agent.as_deref().context("no agent was built")?;
    let exporter = exporter(held)?;
    let client = client();
    let mut measured = Vec::new();
    for round in 1..=rounds {
        eprintln!("{}: round {round} of {rounds}", mix.name);
        let census = census(agent)?;
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
    let censuses = Spread::of(measured.iter().map(|round| round.census));
    let by_ss = Spread::of(measured.iter().map(|round| round.census / round.ss));
    let by_exporter = measured
        .iter()
        .filter_map(|round| Some(round.census / round.exporter?));
    let text = |spread: Option<Spread>, digits: usize| match spread {
        Some(Spread { median, min, max }) => {
            format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
        }
        None => "not installed".to_owned(),
    };
    Ok(format!(
        "| {} | {} ms | {} | {:.2} | {} | {:.2} |\n",
        mix.name,
        text(censuses, 0),
        text(by_ss, 2),
        budget[0],
        text(Spread::of(by_exporter), 2),
        budget[1]
    ))
}

/// Milliseconds of a census of the whole host, by the agent's own account.
fn census(agent: &Path) -> Result<f64> {
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

fn ss() -> Result<f64> {
    let started = Instant::now();
    let status = Command::new("ss")
        .arg("-tanH")
        .stdout(Stdio::null())
        .status()
        .context("could not start ss")?;
    if !status.success() {
        bail!("`ss -tanH` failed ({status})");
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

/// Runs the agent beside the sockets, and asks it once a second how old its gauges are.
fn watch(mix: Mix, subject: &Subject) -> Result<String> {
    let running = Tool::Agent.start(subject)?.context("no agent was built")?;
    let metrics = running.metrics.as_ref().context("the agent serves none")?;
    let (started, worked) = (Instant::now(), cpu::of_process(running.process.id())?);
    let mut oldest = [0_f64; 2];
    let mut resident = 0_f64;
    while started.elapsed() < WATCHED {
        thread::sleep(Duration::from_secs(1));
        let text = metrics.text()?;
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs_f64();
        for (oldest, kind) in oldest.iter_mut().zip(["known", "full"]) {
            let family = "connstate_census_last_completion_timestamp_seconds";
            let completed = prom::sum(&text, family, &[&format!("kind=\"{kind}\"")]);
            if completed > 0.0 {
                *oldest = oldest.max(now - completed);
            }
        }
        resident = resident.max(prom::sum(&text, "process_resident_memory_bytes", &[]));
    }
    let used = cpu::of_process(running.process.id())? - worked;
    let share = used / started.elapsed().as_secs_f64() * 100.0;
    running.process.stop()?;
    Ok(format!(
        "| {} | {share:.2} % | {:.1} MiB | {:.1} s | {:.1} s |\n",
        mix.name,
        resident / 1_048_576.0,
        oldest[0],
        oldest[1]
    ))
}

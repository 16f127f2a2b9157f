//! A long run at a steady rate: what grows, and whether the books balance in the end.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::cpu;
use super::load::Load;
use super::table::Audit;
use super::tool::{Subject, Tool};

/// Connections a second.
const RATE: u32 = 500;

/// How often /metrics is asked for, as Prometheus does.
const SCRAPE: Duration = Duration::from_secs(15);

/// From here on nothing should grow.
const WARM: Duration = Duration::from_mins(1);

/// What a process holds.
#[derive(Clone, Copy, Default)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
}

/// One of the observers.
struct Line {
    name: String,
    warm: Held,
    end: Held,
    /// Of one core, in percent.
    share: f64,
}

/// What came of it.
pub(super) struct Soak {
    minutes: u64,
    /// When it is looked at for the first time.
    warm: Duration,
    connections: u32,
    lines: Vec<Line>,
    pub(super) audit: Audit,
}

/// Runs the load for so long beside the agent and tcpstates.
pub(super) fn run(time: Duration, subject: &Subject) -> Result<Soak> {
    let seconds = u32::try_from(time.as_secs()).context("too long")?;
    let load = Load::Churn {
        connections: RATE * seconds,
        per_second: Some(RATE),
    };
    let mut running = Vec::new();
    for tool in [Tool::Agent, Tool::Tcpstates] {
        if tool.missing_package().is_none() {
            let observer = tool.start(subject)?.context("no agent was built")?;
            running.push((tool.label(subject), observer));
        }
    }
    let (_, agent) = running.first().context("no agent was built")?;
    let metrics = agent.metrics.as_ref().context("the agent serves none")?;
    let before = metrics.settled(|_| true)?;
    let used = |pid| cpu::of_process(pid);
    let pids: Vec<u32> = running.iter().map(|(_, tool)| tool.process.id()).collect();
    let idle = pids
        .iter()
        .map(|pid| used(*pid))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let warm = WARM.min(time / 2);
    let mut then = vec![Held::default(); pids.len()];
    let outcome = thread::scope(|scope| {
        let loading = scope.spawn(|| load.run());
        let mut is_warm = false;
        while !loading.is_finished() {
            thread::sleep(SCRAPE.min(time / 8));
            metrics.text()?;
            if !is_warm && started.elapsed() >= warm {
                is_warm = true;
                then = pids.iter().map(|pid| held(*pid)).collect::<Result<_>>()?;
            }
        }
        loading.join().map_err(|_| anyhow!("a thread panicked"))?
    })?;
    let percent = 100.0 / started.elapsed().as_secs_f64();
    let mut lines = Vec::new();
    for (((name, _), pid), (warm, idle)) in running.iter().zip(&pids).zip(then.iter().zip(idle)) {
        lines.push(Line {
            name: name.clone(),
            warm: *warm,
            end: held(*pid)?,
            share: (used(*pid)? - idle) * percent,
        });
    }
    let emitted = load.transitions().filter(|_| outcome.unfinished == 0);
    let complete = |account: super::metrics::Account| {
        let seen = account.since(before);
        emitted.is_none_or(|emitted| seen.counted + seen.misses >= emitted)
    };
    let account = metrics.settled(complete)?.since(before);
    for (_, tool) in running {
        tool.stop()?;
    }
    Ok(Soak {
        minutes: time.as_secs() / 60,
        warm,
        connections: RATE * seconds,
        lines,
        audit: Audit { emitted, account },
    })
}

impl Soak {
    /// What it was, and a table.
    pub(super) fn render(&self) -> String {
        let mut lines = vec![
            format!(
                "{} minutes at {RATE} connections a second, {} in all, /metrics asked for every \
                 {} s.\n",
                self.minutes,
                self.connections,
                SCRAPE.as_secs()
            ),
            format!(
                "| tool | CPU of one core | resident after {} s | at the end | descriptors then | \
                 at the end |",
                self.warm.as_secs()
            ),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(self.lines.iter().map(Line::row));
        let account = &self.audit.account;
        let emitted = self.audit.emitted.map(|emitted| emitted.to_string());
        lines.push(format!(
            "\nTransitions: {} emitted, {} counted, {} misses, {} lost.\n",
            emitted.as_deref().unwrap_or("not known how many"),
            account.counted,
            account.misses,
            account.lost
        ));
        lines.join("\n")
    }
}

impl Line {
    fn row(&self) -> String {
        format!(
            "| {} | {:.2} % | {} KiB | {} KiB | {} | {} |",
            self.name,
            self.share,
            self.warm.resident_kib,
            self.end.resident_kib,
            self.warm.descriptors,
            self.end.descriptors
        )
    }
}

fn held(pid: u32) -> Result<Held> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    let path = format!("/proc/{pid}/fd");
    let descriptors = fs::read_dir(&path).with_context(|| format!("could not read {path}"))?;
    Ok(Held {
        resident_kib: size.parse()?,
        descriptors: descriptors.count(),
    })
}

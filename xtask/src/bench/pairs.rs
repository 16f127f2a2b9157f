//! Pairs of runs, without and with an observer.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cpu;
use super::load::{Load, Outcome};
use super::metrics::{Account, Metrics};
use super::table::{Audit, Own, Row, Verdict};
use super::tool::{Subject, Tool};

/// The longest an observer may go on digesting a run that has ended.
const DIGEST_DEADLINE: Duration = Duration::from_secs(5);

/// A run under an observer, and what the observer itself did meanwhile.
pub(super) struct Observed {
    pub(super) outcome: Outcome,
    pub(super) own: Option<Own>,
    audit: Option<Audit>,
}

/// Measures every tool, one after the other; a tool that is not installed has a row that says so.
pub(super) fn run(load: &Load, tools: &[Tool], pairs: u32, subject: &Subject) -> Result<Vec<Row>> {
    // The first run pays for cold caches, and counts for nothing.
    load.run()?;
    let mut rows = Vec::new();
    for tool in tools {
        let label = tool.label(subject);
        let verdict = match tool.missing_package() {
            Some(package) => Verdict::Missing { package },
            None => measure(load, *tool, pairs, subject)
                .with_context(|| format!("could not measure {label}"))?,
        };
        rows.push(Row {
            tool: label,
            verdict,
        });
    }
    Ok(rows)
}

fn measure(load: &Load, tool: Tool, pairs: u32, subject: &Subject) -> Result<Verdict> {
    let mut without = Vec::new();
    let mut with = Vec::new();
    let mut owns = Vec::new();
    let mut audits = Vec::new();
    for pair in 0..pairs {
        // Every other pair is the other way round, so that a slow drift of the machine cancels.
        let (before, observed) = if pair % 2 == 0 {
            let before = load.run()?;
            (before, observe(load, tool, subject)?)
        } else {
            let observed = observe(load, tool, subject)?;
            (load.run()?, observed)
        };
        let ratio = observed.outcome.per_second() / before.per_second();
        eprintln!(
            "{}: pair {} of {pairs}: {:.0}/s without, ratio {ratio:.3}, {} sockets unfinished",
            tool.label(subject),
            pair + 1,
            before.per_second(),
            before.unfinished + observed.outcome.unfinished
        );
        without.push(before);
        with.push(observed.outcome);
        owns.extend(observed.own);
        audits.extend(observed.audit);
    }
    Ok(Verdict::Measured {
        without,
        with,
        owns,
        audits,
    })
}

/// Runs a load under a tool.
pub(super) fn observe(load: &Load, tool: Tool, subject: &Subject) -> Result<Observed> {
    let Some(running) = tool.start(subject)? else {
        return Ok(Observed {
            outcome: load.run()?,
            own: None,
            audit: None,
        });
    };
    let pid = running.process.id();
    let metrics = running.metrics.as_ref();
    let before = metrics
        .map(|metrics| metrics.settled(|_| true))
        .transpose()?;
    let idle = cpu::of_process(pid)?;
    let started = Instant::now();
    let outcome = load.run()?;
    let seconds = started.elapsed().as_secs_f64();
    let during = cpu::of_process(pid)? - idle;
    // Some defer the work: what a run costs is known only when they have digested it.
    let in_all = digested(pid)? - idle;
    // A socket that is not closed yet owes transitions, and how many is not known.
    let emitted = load.transitions().filter(|_| outcome.unfinished == 0);
    let audit = metrics
        .zip(before)
        .map(|(metrics, before)| audit(emitted, metrics, before));
    let audit = audit.transpose()?;
    let told = running.stop()?.map(|account| Audit { emitted, account });
    Ok(Observed {
        outcome,
        own: Some(Own {
            seconds,
            during,
            in_all,
        }),
        audit: audit.or(told),
    })
}

/// The account of a run that has ended, since the account before it.
fn audit(emitted: Option<u64>, metrics: &Metrics, before: Account) -> Result<Audit> {
    let complete = |account: Account| {
        let account = account.since(before);
        emitted.is_none_or(|emitted| account.counted + account.misses >= emitted)
    };
    Ok(Audit {
        emitted,
        account: metrics.settled(complete)?.since(before),
    })
}

/// A process's CPU time, once it no longer grows.
fn digested(pid: u32) -> Result<f64> {
    let deadline = Instant::now() + DIGEST_DEADLINE;
    let mut seconds = cpu::of_process(pid)?;
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = cpu::of_process(pid)?;
        // A tenth of the time between two looks is an idle process's own business.
        if now - seconds < 0.011 || Instant::now() > deadline {
            return Ok(now);
        }
        seconds = now;
    }
}

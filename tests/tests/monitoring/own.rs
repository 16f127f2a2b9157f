//! What every panel of the agent's own board must show: what the agent's own page and the kernel's
//! files on its process tell at the same time.

use std::{fs, ops::RangeInclusive};

use agent_ebpf::{maps::SOCKET_CAPACITY, programs::PROGRAMS};
use anyhow::{Context as _, Result, ensure};
use tests::http::number;

use super::{
    lab::{DRAINED, HALF_CLOSED, LAST_ACKS, NOT_ACCEPTED, PORTS_USED, PORTS_WAITING, UNACKED},
    meter::Meter,
    panels::{Expected, NEVER},
    stack::{AGENT, Stack},
    want::{Want, exactly, is, of},
};

pub(crate) const OWN: &str = "connstate-agent";

/// Full sockets of the lab in states that the kernel programs remember: what does not finish
/// closing, both ends of it, and both ends of the connections that hold ports.
const REMEMBERED: usize =
    2 * (DRAINED + NOT_ACCEPTED + UNACKED + LAST_ACKS) + 2 * (PORTS_USED - PORTS_WAITING);
/// Every one of those in FIN_WAIT2 is the other end of one of them.
const _: () = assert!(HALF_CLOSED <= REMEMBERED / 2);

/// What a rate may be off from one over half a minute that began and ended a second earlier or
/// later: by so much, and by a part.
fn near(rate: f64, by: f64) -> RangeInclusive<f64> {
    rate * 0.7 - by..=rate * 1.4 + by
}

/// Within both.
fn both(one: RangeInclusive<f64>, other: RangeInclusive<f64>) -> RangeInclusive<f64> {
    one.start().max(*other.start())..=one.end().min(*other.end())
}

/// All panels; what `meter` tells is of now.
pub(crate) fn own(stack: &Stack, meter: &Meter) -> Result<Vec<Expected>> {
    let mut all = health(meter)?;
    all.extend(losses(meter)?);
    all.extend(census(meter)?);
    all.extend(programs(meter)?);
    all.extend(process(stack, meter)?);
    Ok(all)
}

fn by_host(value: RangeInclusive<f64>) -> Vec<Want> {
    exactly(vec![of(&[("instance", AGENT)], value)])
}

/// As old as the agent says, but for a late scrape, and for a census meanwhile.
fn age(meter: &Meter, kind: &str) -> Result<RangeInclusive<f64>> {
    let completed =
        format!("connstate_census_last_completion_timestamp_seconds{{kind=\"{kind}\"}}");
    let age = meter.age(&completed)?;
    Ok(1e-3..=age + 5.0)
}

fn health(meter: &Meter) -> Result<Vec<Expected>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = [
        ("instance", AGENT),
        ("version", env!("CARGO_PKG_VERSION")),
        ("kernel", release.trim()),
    ];
    let attached = PROGRAMS.iter();
    let attached = attached.map(|program| of(&[("instance", AGENT), ("program", program.name)], 1));
    // The zeros among these are of agents that nothing happens to; others do not show them.
    Ok(vec![
        (OWN, "Answering", vec![is(1)]),
        (OWN, "Programs not attached", vec![is(NEVER)]),
        (OWN, "Records lost", vec![is(NEVER)]),
        (OWN, "Namespaces unreached", vec![is(NEVER)]),
        (OWN, "Sockets not told apart", vec![is(NEVER)]),
        (OWN, "Oldest census", vec![is(age(meter, "known")?)]),
        (OWN, "Versions", vec![exactly(vec![of(&version, 1)])]),
        (OWN, "Programs", vec![exactly(attached.collect())]),
    ])
}

/// The values of the only label of a metric on a page.
fn values<'a>(meter: &'a Meter, metric: &str, label: &str) -> Result<Vec<&'a str>> {
    let prefix = format!("{metric}{{{label}=\"");
    let series = meter.page()?.0.keys();
    let values = series.filter_map(|series| series.strip_prefix(&prefix)?.strip_suffix("\"}"));
    let values: Vec<_> = values.collect();
    ensure!(!values.is_empty(), "{metric} has no {label}");
    Ok(values)
}

/// Each series of a counter with one label, at its rate on the page.
fn each(meter: &Meter, counter: &str, label: &'static str, by: f64) -> Result<Vec<Want>> {
    let values = values(meter, counter, label)?.into_iter();
    let wants = values.map(|value| {
        let rate = meter.rate(&format!("{counter}{{{label}=\"{value}\"}}"))?;
        Ok(of(&[(label, value)], near(rate, by)))
    });
    Ok(exactly(wants.collect::<Result<_>>()?))
}

fn losses(meter: &Meter) -> Result<Vec<Expected>> {
    let records = near(meter.rate("connstate_events_total")?, 0.1);
    let lost = values(meter, "connstate_events_lost_total", "reason")?;
    let lost = lost
        .into_iter()
        .map(|reason| of(&[("reason", reason)], NEVER));
    // One in half a minute, more or less.
    let one = 1.0 / 30.0;
    let mut refused = each(meter, "connstate_http_refused_total", "reason", one)?;
    // Given up after ten seconds, and begun anew: two or three times in half a minute, or four.
    refused.push(of(&[("reason", "slow_request")], 0.06..=0.14));
    Ok(vec![
        // By default those of sockets that lingered, and retransmissions: one a second.
        (OWN, "Records", vec![by_host(both(records, 0.7..=3.0))]),
        (OWN, "Losses", vec![exactly(lost.collect())]),
        (
            OWN,
            "Skipped runs",
            vec![each(
                meter,
                "connstate_bpf_program_misses_total",
                "program",
                2.0 * one,
            )?],
        ),
        (OWN, "Refused by HTTP", vec![refused]),
    ])
}

fn census(meter: &Meter) -> Result<Vec<Expected>> {
    let kinds = ["full", "known"].map(|kind| {
        let labels = [("instance", AGENT), ("kind", kind)];
        Ok::<_, anyhow::Error>(of(&labels, age(meter, kind)?))
    });
    let interval = meter.page()?.value("connstate_census_interval_seconds")?;
    let interval = interval.max(1.0) * 0.8..=interval * 1.25;
    let kinds = kinds.into_iter().collect::<Result<_>>()?;
    let page = meter.page()?;
    let capacity = page.value("connstate_socket_state_capacity")?;
    ensure!(
        capacity.to_bits() == f64::from(SOCKET_CAPACITY).to_bits(),
        "room for {capacity}"
    );
    // They remember some whose end nobody told them of, until a census finds that out.
    let full = page.sum("connstate_sockets", "") - page.sum("connstate_sockets", "\"time_wait\"");
    let entries = number(REMEMBERED as u64)..=full + 20.0;
    Ok(vec![
        (
            OWN,
            "99 of 100 take",
            vec![vec![of(&[("kind", "full")], durations(meter)?)]],
        ),
        (OWN, "Age of the gauges", vec![exactly(kinds)]),
        // As it was told, or longer, where that would cost too much.
        (OWN, "From one to the next", vec![by_host(interval)]),
        (
            OWN,
            "Room for sockets",
            vec![by_host(
                entries.start() / capacity..=entries.end() / capacity,
            )],
        ),
    ])
}

/// Between the bounds of the buckets that the full censuses fell into.
fn durations(meter: &Meter) -> Result<RangeInclusive<f64>> {
    const PREFIX: &str = "connstate_census_duration_seconds_bucket{kind=\"full\",le=\"";
    let mut buckets = Vec::new();
    for (series, count) in &meter.page()?.0 {
        let le = series
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix("\"}"));
        if let Some(le) = le {
            buckets.push((le.parse::<f64>()?, *count));
        }
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (_, all) = *buckets.last().context("no buckets")?;
    let below = buckets.iter().rev().find(|(_, count)| *count < 1.0);
    let up_to = buckets.iter().find(|(_, count)| *count >= all);
    let (up_to, _) = up_to.context("no bucket of all")?;
    Ok(below.map_or(0.0, |(below, _)| *below)..=*up_to)
}

fn programs(meter: &Meter) -> Result<Vec<Expected>> {
    const SECONDS: &str = "connstate_bpf_program_run_seconds_total";
    const RUNS: &str = "connstate_bpf_program_runs_total";
    let mut takes = Vec::new();
    for program in values(meter, RUNS, "program")? {
        let [runs, seconds] = [RUNS, SECONDS]
            .map(|counter| meter.rate(&format!("{counter}{{program=\"{program}\"}}")));
        let (runs, seconds) = (runs?, seconds?);
        // At first there is only one look, and it is not known.
        if runs > 0.0 || runs.is_nan() {
            takes.push(of(&[("program", program)], near(seconds / runs, 1e-7)));
        }
    }
    Ok(vec![
        (
            OWN,
            "Kernel programs",
            vec![each(meter, SECONDS, "program", 2e-5)?],
        ),
        (OWN, "A run takes", vec![exactly(takes)]),
    ])
}

fn process(stack: &Stack, meter: &Meter) -> Result<Vec<Expected>> {
    let pid = stack.agent.pid();
    let file =
        |name: &str| Ok::<_, anyhow::Error>(fs::read_to_string(format!("/proc/{pid}/{name}"))?);
    let (status, limits) = (file("status")?, file("limits")?);
    let resident = number(field(&status, "VmRSS:")? * 1024);
    let virtual_memory = number(field(&status, "VmSize:")? * 1024);
    let threads = number(field(&status, "Threads:")?);
    let descriptors = number(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64);
    let most = number(field(&limits, "Max open files")?);
    let processor = meter.processor()?;
    let running_for = stack.started.elapsed().as_secs_f64();
    Ok(vec![
        (OWN, "Processor", vec![by_host(near(processor, 0.01))]),
        (
            OWN,
            "Memory",
            vec![
                by_host(resident * 0.9..=resident * 1.1),
                by_host(virtual_memory * 0.98..=virtual_memory * 1.02),
            ],
        ),
        (
            OWN,
            "File descriptors",
            vec![
                // Connections come and go.
                by_host(descriptors - 3.0..=descriptors + 3.0),
                by_host(most..=most),
                by_host(threads - 1.0..=threads + 1.0),
            ],
        ),
        // The kernel tells when it was started from when the host was, to a second or so.
        (
            OWN,
            "Running for",
            vec![by_host(running_for - 2.0..=running_for + 2.0)],
        ),
    ])
}

/// The first number after this text at the beginning of a line.
fn field(text: &str, key: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|line| line.split_whitespace().next());
    Ok(value.with_context(|| format!("no {key}"))?.parse()?)
}

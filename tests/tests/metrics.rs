//! What a scrape of the running agent holds, and how it changes.

use std::time::{Duration, Instant};

use agent::metrics::{Kind, families};
use agent_ebpf::programs::PROGRAMS;
use anyhow::{Result, ensure};
use tests::{
    daemon::Daemon,
    load::churn,
    netns::Netns,
    place::{Family, Place},
    promtool,
};

#[test]
fn promtool_finds_nothing_to_say() -> Result<()> {
    let daemon = Daemon::start(&[])?;
    promtool::finds_nothing(&daemon.get("/metrics")?.body)
}

#[test]
fn every_family_is_there_with_its_help_and_type() -> Result<()> {
    // Without a socket there is no workload to tell of, nor a port in use.
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let _held = netns.run(|| Place::new(Family::V4).connections(1))?;
    let daemon = Daemon::start(&[])?;
    let text = daemon.get("/metrics")?.body;
    // Of the declared families, only these depend on an option.
    let optional = [
        "connstate_bpf_program_runs_total",
        "connstate_bpf_program_run_seconds_total",
    ];
    for family in families() {
        let help = format!("# HELP {} {}\n", family.name, family.help);
        let kind = format!("# TYPE {} {}\n", family.name, family.kind.name());
        let expected = usize::from(!optional.contains(&family.name));
        assert_eq!(text.matches(&help).count(), expected, "{help}");
        assert_eq!(text.matches(&kind).count(), expected, "{kind}");
    }
    Ok(())
}

#[test]
fn every_label_value_is_there_from_the_start() -> Result<()> {
    let daemon = Daemon::start(&[])?;
    let scrape = daemon.scrape()?;
    for (name, series) in [
        // Eleven states to eleven, neither to themselves nor to time_wait.
        ("connstate_state_transitions_total", 100),
        ("connstate_closes_total", 17),
        // Eleven states, four kinds of packet, four triggers.
        ("connstate_retransmits_total", 176),
        ("connstate_state_duration_seconds_count", 7),
        ("connstate_state_duration_seconds_sum", 7),
        ("connstate_events_total", 1),
        ("connstate_events_lost_total", 4),
        ("connstate_sockets", 11),
        ("connstate_orphan_sockets", 11),
        ("connstate_orphans", 1),
        ("connstate_orphans_limit", 1),
        ("connstate_orphan_kills_total", 1),
        ("connstate_fin_wait1_oldest_seconds", 1),
        ("connstate_census_duration_seconds_count", 2),
        ("connstate_census_last_completion_timestamp_seconds", 2),
        ("connstate_census_unreached_namespaces", 1),
        ("connstate_census_untold_sockets", 1),
        ("connstate_socket_state_entries", 1),
        ("connstate_socket_state_capacity", 1),
        ("connstate_bpf_program_attached", PROGRAMS.len()),
        ("connstate_bpf_program_misses_total", PROGRAMS.len()),
        ("connstate_build_info", 1),
    ] {
        assert_eq!(scrape.series(name), series, "{name}");
    }
    // No kernel sends a SYN in FIN_WAIT2.
    let never = "connstate_retransmits_total{packet=\"syn\",state=\"fin_wait2\",trigger=\"rto\"}";
    let swapped = "connstate_retransmits_total{state=\"fin_wait2\",packet=\"syn\",trigger=\"rto\"}";
    let found = scrape.value(never).or_else(|_| scrape.value(swapped))?;
    assert!(found.abs() < f64::EPSILON);
    Ok(())
}

#[test]
fn counters_never_fall_under_load() -> Result<()> {
    let mut daemon = Daemon::start(&[])?;
    let netns = Netns::new()?;
    let counters: Vec<_> = families()
        .filter(|family| family.kind != Kind::Gauge)
        .map(|family| family.name)
        .collect();
    let mut before = daemon.scrape()?;
    let first = before.clone();
    let started = Instant::now();
    let mut scrapes = 0;
    // Longer than eight refreshes of a quarter second: fresh views and repeated ones.
    while started.elapsed() < Duration::from_secs(2) {
        churn(&netns, 200)?;
        let now = daemon.scrape()?;
        for (series, old) in &before.0 {
            if counters.iter().any(|name| series.starts_with(name)) {
                let new = now.value(series)?;
                ensure!(new >= *old, "{series} fell from {old} to {new}");
            }
        }
        before = now;
        scrapes += 1;
    }
    let opened = "connstate_state_transitions_total{from=\"syn_sent\",to=\"established\"}";
    let first = first.value(opened)?;
    let rise = daemon.wait("connections to be counted", |daemon| {
        let rise = daemon.scrape().ok()?.value(opened).ok()? - first;
        (rise > 0.0).then_some(rise)
    })?;
    eprintln!("{scrapes} scrapes, {rise} connections opened");
    Ok(())
}

//! What the cost grows with: sockets, network namespaces, connections a second.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::census::{self, Watched};
use super::hold::{Holder, Sockets};
use super::load::Load;
use super::pairs;
use super::study::{Column, Row, Study};
use super::table::Spread;
use super::tool::{Subject, Tool};

/// Rounds of each point that is timed.
const ROUNDS: u32 = 5;

/// How long the agent is watched at each point: some censuses.
const WATCHED: Duration = Duration::from_secs(20);

const SOCKETS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const NAMESPACES: [u32; 4] = [1, 10, 100, 500];
const RATES: [u32; 6] = [1_000, 2_000, 5_000, 10_000, 20_000, 40_000];

/// How long each rate lasts.
const SECONDS: u32 = 5;

/// A load that did not come this near its rate was held up, and is no point of a curve.
const KEPT: f64 = 0.95;

/// Established sockets, in one namespace.
pub(super) fn with_sockets(subject: &Subject) -> Result<Study> {
    let columns = [
        Column::plotted("census", "ms"),
        Column::plotted("ss -tanH", "ms"),
        Column::plotted("node_exporter tcpstat", "ms"),
        Column::told("agent, of one core", "%"),
        Column::told("resident", "MiB"),
        Column::told("without room", "sockets"),
    ];
    let mut rows = Vec::new();
    for count in SOCKETS {
        let name = format!("{count} established");
        eprintln!("{name}: making the sockets");
        let held = Holder::start(Sockets::of(0, count, 0))?;
        let rounds = census::by_turns(&name, ROUNDS, &held, subject)?;
        let watched = census::watch(&name, WATCHED, subject)?;
        held.finish()?;
        let median = |of: fn(&census::Round) -> Option<f64>| {
            Some(Spread::of(rounds.iter().filter_map(of))?.median)
        };
        let mut values = vec![
            median(|round| Some(round.census)),
            median(|round| Some(round.ss)),
            median(|round| round.exporter),
        ];
        values.extend(of_agent(&watched));
        rows.push(Row {
            x: f64::from(count),
            values,
        });
    }
    Ok(Study {
        name: "sockets",
        x: "established sockets",
        columns: columns.to_vec(),
        rows,
    })
}

/// Namespaces with three sockets each.
pub(super) fn with_namespaces(subject: &Subject) -> Result<Study> {
    let columns = [
        Column::plotted("census", "ms"),
        Column::plotted("ip -all netns exec ss -tanH", "ms"),
        Column::told("agent, of one core", "%"),
        Column::told("resident", "MiB"),
        Column::told("without room", "sockets"),
    ];
    let mut rows = Vec::new();
    for count in NAMESPACES {
        let name = format!("{count} namespaces");
        eprintln!("{name}: making them");
        let held = Holder::start(Sockets::of(0, 0, count))?;
        let mut own = Vec::new();
        let mut by_ss = Vec::new();
        for _ in 0..ROUNDS {
            own.push(census::census(subject)?);
            let mut all = Command::new("ip");
            all.args(["-all", "netns", "exec", "ss", "-tanH"]);
            by_ss.push(census::timed(&mut all)?);
        }
        let watched = census::watch(&name, WATCHED, subject)?;
        held.finish()?;
        let mut values: Vec<_> = [own, by_ss]
            .into_iter()
            .map(|times| Some(Spread::of(times)?.median))
            .collect();
        values.extend(of_agent(&watched));
        rows.push(Row {
            x: f64::from(count),
            values,
        });
    }
    Ok(Study {
        name: "namespaces",
        x: "network namespaces",
        columns: columns.to_vec(),
        rows,
    })
}

fn of_agent(watched: &Watched) -> [Option<f64>; 3] {
    [
        Some(watched.share),
        Some(watched.resident_mib),
        Some(watched.without_room),
    ]
}

/// Connections a second: the observers' own CPU time.
pub(super) fn with_rate(subject: &Subject) -> Result<Study> {
    let tools = [
        (Tool::Agent, "connstate"),
        (Tool::AgentStreamAll, "connstate --stream all"),
        (Tool::Tcpstates, "tcpstates"),
        (Tool::Tcplife, "tcplife"),
    ];
    let mut rows = Vec::new();
    for rate in RATES {
        let load = Load::Churn {
            connections: rate * SECONDS,
            per_second: Some(rate),
        };
        let mut values = Vec::new();
        for (tool, name) in tools {
            if tool.missing_package().is_some() {
                values.push(None);
                continue;
            }
            let observed = pairs::observe(&load, tool, subject)?;
            let own = observed.own.context("nothing observed")?;
            let kept = observed.outcome.per_second() / f64::from(rate);
            let share = 100.0 * own.in_all / own.seconds;
            eprintln!("{name} at {rate}/s: {share:.2} % of a core, {kept:.2} of the rate kept");
            values.push(Some(share).filter(|_| kept >= KEPT));
        }
        rows.push(Row {
            x: f64::from(rate),
            values,
        });
    }
    let columns = tools.map(|(_, name)| Column::plotted(name, "% of a core"));
    Ok(Study {
        name: "rate",
        x: "connections a second",
        columns: columns.to_vec(),
        rows,
    })
}

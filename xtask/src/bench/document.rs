//! `cargo xtask bench all`: every measurement in one run, and docs/benchmarks.md from it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::budget::{self, Budget};
use super::load::Load;
use super::scaling;
use super::study::Study;
use super::table::{self, Row};
use super::tool::{Subject, Tool};
use super::{census, cost, idle, machine, pairs, profile, soak};
use crate::cargo;

/// How much of each.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Extent {
    /// Pairs of runs of each tool, and rounds of each census
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Minutes of the long run
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    soak_minutes: u64,
}

/// The loads, as the design has them.
pub(super) const LOADS: [Load; 2] = [
    Load::Churn {
        connections: 60_000,
        per_second: None,
    },
    Load::Server { seconds: 3 },
];

/// A part of the document.
struct Section {
    title: &'static str,
    /// What is measured, and what shows it by itself.
    about: &'static str,
    text: String,
    plots: Vec<(String, String)>,
    budgets: Vec<Budget>,
}

/// Measures everything, and writes the document.
pub(super) fn write(extent: Extent, tools: &[Tool], subject: &Subject) -> Result<()> {
    let started = Instant::now();
    let sections = sections(extent, tools, subject)?;
    let minutes = started.elapsed().as_secs().div_ceil(60);
    let docs = cargo::root().join("docs");
    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("could not make {}", plots.display()))?;
    for (name, svg) in sections.iter().flat_map(|section| &section.plots) {
        let path = plots.join(name);
        fs::write(&path, svg).with_context(|| format!("could not write {}", path.display()))?;
    }
    let machine = format!(
        "{}; {}; {}",
        machine::describe(tools, &LOADS, subject),
        machine::version("iproute2"),
        machine::version("prometheus-node-exporter")
    );
    let path = docs.join("benchmarks.md");
    let text = render(&sections, &machine, minutes);
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    println!("{} was written after {minutes} minutes", path.display());
    Ok(())
}

fn sections(extent: Extent, tools: &[Tool], subject: &Subject) -> Result<Vec<Section>> {
    let [churn, server] = &LOADS;
    let agent = Tool::Agent.label(subject);
    let of_agent = |rows: &[Row], budgets: fn(Option<&Row>) -> Vec<Budget>| {
        budgets(rows.iter().find(|row| row.tool == agent))
    };
    let mut sections = Vec::new();

    let idle = idle::run(subject)?;
    sections.push(Section {
        title: "Start and rest",
        about: "The agent alone.",
        text: idle.render(),
        plots: Vec::new(),
        budgets: budget::of_idle(&idle),
    });
    let rows = pairs::run(churn, tools, extent.pairs, subject)?;
    sections.push(Section {
        title: "Churn",
        about: "Connections opened, accepted and closed on loopback, as fast as two threads can: \
                ten state transitions each. By turns without and with each tool; `cargo xtask \
                bench churn`.",
        text: table::render(&rows, churn.unit()),
        plots: Vec::new(),
        budgets: of_agent(&rows, budget::of_churn),
    });
    let rows = pairs::run(server, tools, extent.pairs, subject)?;
    sections.push(Section {
        title: "A real server",
        about: "nginx with one worker under wrk with 64 connections, a new one for each request; \
                `cargo xtask bench server`.",
        text: table::render(&rows, server.unit()),
        plots: Vec::new(),
        budgets: of_agent(&rows, budget::of_server),
    });
    sections.push(Section {
        title: "Where the time goes",
        about: "Samples of the processor at work under both loads: how many find it in a BPF \
                program, how many in the tool. What a virtual machine's neighbours take does not \
                blur this; `cargo xtask bench profile`.",
        text: profile::run(&LOADS, tools, subject)?,
        plots: Vec::new(),
        budgets: Vec::new(),
    });
    sections.push(Section {
        title: "A run of a program",
        about: "The kernel's own statistics (`kernel.bpf_stats_enabled`) under the churn; reading \
                the clock twice is part of each run.",
        text: cost::run(tools, subject)?,
        plots: Vec::new(),
        budgets: Vec::new(),
    });
    let censuses = census::run(extent.pairs, subject)?;
    sections.push(Section {
        title: "Census",
        about: "The same sockets counted by turns: by `agent snapshot`, which looks at all \
                namespaces and owners, by `ss`, by a scrape of node_exporter with nothing but \
                tcpstat; `cargo xtask bench census`.",
        text: censuses.render(),
        plots: Vec::new(),
        budgets: budget::of_censuses(&censuses),
    });
    sections.push(studied(
        "With the number of sockets",
        "Established ones, both ends on the host. The agent's table has room for half a million \
         (`--socket-capacity`): what finds none is counted, by the census too, and known without \
         its times; `cargo xtask bench scaling`, as the two that follow.",
        &scaling::with_sockets(subject)?,
    )?);
    sections.push(studied(
        "With the number of namespaces",
        "Three sockets in each.",
        &scaling::with_namespaces(subject)?,
    )?);
    sections.push(studied(
        "With the rate of connections",
        "The observers' own CPU time under the churn at a steady rate. Where there is no figure, \
         the load could not keep its rate under the tool.",
        &scaling::with_rate(subject)?,
    )?);
    let soak = soak::run(Duration::from_mins(extent.soak_minutes), subject)?;
    sections.push(Section {
        title: "A long run",
        about: "Both tools beside the same churn; `cargo xtask bench soak`.",
        text: soak.render(),
        plots: Vec::new(),
        budgets: budget::of_soak(&soak),
    });
    Ok(sections)
}

fn studied(title: &'static str, about: &'static str, study: &Study) -> Result<Section> {
    let file = format!("{}.svg", study.name);
    Ok(Section {
        title,
        about,
        text: format!("{}\n![{}](benchmarks/{file})\n", study.table(), study.x),
        plots: vec![(file, study.plot()?)],
        budgets: Vec::new(),
    })
}

/// The document. Pure.
fn render(sections: &[Section], machine: &str, minutes: u64) -> String {
    let mut text = format!(
        "# Benchmarks\n\n\
         `cargo xtask bench all` wrote this page, in one run of {minutes} minutes; `cargo xtask \
         setup --bench` installs what it needs. Figures are medians with the least and the \
         greatest value, and those that compare are ratios of runs that took turns: absolute ones \
         shift from machine to machine and from minute to minute. The row *nothing* is how far two \
         runs differ by themselves.\n\n{machine}\n\n## Budgets\n\n"
    );
    let budgets = sections.iter().flat_map(|section| &section.budgets);
    text += &budget::render(budgets);
    text += "\nWhy what is not met is not, and what would mend it, is in \
             [ARCHITECTURE.md](../ARCHITECTURE.md), *What it costs*.\n";
    let sections = sections.iter().map(|section| {
        format!(
            "\n## {}\n\n{}\n\n{}\n",
            section.title,
            section.about,
            section.text.trim_end()
        )
    });
    text + &sections.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_sections_after_the_budgets_of_all() {
        let section = Section {
            title: "Census",
            about: "What it is.",
            text: "| a |\n".to_owned(),
            plots: Vec::new(),
            budgets: Vec::new(),
        };
        let text = render(&[section], "a machine", 7);
        assert!(text.contains("one run of 7 minutes"), "{text}");
        let (before, after) = text.split_once("## Budgets").expect("budgets");
        assert!(before.ends_with("a machine\n\n"), "{text}");
        assert!(
            after.ends_with("\n## Census\n\nWhat it is.\n\n| a |\n"),
            "{text}"
        );
    }
}

//! What a tool's BPF programs take, by the kernel's own statistics (`kernel.bpf_stats_enabled`):
//! it reads the clock before and after each run of a program, which is part of what it finds.

use std::fs;

use anyhow::{Context, Result, bail};

use super::load::Load;
use super::table::Spread;
use super::tool::{Subject, Tool};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Runs of each tool.
const RUNS: usize = 5;

/// Connections of a run.
const CONNECTIONS: u32 = 60_000;

/// Runs and nanoseconds of programs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Statistics {
    runs: f64,
    nanos: f64,
}

/// The statistics, switched on until this value goes, if they were off.
struct Switched {
    was: String,
}

impl Switched {
    fn on() -> Result<Self> {
        let was = fs::read_to_string(SWITCH)
            .with_context(|| format!("could not read {SWITCH}"))?
            .trim()
            .to_owned();
        fs::write(SWITCH, "1").with_context(|| format!("could not write to {SWITCH}"))?;
        Ok(Self { was })
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.was) {
            eprintln!("{SWITCH} stays on: {error}");
        }
    }
}

/// A line per tool: per run of a program, and per state transition of the load.
pub(super) fn run(tools: &[Tool], subject: &Subject) -> Result<String> {
    let load = Load::Churn {
        connections: CONNECTIONS,
        per_second: None,
    };
    let transitions = load.transitions().context("the churn's are known")?;
    let _on = Switched::on()?;
    let mut lines = vec![
        "| tool | ns a run of a program | ns a state transition | runs a connection |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for tool in tools {
        let label = tool.label(subject);
        if let Some(package) = tool.missing_package() {
            lines.push(format!(
                "| {label} | not installed (Debian's package {package}) | – | – |"
            ));
            continue;
        }
        let mut measured = Vec::new();
        for _ in 0..RUNS {
            let Some(running) = tool.start(subject)? else {
                break;
            };
            let pid = running.process.id();
            let before = Statistics::of_process(pid)?;
            load.run()?;
            let after = Statistics::of_process(pid)?;
            running.stop()?;
            measured.push(Statistics {
                runs: after.runs - before.runs,
                nanos: after.nanos - before.nanos,
            });
        }
        eprintln!("{label}: {measured:?}");
        #[expect(clippy::cast_precision_loss, reason = "some hundred thousands")]
        let transitions = transitions as f64;
        let spread = |of: &dyn Fn(&Statistics) -> f64| Spread::of(measured.iter().map(of));
        let (Some(a_run), Some(a_transition), Some(runs)) = (
            spread(&|statistics| statistics.nanos / statistics.runs),
            spread(&|statistics| statistics.nanos / transitions),
            spread(&|statistics| statistics.runs / f64::from(CONNECTIONS)),
        ) else {
            continue;
        };
        lines.push(format!(
            "| {label} | {} | {} | {} |",
            a_run.show(0),
            a_transition.show(0),
            runs.show(1)
        ));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

impl Statistics {
    /// Of all programs that a process holds (`bpf_prog_show_fdinfo()`).
    fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/fdinfo");
        let entries = fs::read_dir(&path).with_context(|| format!("could not read {path}"))?;
        let mut programs = std::collections::BTreeMap::new();
        for entry in entries {
            // A descriptor may be closed meanwhile; several may be of one program.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            if let Some((id, statistics)) = Self::parse(&text) {
                programs.insert(id, statistics);
            }
        }
        if programs.is_empty() {
            bail!("process {pid} holds no programs");
        }
        Ok(programs.values().fold(Self::default(), |sum, one| Self {
            runs: sum.runs + one.runs,
            nanos: sum.nanos + one.nanos,
        }))
    }

    /// The number of a program, and its statistics; none of other descriptors.
    fn parse(fdinfo: &str) -> Option<(u64, Self)> {
        let value = |key: &str| {
            let line = fdinfo.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<f64>().ok()
        };
        let id = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix("prog_id:"))?;
        Some((
            id.trim().parse().ok()?,
            Self {
                runs: value("run_cnt:")?,
                nanos: value("run_time_ns:")?,
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_descriptor_is_read() {
        let text = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_jited:\t1\nprog_tag:\tb806\n\
                    memlock:\t24576\nprog_id:\t86073\nrun_time_ns:\t4500\nrun_cnt:\t30\n";
        let expected = Statistics {
            runs: 30.0,
            nanos: 4500.0,
        };
        assert_eq!(Statistics::parse(text), Some((86073, expected)));
        assert_eq!(Statistics::parse("pos:\t0\nmap_id:\t7\n"), None);
    }
}

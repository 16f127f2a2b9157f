//! The same cost by another measure, which a busy neighbour of a virtual machine does not blur:
//! of all the samples that find the processor at work under a load, how many find it in a tracing
//! program or in the tool itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::load::Load;
use super::tool::{Subject, Tool};
use crate::child::Guarded;
use crate::setup::program;

/// Samples per second and processor; prime, lest they fall into step with a timer.
const FREQUENCY: &str = "4999";

/// What the samples of one run found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Samples {
    /// The processor at work.
    busy: u64,
    /// Below a tracepoint that runs a BPF program.
    programs: u64,
    /// The observer's own process.
    tool: u64,
}

/// Runs each load under each tool, and gives the lines of a table.
pub(super) fn run(loads: &[Load], tools: &[Tool], subject: &Subject) -> Result<String> {
    if program::path("perf").is_none() {
        bail!("this takes Debian's package linux-perf; `cargo xtask setup --bench` installs it");
    }
    let mut lines = vec![
        "| tool | load | of busy samples, in BPF programs | in the tool | busy samples |"
            .to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for tool in tools {
        for load in loads {
            let label = tool.label(subject);
            lines.push(if let Some(package) = tool.missing_package() {
                format!(
                    "| {label} | {} | not installed ({package}) | – | – |",
                    load.name()
                )
            } else {
                let samples = measure(load, *tool, subject)
                    .with_context(|| format!("could not profile {label}"))?;
                let row = samples.row(&label, load.name());
                eprintln!("{row}");
                row
            });
        }
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

fn measure(load: &Load, tool: Tool, subject: &Subject) -> Result<Samples> {
    let running = tool.start(subject)?;
    let directory = tempfile::tempdir().context("could not make a directory for the samples")?;
    let data = directory.path().join("perf.data");
    let mut record = Command::new("perf");
    record
        .args([
            "record",
            "--quiet",
            "--event",
            "cpu-clock",
            "--freq",
            FREQUENCY,
        ])
        .args(["--all-cpus", "--call-graph", "fp", "--output"])
        .arg(&data)
        .arg("--");
    load.run_under(record)?;
    // perf names the programs' symbols while they are loaded.
    let samples = read(&data, running.as_ref().map(|running| running.process.id()));
    if let Some(running) = running {
        running.process.stop()?;
    }
    samples
}

fn read(data: &Path, tool: Option<u32>) -> Result<Samples> {
    let mut command = Command::new("perf");
    command
        .args(["script", "--fields", "comm,pid,ip,sym", "--input"])
        .arg(data)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut script = Guarded::spawn(command.stdout(Stdio::piped()))?;
    let stdout = script.stdout().context("the output was not piped")?;
    let lines = BufReader::new(stdout).lines();
    let mut samples = Samples::default();
    let mut sample = Vec::new();
    for line in lines {
        let line = line.context("could not read what perf found")?;
        if line.is_empty() {
            samples.add(&sample, tool);
            sample.clear();
        } else {
            sample.push(line);
        }
    }
    samples.add(&sample, tool);
    if samples.busy == 0 {
        bail!(
            "perf found nothing: `perf script --input {}`",
            data.display()
        );
    }
    Ok(samples)
}

impl Samples {
    /// Adds a sample: a line of command and process, then a line of address and symbol for each
    /// function, the innermost first.
    fn add(&mut self, sample: &[String], tool: Option<u32>) {
        let Some((head, frames)) = sample.split_first() else {
            return;
        };
        let within = |prefix: &str| {
            frames.iter().any(|frame| {
                let symbol = frame.split_ascii_whitespace().nth(1);
                symbol.is_some_and(|symbol| symbol.starts_with(prefix))
            })
        };
        let pid = head.rsplit(' ').find_map(|word| word.parse::<u32>().ok());
        // The idle task is at work where an interrupt found it.
        if pid == Some(0) && !within("handle_softirqs") && !within("__do_softirq") {
            return;
        }
        self.busy += 1;
        if within("bpf_trace_run") || within("trace_call_bpf") || within("bpf_prog_") {
            self.programs += 1;
        } else if pid.is_some() && pid == tool {
            self.tool += 1;
        }
    }

    fn row(&self, tool: &str, load: &str) -> String {
        #[expect(
            clippy::cast_precision_loss,
            reason = "samples of a run stay far below 2^53"
        )]
        let percent = |part: u64| part as f64 * 100.0 / self.busy as f64;
        format!(
            "| {tool} | {load} | {:.1} % | {:.1} % | {} |",
            percent(self.programs),
            percent(self.tool),
            self.busy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `perf script` prints them: a process at work in a program, one in the tool, the idle
    /// task at rest and at work, a command with a space in its name.
    const SCRIPT: &str = "xtask 18773 
\tffffffffc0001000 bpf_prog_99a63b8ff75d28dc_inet_sock_set_state
\tffffffff81000200 bpf_trace_run3
\tffffffff82000000 tcp_close

engine 18685 
\tffffffff81000000 do_epoll_wait

swapper     0 
\tffffffff82000000 pv_native_safe_halt

swapper     0 
\tffffffff82000000 tcp_v4_rcv
\tffffffff82000000 handle_softirqs

lto cpva1 22406 
\t         882184f llvm::bpf_prog_()
";

    #[test]
    fn samples_are_told_apart() {
        let mut samples = Samples::default();
        for sample in SCRIPT.split("\n\n") {
            let lines: Vec<String> = sample.lines().map(str::to_owned).collect();
            samples.add(&lines, Some(18685));
        }
        let expected = Samples {
            busy: 4,
            programs: 1,
            tool: 1,
        };
        assert_eq!(samples, expected);
        assert_eq!(
            samples.row("a", "churn"),
            "| a | churn | 25.0 % | 25.0 % | 4 |"
        );
    }
}

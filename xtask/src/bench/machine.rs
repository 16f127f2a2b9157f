//! The machine and the versions a table holds for.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use super::load::Load;
use super::tool::{Subject, Tool};

/// One line: kernel, processor, versions, date.
pub(super) fn describe(tools: &[Tool], loads: &[Load], subject: &Subject) -> String {
    let system = rustix::system::uname();
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut parts = vec![
        format!(
            "Linux {} {}",
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
        processor(),
        format!("{cores} cores"),
    ];
    if let Some(agent) = subject
        .agent
        .as_deref()
        .filter(|_| tools.iter().any(|tool| tool.is_agent()))
    {
        parts.push(answer(Command::new(agent).arg("--version")));
    }
    let mut packages: Vec<&str> = tools.iter().filter_map(|tool| tool.package()).collect();
    if loads.iter().any(|load| matches!(load, Load::Server { .. })) {
        packages.extend(["nginx", "wrk"]);
    }
    packages.dedup();
    for package in packages {
        parts.push(version(package));
    }
    parts.push(answer(Command::new("date").args(["--utc", "+%F"])));
    parts.join("; ")
}

/// A Debian package and its version.
pub(super) fn version(package: &str) -> String {
    answer(Command::new("dpkg-query").args([
        "--show",
        "--showformat",
        "${Package} ${Version}",
        package,
    ]))
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model
        .map_or("unknown processor", |(_, model)| model)
        .to_owned()
}

/// What a command says of itself in its first line, or that it says nothing.
fn answer(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok();
    let text = output
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .unwrap_or_default();
    match text.lines().next() {
        Some(line) if !line.is_empty() => line.to_owned(),
        _ => format!("version of {name} unknown"),
    }
}

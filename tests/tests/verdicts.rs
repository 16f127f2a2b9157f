//! Whatever the kernel offers: what `agent check` says of it is what `agent run` does there.

use std::process::Command;

use agent_ebpf::programs::PROGRAMS;
use anyhow::{Context as _, Result, ensure};
use tests::{
    daemon::{Daemon, binary, output},
    http::number,
    load::{RESET_BY_LINGER, reset_by_linger},
    netns::Netns,
};

#[test]
fn what_check_says_is_what_runs() -> Result<()> {
    let checked = output(Command::new(binary()?).arg("check"))?;
    let report = String::from_utf8(checked.stdout)?;
    let verdict = |name: &str| {
        let mut lines = report.lines().map(str::trim_start);
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.with_context(|| format!("{name} is not in: {report}"))?;
        Ok::<_, anyhow::Error>(line.trim_start().to_owned())
    };
    let mut daemon = Daemon::start(&[])?;
    let scrape = daemon.scrape()?;
    for program in PROGRAMS {
        let verdict = verdict(program.name)?;
        let is_attached = verdict == "attached";
        // A verifier that refuses a program is a fault of the program, on any kernel.
        ensure!(
            is_attached || verdict.starts_with("unsupported: "),
            "{}: {verdict}: {report}",
            program.name
        );
        let series = format!(
            "connstate_bpf_program_attached{{program=\"{}\"}}",
            program.name
        );
        let told = scrape.value(&series)?;
        ensure!(
            told.to_bits() == number(is_attached.into()).to_bits(),
            "{series} is {told}: {report}"
        );
        if !is_attached {
            let log = daemon.log().join("\n");
            ensure!(
                log.contains(program.name),
                "{} is not in: {log}",
                program.name
            );
            eprintln!("{}: {verdict}", program.name);
        }
    }
    // Rights, features and fields may be missing, too.
    let (status, word) = if report.contains("lost: ") {
        (1, "reduced: ")
    } else {
        (0, "full: ")
    };
    ensure!(checked.status.code() == Some(status), "{report}");
    ensure!(
        report.lines().any(|line| line.starts_with(word)),
        "{report}"
    );

    // And it counts.
    let netns = Netns::new()?;
    let before = daemon.scrape()?.value(RESET_BY_LINGER)?;
    reset_by_linger(&netns, 10)?;
    daemon.wait("ten closes", |daemon| {
        let now = daemon.scrape().ok()?.value(RESET_BY_LINGER).ok()?;
        (now >= before + 10.0).then_some(())
    })
}

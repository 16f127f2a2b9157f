//! What Prometheus' own tool says of a page of metrics.

use std::{
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// Checks that it finds nothing; where it is not installed, that is said aloud.
///
/// # Errors
///
/// Where it finds something.
pub fn finds_nothing(page: &str) -> Result<()> {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: promtool is not installed (Debian has it in `prometheus`)");
            return Ok(());
        }
        spawned => spawned?,
    };
    let mut stdin = promtool.stdin.take().context("no standard input")?;
    stdin.write_all(page.as_bytes())?;
    drop(stdin);
    let output = promtool.wait_with_output()?;
    let is_silent = output.stdout.is_empty() && output.stderr.is_empty();
    ensure!(output.status.success() && is_silent, "{output:?}");
    Ok(())
}

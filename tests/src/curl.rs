//! Questions asked by curl, which speaks TLS.

use std::process::Command;

use anyhow::{Context as _, Result};

/// What came of a question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code; 0 where there was no answer.
    pub status: u16,
    /// The headers and the body.
    pub text: String,
    /// What curl said of it.
    pub errors: String,
}

/// Asks for a URL, past any proxy.
///
/// # Errors
///
/// Where curl cannot be run.
pub fn curl(arguments: &[&str]) -> Result<Answer> {
    let mut command = Command::new("curl");
    command.args([
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "60",
    ]);
    command
        .args(["--write-out", "\n%{http_code}"])
        .args(arguments);
    let ran = command.output().context("curl cannot be run")?;
    let text = String::from_utf8_lossy(&ran.stdout);
    let (text, status) = text.rsplit_once('\n').context("curl wrote no status")?;
    Ok(Answer {
        status: status.parse()?,
        text: text.to_owned(),
        errors: String::from_utf8_lossy(&ran.stderr).into_owned(),
    })
}

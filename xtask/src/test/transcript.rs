//! What a test file prints: passed on as it comes, and what its failed tests said kept for the end.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// Lines that are kept of each test: the last ones, which say why it failed.
const LINES: usize = 40;

/// Failed tests that are kept of each file.
const TESTS: usize = 8;

/// How long the pipe may be silent and open once the file has ended: a process that a test left
/// behind may hold it.
const GRACE: Duration = Duration::from_secs(1);

/// The lines of the tests that failed.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    /// Of the test that runs.
    current: VecDeque<String>,
    failed: Vec<Vec<String>>,
}

impl Transcript {
    /// Runs a test file to its end. Whether it passed, and what its failed tests said.
    pub(super) fn of(command: &mut Command) -> Result<(bool, Self)> {
        // One pipe for both, so that the lines keep their order.
        let (reader, writer) = io::pipe().context("no pipe for a test's output")?;
        command.stdin(Stdio::null());
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        // The command holds the writing ends, and with them the pipe would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (sender, lines) = mpsc::sync_channel(LINES);
        thread::spawn(move || {
            let mut lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        let mut transcript = Self::default();
        loop {
            match lines.recv_timeout(GRACE) {
                Ok(line) => {
                    // What hostile names made of it must not end the run.
                    let line = String::from_utf8_lossy(&line).into_owned();
                    println!("{line}");
                    transcript.take(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => {
                    eprintln!("something that it started outlives it");
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok((child.wait()?.success(), transcript))
    }

    /// Takes the next line. One at a time and with their output uncaught, a test's lines are those
    /// from its name to its verdict; together, the captured output follows under `failures:`.
    fn take(&mut self, line: String) {
        let begins = line.starts_with("test ") || line.starts_with("---- ");
        let is_over = line.starts_with("test result:") || line == "failures:";
        if begins || is_over {
            self.keep();
        }
        if self.current.len() == LINES {
            self.current.remove(1);
        }
        if !is_over {
            self.current.push_back(line);
        }
    }

    /// Keeps the lines of the test that is over, if it failed.
    fn keep(&mut self) {
        let lines = std::mem::take(&mut self.current);
        let is_captured = lines.front().is_some_and(|line| line.starts_with("---- "));
        let is_failed = is_captured || lines.iter().any(|line| line.ends_with("FAILED"));
        if is_failed && self.failed.len() < TESTS {
            self.failed.push(lines.into());
        }
    }

    /// What the failed tests said, or the last lines where none did: something ended it.
    pub(super) fn told(mut self) -> String {
        let last: Vec<_> = self.current.iter().cloned().collect();
        self.keep();
        if self.failed.is_empty() {
            self.failed.push(last);
        }
        self.failed.concat().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> String {
        let mut transcript = Transcript::default();
        for line in lines {
            transcript.take((*line).to_owned());
        }
        transcript.told()
    }

    #[test]
    fn a_failed_test_s_lines_are_kept() {
        let lines = [
            "running 3 tests",
            "test one ... ok",
            "test two ... it begins",
            "Error: why",
            "FAILED",
            "test three ... it begins",
            "ok",
            "failures:",
            "test result: FAILED. 2 passed; 1 failed",
        ];
        assert_eq!(told(&lines), "test two ... it begins\nError: why\nFAILED");
    }

    #[test]
    fn captured_output_is_kept() {
        let lines = [
            "test one ... FAILED",
            "test two ... ok",
            "",
            "failures:",
            "",
            "---- one stdout ----",
            "Error: why",
            "",
            "failures:",
            "    one",
            "",
            "test result: FAILED. 1 passed; 1 failed",
        ];
        assert_eq!(
            told(&lines),
            "test one ... FAILED\n---- one stdout ----\nError: why\n"
        );
    }

    #[test]
    fn the_first_line_and_the_last_ones_are_kept() {
        let mut lines = vec!["test one ... it begins".to_owned()];
        lines.extend((0..100).map(|number| number.to_string()));
        lines.push("FAILED".to_owned());
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let told = told(&lines);
        assert_eq!(told.lines().count(), LINES);
        assert!(told.starts_with("test one"));
        assert!(told.ends_with("99\nFAILED"));
    }

    #[test]
    fn what_was_ended_tells_its_last_lines() {
        assert_eq!(
            told(&["test one ... it begins", "this"]),
            "test one ... it begins\nthis"
        );
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() -> Result<()> {
        let began = std::time::Instant::now();
        let (passed, _) = Transcript::of(Command::new("sh").args(["-c", "sleep 30 & echo over"]))?;
        assert!(passed && began.elapsed() < Duration::from_secs(20));
        Ok(())
    }

    #[test]
    fn a_command_s_lines_of_both_outputs_are_read() -> Result<()> {
        let script = "echo 'test one ... '; echo why >&2; echo FAILED; exit 101";
        let (passed, transcript) = Transcript::of(Command::new("sh").args(["-c", script]))?;
        assert!(!passed);
        assert_eq!(transcript.told(), "test one ... \nwhy\nFAILED");
        Ok(())
    }
}

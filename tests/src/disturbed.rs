//! Runs in which the machine was too slow, or too busy with others, to make a test's point.

use std::fmt;

use anyhow::Result;

/// Such runs are repeated, so often at most.
const ATTEMPTS: usize = 10;

/// Why a run shows nothing: a timer was first, or the kernel ran no program.
#[derive(Debug)]
pub struct Disturbed(pub String);

impl fmt::Display for Disturbed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Disturbed {}

/// Repeats `run`, aloud, where it was disturbed.
///
/// # Errors
///
/// Any other of `run`, or that one every time.
pub fn undisturbed(run: impl Fn() -> Result<()>) -> Result<()> {
    for attempt in 1..ATTEMPTS {
        match run() {
            Err(error) if error.is::<Disturbed>() => {
                eprintln!("run {attempt} is repeated: {error:#}");
            }
            other => return other,
        }
    }
    run()
}

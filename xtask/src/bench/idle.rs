//! An agent that starts, and has nothing to do.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::prom;
use super::table::Spread;
use super::tool::{Subject, Tool};

/// How often it is started.
const STARTS: usize = 9;

/// Long enough for what starting took to be given back.
const REST: Duration = Duration::from_secs(10);

/// What that takes.
pub(super) struct Idle {
    /// Milliseconds until every program is attached and it serves.
    pub(super) start: Spread,
    pub(super) resident_mib: f64,
}

/// Starts it again and again; the last one rests.
pub(super) fn run(subject: &Subject) -> Result<Idle> {
    let mut starts = Vec::new();
    let mut resident_mib = 0.0;
    for number in 1..=STARTS {
        let running = Tool::Agent.start(subject)?.context("no agent was built")?;
        starts.push(running.start_up.as_secs_f64() * 1e3);
        if number == STARTS {
            thread::sleep(REST);
            let metrics = running.metrics.as_ref().context("the agent serves none")?;
            let bytes = prom::sum(&metrics.text()?, "process_resident_memory_bytes", &[]);
            resident_mib = bytes / 1_048_576.0;
        }
        running.process.stop()?;
    }
    Ok(Idle {
        start: Spread::of(starts).context("it was never started")?,
        resident_mib,
    })
}

impl Idle {
    /// One sentence.
    pub(super) fn render(&self) -> String {
        format!(
            "From its start until it serves with every program attached: {} ms, over {STARTS} \
             starts. After {} s of rest it holds {:.1} MiB.\n",
            self.start.show(0),
            REST.as_secs(),
            self.resident_mib
        )
    }
}

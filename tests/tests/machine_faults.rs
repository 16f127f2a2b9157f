//! Faults of a whole host, each done beside a running agent: in a virtual machine that `cargo xtask
//! vm` boots, which is nobody else's, so that every number is exact.

use std::{env, time::Instant};

use anyhow::{Context as _, Result};

#[path = "faults/scene.rs"]
#[expect(dead_code, reason = "what else it has is for a host's faults")]
mod scene;
#[path = "faults/known.rs"]
mod known;
#[path = "faults/leak.rs"]
#[expect(dead_code, reason = "what else it has is for a host's faults")]
mod leak;
#[path = "faults/verdict.rs"]
#[expect(dead_code, reason = "what else it has is for a host's faults")]
mod verdict;

#[path = "machine_faults/account.rs"]
mod account;
#[path = "machine_faults/told.rs"]
mod told;
#[path = "machine_faults/processor.rs"]
mod processor;
#[path = "machine_faults/wall_clock.rs"]
mod wall_clock;

use scene::{PLAINLY, Scene, Start};

/// Set in the virtual machine alone, to a line that these tests print when they have seen all.
const PROOF: &str = "CONNSTATE_VM";

/// Every record is told, so that the ring is drained all the time.
const EVERYTHING_TOLD: Start = Start {
    options: &["--stream", "all"],
    ..PLAINLY
};

/// Does it to an agent, in a machine; it is told since when sockets can have been there.
fn fault(happens: fn(&Scene, Instant) -> Result<()>) -> Result<()> {
    let Ok(proof) = env::var(PROOF) else {
        eprintln!("skipped: it touches the whole host; `cargo xtask vm` runs this elsewhere");
        return Ok(());
    };
    let made = Instant::now();
    let scene = Scene::new(EVERYTHING_TOLD)?;
    happens(&scene.context("a machine has cgroups")?, made)?;
    println!("{proof}");
    Ok(())
}

#[test]
fn a_processor_that_comes_and_goes() -> Result<()> {
    fault(processor::comes_and_goes)
}

#[test]
fn a_wall_clock_that_steps() -> Result<()> {
    fault(wall_clock::steps)
}

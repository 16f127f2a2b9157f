//! SIGKILL, at moments that a seed chooses.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow, ensure};
use nix::sys::signal::Signal;
use tests::{bpf_ids, load::churn, netns::Netns, random::Random, wait};

use super::{scene::Scene, verdict};

/// How often it is killed.
const TIMES: u64 = 10;

/// The longest that it runs before.
const LONGEST_MS: u64 = 600;

/// Kills the agent at ten random moments of load, and starts it again each time.
pub(super) fn ten_times(scene: &mut Scene) -> Result<()> {
    let mut random = Random::new()?;
    let netns = Netns::new()?;
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                churn(&netns, 100)?;
            }
            Ok(())
        });
        let mut kill = || (0..TIMES).try_for_each(|_| once(scene, &mut random));
        let killed = kill();
        enough.store(true, Ordering::Relaxed);
        let loaded: Result<()> = load.join().unwrap_or_else(|_| Err(anyhow!("a panic")));
        loaded.and(killed)
    })
}

fn once(scene: &mut Scene, random: &mut Random) -> Result<()> {
    let after = Duration::from_millis(random.below(LONGEST_MS));
    let host = bpf_ids::of_host();
    let ids = bpf_ids::of_process(scene.pid()?)?;
    ensure!(!ids.is_empty(), "it holds no programs");
    thread::sleep(after);
    scene.daemon.signal(Signal::SIGKILL)?;
    wait::until("its end", || Ok(!scene.is_alive()))?;
    verdict::log_is_clear(&scene.daemon.log(), 4)?;
    if let Err(error) = host {
        eprintln!("skipped: whether programs are left: {error:#}");
    } else {
        // The kernel frees them a moment after the last descriptor (bpf_prog_put()).
        wait::until("the programs to go", || {
            Ok(ids.is_disjoint(&bpf_ids::of_host()?))
        })?;
    }
    let minisockets = scene.known.minisockets_now()?;
    scene.restart()?;
    // Ready is after the first census: its gauges, and no later ones, are these.
    let scrape = scene.scrape()?;
    if scene.known.minisockets_now()? == minisockets {
        let named = scene.start.named;
        scene.known.is_told(&scrape, named, minisockets)?;
    }
    eprintln!("killed after {after:?}, right again at once");
    Ok(())
}

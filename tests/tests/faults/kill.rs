//! SIGKILL, at moments that a seed chooses.

use std::{
    fs,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use tests::{
    bpf_ids::{self, BpfIds, BpfKind},
    load::churn,
    netns::Netns,
    random::Random,
    wait,
};

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
    // Ready is after the first census: its gauges, and no later ones, are these.
    verdict::told_rightly(scene, |scene| {
        kill_and_restart(scene, random)?;
        scene.scrape()
    })?;
    Ok(())
}

fn kill_and_restart(scene: &mut Scene, random: &mut Random) -> Result<()> {
    let after = Duration::from_millis(random.below(LONGEST_MS));
    let host = bpf_ids::of_host();
    let ids = bpf_ids::of_process(scene.pid()?)?;
    ensure!(!ids.is_empty(), "it holds no programs");
    thread::sleep(after);
    end(scene)?;
    verdict::log_says(&scene.daemon.log(), &[])?;
    if let Err(error) = host {
        eprintln!("skipped: whether programs are left: {error:#}");
    } else {
        // The kernel frees them a moment after the last descriptor (bpf_prog_put()).
        wait::until("the programs to go", || {
            Ok(ids.is_disjoint(&bpf_ids::of_host()?))
        })?;
    }
    eprintln!("killed after {after:?}");
    scene.restart()
}

/// Kills the agent of the scene.
fn end(scene: &Scene) -> Result<()> {
    scene.daemon.signal(Signal::SIGKILL)?;
    wait::until("its end", || Ok(!scene.is_alive()))
}

/// How often one is killed that starts.
const EARLY_TIMES: u64 = 24;

/// The longest that it is let start, but where this agent took longer: so long as that one.
const EARLIEST: Duration = Duration::from_millis(250);

/// Kills agents at random moments from their first to when they run, among them ones at which the
/// programs are loaded, and starts one in their place.
pub(super) fn while_it_starts(scene: &mut Scene) -> Result<()> {
    let mut random = Random::new()?;
    let longest = u64::try_from(EARLIEST.max(scene.daemon.start_up()).as_millis())?;
    end(scene)?;
    let before = match bpf_ids::of_host() {
        Ok(before) => Some(before),
        Err(error) => {
            eprintln!("skipped: whether programs are left: {error:#}");
            None
        }
    };
    let (mut early, mut loading) = (0, 0);
    for _ in 0..EARLY_TIMES {
        let after = Duration::from_millis(random.below(longest));
        let mut agent = scene.command()?.stderr(Stdio::piped()).spawn()?;
        thread::sleep(after);
        let held = bpf_ids::of_process(agent.id());
        agent.kill()?;
        let ended = agent.wait_with_output()?;
        let log = String::from_utf8(ended.stderr)?;
        ensure!(ended.status.code().is_none(), "it ended before: {log}");
        ensure!(!log.contains("panic"), "{log}");
        early += u32::from(!log.contains("listening="));
        loading += u32::from(!log.contains("listening=") && !held?.is_empty());
        if let Some(before) = &before {
            nothing_is_left(before)?;
        }
    }
    eprintln!(
        "{early} of {EARLY_TIMES} were killed before they ran, {loading} with programs or maps"
    );
    ensure!(early > 0 && loading > 0, "{early} {loading}");
    scene.restart()
}

/// Waits until there are no programs and links that were not there before, but for those that
/// another process holds.
fn nothing_is_left(before: &BpfIds) -> Result<()> {
    let mut left = BpfIds::new();
    let waited = wait::until("the programs to go", || {
        left = bpf_ids::of_host()?.difference(before).copied().collect();
        // A map may be held by nothing but a program.
        left.retain(|(kind, _)| *kind != BpfKind::Map);
        if !left.is_empty() {
            for process in fs::read_dir("/proc")?.flatten() {
                let pid = process
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok());
                // One may have ended meanwhile.
                let held = pid.and_then(|pid| bpf_ids::of_process(pid).ok());
                left = &left - &held.unwrap_or_default();
            }
        }
        Ok(left.is_empty())
    });
    waited.with_context(|| format!("{left:?}"))
}

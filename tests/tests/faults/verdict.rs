//! What must hold after every fault, whatever it was.

use std::{fs, process::Output, time::Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::param::clock_ticks_per_second;
use tests::promtool;

use super::scene::Scene;

/// The memory an agent may hold, with tables as large as those of 300 000 sockets.
const MEMORY_KIB: u64 = 64 << 10;

/// The part of a processor that an agent may take once nothing happens any more. Its budget is far
/// lower; this is the least that no machine takes for a thread that never rests.
const BUSY: f64 = 0.5;

/// It goes on, and its page is one that Prometheus takes.
pub(super) fn is_sound(scene: &Scene, log_lines: usize) -> Result<()> {
    goes_on(scene, log_lines)?;
    promtool::finds_nothing(&scene.get("/metrics")?.body)
}

/// The agent lives; the next census makes every gauge right; its log has no more than so many lines
/// and no panic, its memory is bounded, and it rests.
pub(super) fn goes_on(scene: &Scene, log_lines: usize) -> Result<()> {
    ensure!(scene.is_alive(), "it ended: {:?}", scene.daemon.log());
    gauges_are_right(scene)?;
    let resident = resident_kib(scene.pid()?)?;
    let log = scene.daemon.log();
    eprintln!(
        "{resident} KiB resident of {MEMORY_KIB}; {} lines of log of {log_lines}",
        log.len()
    );
    ensure!(resident < MEMORY_KIB, "{resident} KiB resident");
    log_is_clear(&log, log_lines)
}

/// To the unit, after one census, in the time of which nothing else changed.
fn gauges_are_right(scene: &Scene) -> Result<()> {
    const ATTEMPTS: usize = 5;
    let known = &scene.known;
    known.minisockets()?;
    for _ in 0..ATTEMPTS {
        let before = known.minisockets_now()?;
        let (pid, started) = (scene.pid()?, Instant::now());
        let used = cpu_seconds(pid)?;
        let scrape = scene.next_census()?;
        let part = (cpu_seconds(pid)? - used) / started.elapsed().as_secs_f64();
        // The eldest of them may have ended meanwhile, as do those of questions asked beside them.
        if known.minisockets_now()? != before {
            continue;
        }
        known.is_told(&scrape, scene.start.named, before)?;
        eprintln!(
            "{before} minisockets and all others told rightly, at {:.1} % of a processor",
            part * 1e2
        );
        ensure!(part < BUSY, "it takes {part:.2} of a processor at rest");
        return Ok(());
    }
    anyhow::bail!("the minisockets changed during each of {ATTEMPTS} censuses")
}

/// Whether a log says what there is to say, and stops.
pub(super) fn log_is_clear(log: &[String], lines: usize) -> Result<()> {
    ensure!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
    ensure!(log.len() <= lines, "{} lines: {log:#?}", log.len());
    Ok(())
}

/// The agent refused to start, as it should: at once, with the exit code of an error, and words
/// that name each of these things. Returns all it said.
pub(super) fn is_refused(ended: &Output, words: &[&str]) -> Result<String> {
    let errors = String::from_utf8_lossy(&ended.stderr);
    let log: Vec<String> = errors.lines().map(str::to_owned).collect();
    ensure!(ended.status.code() == Some(1), "{}: {errors}", ended.status);
    for word in words {
        ensure!(errors.contains(word), "{word:?} is not in: {errors}");
    }
    log_is_clear(&log, 10)?;
    Ok(errors.into_owned())
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // utime and stime are the 14th and 15th of all, and the name is the second.
    let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    let second = u32::try_from(clock_ticks_per_second())?;
    Ok(f64::from(ticks) / f64::from(second))
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(size.parse()?)
}

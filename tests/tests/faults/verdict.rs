//! What must hold after every fault, whatever it was.

use std::{fs, ops::Deref, process::Output, sync::OnceLock, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::param::clock_ticks_per_second;
use tests::{daemon::Daemon, http::Scrape, promtool};

use super::{
    known::{Named, all_are_told},
    scene::Scene,
};

/// What an agent's log says besides what every agent's here says: each of these in one line of its
/// own. Words that another of them contains come after it.
pub(super) type Says = &'static [&'static str];

/// The memory an agent may hold, with tables as large as those of 300 000 sockets.
const MEMORY_KIB: u64 = 64 << 10;

/// The part of a processor that an agent may take once nothing happens any more. Its budget is far
/// lower; this is the least that no machine takes for a thread that never rests.
const BUSY: f64 = 0.5;

/// It goes on, and its page is one that Prometheus takes.
pub(super) fn is_sound(scene: &Scene, says: Says) -> Result<()> {
    goes_on(scene, usual_lines()?.len() + says.len())?;
    log_says(&scene.daemon.log(), says)?;
    promtool::finds_nothing(&scene.get("/metrics")?.body)
}

/// The agent lives; the next census makes every gauge right; its log has no more than so many lines
/// and no panic, its memory is bounded, and it rests.
pub(super) fn goes_on(scene: &Scene, log_lines: usize) -> Result<()> {
    ensure!(scene.is_alive(), "it ended: {:?}", scene.daemon.log());
    gauges_are_right(scene)?;
    all_states_are_right(scene)?;
    let resident = resident_kib(scene.pid()?)?;
    let log = scene.daemon.log();
    eprintln!(
        "{resident} KiB resident of {MEMORY_KIB}; {} lines of log of {log_lines}",
        log.len()
    );
    ensure!(resident < MEMORY_KIB, "{resident} KiB resident");
    log_is_clear(&log, log_lines)
}

/// How often a census is taken anew, during which what it is held against has changed.
const ATTEMPTS: usize = 5;

/// To the unit, after one census, in the time of which nothing else changed.
fn gauges_are_right(scene: &Scene) -> Result<()> {
    scene.known.minisockets()?;
    let mut part = 0.0;
    told_rightly(scene, |scene| {
        let (pid, started) = (scene.pid()?, Instant::now());
        let used = cpu_seconds(pid)?;
        let scrape = scene.next_census()?;
        part = (cpu_seconds(pid)? - used) / started.elapsed().as_secs_f64();
        Ok(scrape)
    })?;
    eprintln!("it takes {:.1} % of a processor", part * 1e2);
    ensure!(part < BUSY, "it takes {part:.2} of a processor at rest");
    Ok(())
}

/// Holds the gauges that this takes against the known sockets, once none of them ended meanwhile.
pub(super) fn told_rightly<S: Deref<Target = Scene>>(
    mut scene: S,
    mut take: impl FnMut(&mut S) -> Result<Scrape>,
) -> Result<Scrape> {
    for _ in 0..ATTEMPTS {
        let before = scene.known.minisockets_now()?;
        let scrape = take(&mut scene)?;
        // The eldest of them may have ended meanwhile, as do those of questions asked beside them.
        if scene.known.minisockets_now()? != before {
            continue;
        }
        scene.known.is_told(&scrape, scene.start.named, before)?;
        eprintln!("{before} minisockets and all others told rightly");
        return Ok(scrape);
    }
    bail!("the minisockets changed during each of {ATTEMPTS} censuses")
}

/// Every socket that there is, and none that is gone, is told in its state. Of a whole host that is
/// known at a moment at which no other process opens or closes any.
fn all_states_are_right(scene: &Scene) -> Result<()> {
    let named = scene.start.named;
    let mut told = None;
    for _ in 0..ATTEMPTS {
        let before = scene.known.states(named)?;
        let scrape = scene.next_census()?;
        let after = scene.known.states(named)?;
        if after != before {
            eprintln!("the sockets change: {before:?}, {after:?}");
            continue;
        }
        // One that came and went between is seen by the census alone; a ghost stays.
        let right = all_are_told(&scrape, named, &before);
        let is_right = right.is_ok();
        told = Some(right);
        if is_right {
            break;
        }
    }
    match told {
        Some(told) => told,
        None if named == Named::AsTheHost => bail!("the known sockets never stand still"),
        None => {
            eprintln!("skipped: the sockets of all states, for this host's never stand still");
            Ok(())
        }
    }
}

/// Whether a log says what there is to say, and stops; and nothing of it steers the terminal of
/// whoever reads it.
fn log_is_clear(log: &[String], lines: usize) -> Result<()> {
    ensure!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
    ensure!(log.len() <= lines, "{} lines: {log:#?}", log.len());
    log.iter().try_for_each(|line| is_plain(line))
}

/// Whether a log says this and what every agent's says, and nothing else.
pub(super) fn log_says(log: &[String], says: Says) -> Result<()> {
    let mut rest: Vec<&String> = log.iter().collect();
    for words in says {
        let place = rest.iter().position(|line| line.contains(words));
        rest.remove(place.with_context(|| format!("no line says {words:?}: {log:#?}"))?);
    }
    let mut usual = usual_lines()?.to_vec();
    for line in rest {
        let place = usual.iter().position(|usual| *usual == undated(line));
        usual.swap_remove(place.with_context(|| format!("unexpected: {line}: {log:#?}"))?);
    }
    let runs = !usual.iter().any(|line| line.ends_with(RUNNING));
    ensure!(runs, "no word that it runs: {log:#?}");
    Ok(())
}

/// Whether nothing in it moves a terminal's cursor, changes its colour, or turns what is read.
pub(super) fn is_plain(text: &str) -> Result<()> {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let bad = text
        .chars()
        .find(|c| (c.is_control() && *c != '\n') || turns(*c));
    ensure!(bad.is_none(), "{bad:?} in {text:?}");
    Ok(())
}

/// How the line ends that says that it runs, without what it lists.
const RUNNING: &str = " running";

/// What an agent says to which nothing happens: that it runs, and what this host lacks.
fn usual_lines() -> Result<&'static [String]> {
    static LINES: OnceLock<Vec<String>> = OnceLock::new();
    if let Some(lines) = LINES.get() {
        return Ok(lines);
    }
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("api.sock");
    let socket = socket.to_str().context("a name without a text")?;
    let log = Daemon::start(&["--api-socket", socket])?.log();
    eprintln!("every agent here says: {log:#?}");
    Ok(LINES.get_or_init(|| log.iter().map(|line| undated(line).to_owned()).collect()))
}

/// A line without its time, and without the programs and addresses of an agent that runs.
fn undated(line: &str) -> &str {
    let line = line.split_once(' ').map_or(line, |(_, rest)| rest);
    let end = line.find(" running attached=");
    end.map_or(line, |end| &line[..end + RUNNING.len()])
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

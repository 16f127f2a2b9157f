//! Processor time, user and system together.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use rustix::param::clock_ticks_per_second;
use rustix::time::clock_gettime;

/// Seconds of this process, to the nanosecond.
pub(super) fn of_this_process() -> f64 {
    let time = clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds and nanoseconds of a run stay far below 2^53"
    )]
    let (seconds, nanos) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds + nanos * 1e-9
}

/// Seconds of this process's children that have ended and been waited for.
pub(super) fn of_waited_children() -> Result<f64> {
    let path = "/proc/self/stat";
    let stat = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    let ticks =
        ticks(&stat, 13).with_context(|| format!("{path} is not what was expected: {stat}"))?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks of a run and ticks per second stay far below 2^53"
    )]
    let seconds = ticks as f64 / clock_ticks_per_second() as f64;
    Ok(seconds)
}

/// Seconds of another process, to the nanosecond, threads that have ended included.
pub(super) fn of_process(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()));
    let time = clock.and_then(ClockId::now);
    let time = time.with_context(|| format!("no processor time of process {pid}"))?;
    Ok(Duration::from(time).as_secs_f64())
}

/// Seconds of those threads of a process that have this name, to the nanosecond: a tick is longer
/// than they run at a time.
pub(super) fn of_threads(pid: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&path).with_context(|| format!("could not read {path}"))?;
    let mut sum = 0.0;
    for thread in threads {
        let path = thread?.path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        // It may have ended meanwhile.
        let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
            continue;
        };
        if comm.trim_end() == name {
            let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
            let nanos: f64 = nanos.with_context(|| format!("no time in {text}"))?;
            sum += nanos * 1e-9;
        }
    }
    Ok(sum)
}

/// The sum of two neighbouring fields, counted from the state, which is what follows the name: the
/// name may itself hold spaces and parentheses.
fn ticks(stat: &str, first: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(first);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 2 3 4 70 30 5 6 20 0 4 0 1200";

    #[test]
    fn a_name_with_parentheses_is_skipped() {
        assert_eq!(ticks(STAT, 11), Some(100));
        assert_eq!(ticks(STAT, 13), Some(11));
    }

    #[test]
    fn a_short_line_is_none() {
        assert_eq!(ticks("812 (agent) S 1", 11), None);
        assert_eq!(ticks("", 11), None);
    }

    #[test]
    fn this_process_has_used_time() {
        assert!(of_this_process() > 0.0);
        assert!(of_process(std::process::id()).unwrap() >= 0.0);
    }
}

//! The sockets of a run, until the last is gone: a connection is closed by the processes long
//! before both its ends are, and what it has left to do is part of what it was foretold to do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A segment that was dropped is sent again after 200 ms, then after twice as long, and so on.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until this process's network namespace has no full TCP socket left, and gives the number
/// of those that are still there at the deadline.
pub(super) fn outlived() -> Result<u64> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = in_use()?;
        if left == 0 || Instant::now() > deadline {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn in_use() -> Result<u64> {
    let path = "/proc/self/net/sockstat";
    let text = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    parse(&text).with_context(|| format!("{path} is not what was expected: {text}"))
}

/// The first figure of the line on TCP: all sockets but the `TIME_WAIT` ones, orphans included.
fn parse(sockstat: &str) -> Option<u64> {
    let tcp = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP: inuse "))?;
    tcp.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_use_are_read() {
        let sockstat =
            "sockets: used 9\nTCP: inuse 12 orphan 3 tw 2000 alloc 15 mem 2\nUDP: inuse 1 mem 0\n";
        assert_eq!(parse(sockstat), Some(12));
    }

    #[test]
    fn a_file_without_tcp_is_none() {
        assert_eq!(parse("sockets: used 9\n"), None);
        assert_eq!(parse("TCP: inuse many\n"), None);
    }
}

//! The clocks.

use std::{fs, sync::LazyLock, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// By how much CLOCK_MONOTONIC is ahead of the kernel's own here.
static AHEAD: LazyLock<Offset> = LazyLock::new(|| {
    // Kernels without time namespaces have no such file, and no offset.
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    Offset::of_monotonic(&offsets).unwrap_or_default()
});

/// What a time namespace adds to a clock: whole seconds, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offset {
    seconds: i64,
    nanos: u32,
}

impl Offset {
    /// From a line `monotonic SECONDS NANOSECONDS` (`proc_timens_show_offsets()`).
    fn of_monotonic(offsets: &str) -> Option<Self> {
        let line = offsets
            .lines()
            .find_map(|line| line.strip_prefix("monotonic"))?;
        let mut words = line.split_ascii_whitespace();
        let (seconds, nanos) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { seconds, nanos })
    }

    /// What the clock shows without it.
    fn taken_from(self, shown: Duration) -> Duration {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let shown = if self.seconds < 0 {
            shown.saturating_add(whole)
        } else {
            shown.saturating_sub(whole)
        };
        shown.saturating_sub(Duration::from_nanos(self.nanos.into()))
    }
}

/// What a clock shows; zero where it shows a time before its beginning.
#[must_use]
pub fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// The kernel's own CLOCK_MONOTONIC, which its programs read (`bpf_ktime_get_ns()`): without what
/// the agent's time namespace adds to it.
#[must_use]
pub fn monotonic() -> Duration {
    AHEAD.taken_from(read(ClockId::Monotonic))
}

/// When CLOCK_MONOTONIC was zero: time since 1970, as the wall clock counts it now.
#[must_use]
pub fn boot() -> Duration {
    read(ClockId::Realtime).saturating_sub(monotonic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_taken_away_whatever_its_sign() {
        let shown = Duration::new(100_000, 5);
        for (line, expected) in [
            ("monotonic           0         0\n", shown),
            (
                "monotonic       86400         0\nboottime 1 0\n",
                Duration::new(13_600, 5),
            ),
            ("boottime 7 0\nmonotonic 10 5\n", Duration::new(99_990, 0)),
            // Minus half a second.
            (
                "monotonic          -1 500000000\n",
                Duration::new(100_000, 500_000_005),
            ),
        ] {
            let offset = Offset::of_monotonic(line);
            assert_eq!(
                offset.map(|offset| offset.taken_from(shown)),
                Some(expected)
            );
        }
    }

    #[test]
    fn what_is_no_offset_is_none() {
        for text in [
            "",
            "boottime 1 0",
            "monotonic",
            "monotonic 1",
            "monotonic 1 -5",
        ] {
            assert_eq!(Offset::of_monotonic(text), None, "{text}");
        }
    }
}

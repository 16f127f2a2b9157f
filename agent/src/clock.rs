//! The clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a clock shows; zero where it shows a time before its beginning.
#[must_use]
pub fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// CLOCK_MONOTONIC, which the kernel programs' `bpf_ktime_get_ns` reads too.
#[must_use]
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// When CLOCK_MONOTONIC was zero: time since 1970, as the wall clock counts it now.
#[must_use]
pub fn boot() -> Duration {
    read(ClockId::Realtime).saturating_sub(monotonic())
}

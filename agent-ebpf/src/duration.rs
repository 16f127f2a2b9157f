//! How long a socket stayed in a state, in buckets.

use crate::state;

/// Upper bounds of the histogram's buckets, in nanoseconds, inclusive; one more bucket holds what
/// is longer. They rise by the half decade where closing connections live, and hit the limits an
/// SRE thinks in: 1 s (the first retransmission), 60 s (`TCP_TIMEWAIT_LEN`), 300 s and 1 h.
pub const BUCKET_BOUNDS_NS: [u64; 18] = [
    1_000,
    10_000,
    100_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
    3_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
    900_000_000_000,
    3_600_000_000_000,
];

/// Buckets of a histogram, the one above the last bound included.
pub const BUCKET_COUNT: usize = BUCKET_BOUNDS_NS.len() + 1;

/// The index of the bucket that a stay of `duration_ns` falls into.
///
/// A plain walk from the shortest: on a busy host nearly every stay ends within the first three.
#[inline(always)]
#[must_use]
pub fn bucket(duration_ns: u64) -> usize {
    let mut index = 0;
    while index < BUCKET_BOUNDS_NS.len() && duration_ns > BUCKET_BOUNDS_NS[index] {
        index += 1;
    }
    index
}

/// The states whose duration is measured, in the order of their histograms.
pub const TIMED_STATES: [u8; 7] = [
    state::SYN_SENT,
    state::ESTABLISHED,
    state::FIN_WAIT1,
    state::FIN_WAIT2,
    state::CLOSING,
    state::CLOSE_WAIT,
    state::LAST_ACK,
];

/// The values of the `state` label, in the order of [`TIMED_STATES`]. A FIN_WAIT2 socket usually
/// lives on as a timewait minisocket, which no event shows: hence `fin_wait2_full`.
pub const TIMED_STATE_NAMES: [&str; TIMED_STATES.len()] = [
    "syn_sent",
    "established",
    "fin_wait1",
    "fin_wait2_full",
    "closing",
    "close_wait",
    "last_ack",
];

/// The histogram of `state`, or nothing where its duration is not measured.
#[inline(always)]
#[must_use]
pub const fn histogram_of(state: u8) -> Option<usize> {
    Some(match state {
        state::SYN_SENT => 0,
        state::ESTABLISHED => 1,
        state::FIN_WAIT1 => 2,
        state::FIN_WAIT2 => 3,
        state::CLOSING => 4,
        state::CLOSE_WAIT => 5,
        state::LAST_ACK => 6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (index, bound) in BUCKET_BOUNDS_NS.into_iter().enumerate() {
            assert_eq!(bucket(bound), index);
            assert_eq!(bucket(bound + 1), index + 1);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKET_COUNT - 1);
    }

    #[test]
    fn timed_states_and_their_histograms_agree() {
        for state in 0..=u8::MAX {
            let listed = TIMED_STATES.iter().position(|timed| *timed == state);
            assert_eq!(histogram_of(state), listed, "state {state}");
        }
    }
}

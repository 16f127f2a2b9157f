//! What the programs count: one struct for each CPU, added up by the agent.

use core::time::Duration;

use crate::{
    close::{CAUSE_COUNT, REVISION_COUNT},
    duration::{BUCKET_COUNT, TIMED_STATES, bucket},
    retransmit::{Packet, Trigger},
    state::STATE_COUNT,
};

/// How long sockets stayed in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram {
    /// Stays by [`crate::duration::bucket`]; not cumulative.
    pub buckets: [u64; BUCKET_COUNT],
    /// All stays together, in nanoseconds; wraps after 584 years.
    pub sum_ns: u64,
}

impl Histogram {
    /// No stay.
    pub const ZERO: Self = Self {
        buckets: [0; BUCKET_COUNT],
        sum_ns: 0,
    };

    /// Adds a stay of this length; one of more than 584 years as that.
    pub fn observe(&mut self, stay: Duration) {
        let ns = u64::try_from(stay.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)] += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
    }
}

/// The counters of one CPU, or of all added up. Every one only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Transitions `[from][to]` by kernel number, self-transitions on the diagonal.
    pub transitions: [[u64; STATE_COUNT]; STATE_COUNT],
    /// Times in state, in the order of [`TIMED_STATES`].
    pub durations: [Histogram; TIMED_STATES.len()],
    /// Closes by [`crate::close::CloseCause`], as told at the event.
    pub closes: [u64; CAUSE_COUNT],
    /// What was told wrong at the event, by [`crate::close::Revision`].
    pub revisions: [u64; REVISION_COUNT],
    /// Retransmitted segments `[state][packet][trigger]`.
    pub retransmits: [[[u64; Trigger::ALL.len()]; Packet::ALL.len()]; STATE_COUNT],
    /// Records that found room in the ring buffer.
    pub records_sent: u64,
    /// Records that found none.
    pub lost_ring_full: u64,
    /// Sockets that found no room among the [`crate::socket::SocketEntry`]s.
    pub lost_state_full: u64,
    /// Entries of the table of sockets that were taken.
    pub sockets_claimed: u64,
    /// Those of them that were given back.
    pub sockets_released: u64,
    /// Connects that found no room among the [`crate::census::ConnectKey`]s.
    pub connects_untold: u64,
}

impl Counters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        transitions: [[0; STATE_COUNT]; STATE_COUNT],
        durations: [Histogram::ZERO; TIMED_STATES.len()],
        closes: [0; CAUSE_COUNT],
        revisions: [0; REVISION_COUNT],
        retransmits: [[[0; Trigger::ALL.len()]; Packet::ALL.len()]; STATE_COUNT],
        records_sent: 0,
        lost_ring_full: 0,
        lost_state_full: 0,
        sockets_claimed: 0,
        sockets_released: 0,
        connects_untold: 0,
    };

    /// Adds another CPU's counters to these.
    pub fn add(&mut self, other: &Self) {
        fn add_each<'a>(
            into: impl IntoIterator<Item = &'a mut u64>,
            from: impl IntoIterator<Item = &'a u64>,
        ) {
            for (into, from) in into.into_iter().zip(from) {
                *into = into.wrapping_add(*from);
            }
        }
        add_each(
            self.transitions.as_flattened_mut(),
            other.transitions.as_flattened(),
        );
        for (into, from) in self.durations.iter_mut().zip(&other.durations) {
            add_each(&mut into.buckets, &from.buckets);
            into.sum_ns = into.sum_ns.wrapping_add(from.sum_ns);
        }
        add_each(&mut self.closes, &other.closes);
        add_each(&mut self.revisions, &other.revisions);
        add_each(
            self.retransmits.as_flattened_mut().as_flattened_mut(),
            other.retransmits.as_flattened().as_flattened(),
        );
        add_each(
            [
                &mut self.records_sent,
                &mut self.lost_ring_full,
                &mut self.lost_state_full,
                &mut self.sockets_claimed,
                &mut self.sockets_released,
                &mut self.connects_untold,
            ],
            [
                &other.records_sent,
                &other.lost_ring_full,
                &other.lost_state_full,
                &other.sockets_claimed,
                &other.sockets_released,
                &other.connects_untold,
            ],
        );
    }
}

// The kernel refuses per-CPU values above 32 KiB (PCPU_MIN_UNIT_SIZE).
const _: () = assert!(size_of::<Counters>() <= 32 * 1024);
const _: () = assert!(size_of::<Counters>().is_multiple_of(8));

#[cfg(feature = "user")]
mod user {
    // SAFETY: Counters is repr(C) and holds nothing but u64s: no padding, no invalid value.
    unsafe impl aya::Pod for super::Counters {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_reaches_every_counter() {
        const WORDS: usize = size_of::<Counters>() / 8;
        // SAFETY: Counters is nothing but u64s, so any words are a valid one.
        let ones: Counters = unsafe { std::mem::transmute([1_u64; WORDS]) };
        let mut sum = ones;
        sum.add(&ones);
        // SAFETY: as above, the other way round.
        let words: [u64; WORDS] = unsafe { std::mem::transmute(sum) };
        assert_eq!(words, [2; WORDS]);
    }
}

//! What a census counts: the sockets of one network namespace at one moment.

use crate::state::STATE_COUNT;

/// The counts of one pass over a namespace; the agent sets them to zero before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CensusCounts {
    /// Sockets by state as `ss` shows them: a request minisocket is in `SYN_RECV`, a timewait
    /// minisocket in its substate.
    pub states: [u64; STATE_COUNT],
    /// Full sockets that no process holds any more (`SOCK_DEAD`), by state.
    pub orphans: [u64; STATE_COUNT],
    /// Timewait minisockets, of both substates.
    pub minisockets: u64,
}

impl CensusCounts {
    /// No socket.
    pub const ZERO: Self = Self {
        states: [0; STATE_COUNT],
        orphans: [0; STATE_COUNT],
        minisockets: 0,
    };

    /// Adds another namespace's.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in self.states.iter_mut().zip(other.states) {
            *into += from;
        }
        for (into, from) in self.orphans.iter_mut().zip(other.orphans) {
            *into += from;
        }
        self.minisockets += other.minisockets;
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: CensusCounts is repr(C) and holds nothing but u64s.
    unsafe impl aya::Pod for super::CensusCounts {}
}

//! An immutable picture of what is known, published whole. Every output reads only this.

use std::{sync::Arc, time::Duration};

use agent_ebpf::{
    close::CAUSE_COUNT,
    counters::Histogram,
    duration::TIMED_STATES,
    programs::CENSUS_TCP,
    retransmit::{Packet, Trigger},
    state::STATE_COUNT,
};

use crate::{
    census::Census, detectors::Findings, kernel::ProgramReport, series::Rows, web::RefusalCounts,
};

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// When: CLOCK_MONOTONIC.
    pub at: Duration,
    /// The agent's version.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// Transitions `[from][to]` by kernel number.
    pub transitions: [[u64; STATE_COUNT]; STATE_COUNT],
    /// Times in state, in the order of [`TIMED_STATES`].
    pub durations: [Histogram; TIMED_STATES.len()],
    /// Closes by cause, late revisions settled.
    pub closes: [u64; CAUSE_COUNT],
    /// Retransmitted segments `[state][packet][trigger]`.
    pub retransmits: [[[u64; Trigger::ALL.len()]; Packet::ALL.len()]; STATE_COUNT],
    /// Connections and requests that the HTTP servers have turned away.
    pub refused: RefusalCounts,
    /// Records received.
    pub events: u64,
    /// Records and sockets lost.
    pub lost: Losses,
    /// The last census; nothing before the first.
    pub census: Option<Arc<Census>>,
    /// How long censuses took.
    pub census_durations: CensusDurations,
    /// What the last census shows.
    pub findings: Arc<Findings>,
    /// The series with labels that had to be bounded.
    pub rows: Arc<Rows>,
    /// Connects that the programs had no room to tell apart.
    pub connects_untold: u64,
    /// Sockets remembered between two transitions.
    pub socket_entries: u64,
    /// How many there is room for.
    pub socket_capacity: u32,
    /// The programs.
    pub programs: Vec<ProgramReport>,
    /// Whether the kernel keeps run counts and times.
    pub bpf_stats: bool,
}

impl View {
    /// Whether every number there will be is there: after the first census, if there are any.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let counts = |report: &ProgramReport| {
            report.program.name == CENSUS_TCP && report.verdict.is_attached()
        };
        self.census.is_some() || !self.programs.iter().any(counts)
    }

    /// Orphans that the kernel killed, in all namespaces; nothing before the first census.
    #[must_use]
    pub fn orphan_kills(&self) -> Option<u64> {
        let mut mibs = self.rows.mibs.iter();
        mibs.find_map(|(name, count)| (*name == "TCPAbortOnMemory").then_some(*count))
    }
}

/// How long the passes of censuses took.
#[derive(Clone, Copy, Debug)]
pub struct CensusDurations {
    /// The full passes of one census together.
    pub full: Histogram,
    /// The quick pass over the sockets that the programs know.
    pub known: Histogram,
}

impl Default for CensusDurations {
    fn default() -> Self {
        Self {
            full: Histogram::ZERO,
            known: Histogram::ZERO,
        }
    }
}

/// What was lost, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// Sockets that found no room to be remembered in.
    pub state_full: u64,
    /// Records the agent could not decode: a bug.
    pub malformed: u64,
    /// Events that reached the agent, and that who listened was too slow for.
    pub slow_listener: u64,
}

//! What is known, gathered from the counters and the stream.
//!
//! Plain data in, plain data out; the clock is an argument.

use std::{sync::Arc, time::Duration};

use agent_ebpf::{
    close::{CAUSE_COUNT, Revision},
    counters::Counters,
};

use crate::{
    census::Census,
    decode::{DecodeError, Event},
    detectors::{Findings, Thresholds, detect},
    kernel::ProgramReport,
    series::{Bounds, Rows, Series},
    view::{CensusDurations, Losses, View},
    web::RefusalCounts,
};

/// How long after a close the RST that revises its cause may come. It is sent by the same CPU
/// within the same packet's processing; this is what even a stalled guest's CPU needs not.
const REVISION_GRACE: Duration = Duration::from_millis(100);

/// What the agent is told before it begins.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Its version.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// Whether the kernel keeps BPF statistics.
    pub bpf_stats: bool,
    /// Sockets that can be remembered between two transitions.
    pub socket_capacity: u32,
    /// From when on a socket stalls.
    pub thresholds: Thresholds,
    /// How many label sets a family may have.
    pub bounds: Bounds,
}

/// What those who ask and listen did not get since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Connections and requests that the HTTP servers turned away.
    pub refused: RefusalCounts,
    /// Events that listeners were too slow for.
    pub unheard: u64,
}

/// Everything the agent knows.
#[derive(Debug)]
pub struct Model {
    setup: Setup,
    counters: Counters,
    causes: Causes,
    programs: Vec<ProgramReport>,
    census: Option<Arc<Census>>,
    census_durations: CensusDurations,
    findings: Arc<Findings>,
    series: Series,
    rows: Arc<Rows>,
    served: Served,
    events: u64,
    malformed: u64,
}

impl Model {
    /// Nothing known but that.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            series: Series::new(setup.bounds),
            setup,
            counters: Counters::ZERO,
            causes: Causes::default(),
            programs: Vec::new(),
            census: None,
            census_durations: CensusDurations::default(),
            findings: Arc::default(),
            rows: Arc::default(),
            served: Served::default(),
            events: 0,
            malformed: 0,
        }
    }

    /// Takes in one record of the stream.
    pub fn record(&mut self, event: Result<Event, DecodeError>) {
        self.events += 1;
        if event.is_err() {
            self.malformed += 1;
        }
    }

    /// Takes in what the programs have counted by `now`.
    pub fn count(&mut self, now: Duration, counters: Counters, programs: Vec<ProgramReport>) {
        self.causes.count(now, &counters);
        self.counters = counters;
        self.programs = programs;
    }

    /// Takes in what those who ask and listen did not get so far.
    pub fn serve(&mut self, served: Served) {
        self.served = served;
    }

    /// Takes in a census, which replaces the one before it.
    pub fn census(&mut self, census: Census) {
        let durations = &mut self.census_durations;
        // Where full passes take turns, some censuses have none.
        if census.full_took > Duration::ZERO {
            durations.full.observe(census.full_took);
        }
        if let Some(took) = census.known_took {
            durations.known.observe(took);
        }
        let before = self.census.as_deref();
        let findings = detect(&census, before, &self.setup.thresholds);
        self.series.update(&census, &findings);
        self.rows = Arc::new(self.series.rows(&census));
        self.findings = Arc::new(findings.told());
        self.census = Some(Arc::new(census));
    }

    /// What is known.
    #[must_use]
    pub fn view(&self, now: Duration) -> View {
        View {
            at: now,
            version: self.setup.version,
            kernel: self.setup.kernel.clone(),
            transitions: self.counters.transitions,
            durations: self.counters.durations,
            closes: self.causes.settled,
            retransmits: self.counters.retransmits,
            refused: self.served.refused,
            events: self.events,
            lost: Losses {
                ring_full: self.counters.lost_ring_full,
                state_full: self.counters.lost_state_full,
                malformed: self.malformed,
                slow_listener: self.served.unheard,
            },
            census: self.census.clone(),
            census_durations: self.census_durations,
            findings: Arc::clone(&self.findings),
            rows: Arc::clone(&self.rows),
            connects_untold: self.counters.connects_untold,
            socket_entries: socket_entries(&self.counters),
            socket_capacity: self.setup.socket_capacity,
            programs: self.programs.clone(),
            bpf_stats: self.setup.bpf_stats,
        }
    }
}

/// Entries taken and not given back. The two are read one CPU after the other, so that one may
/// seem given back before it was taken.
fn socket_entries(counters: &Counters) -> u64 {
    counters
        .sockets_claimed
        .saturating_sub(counters.sockets_released)
}

type Closes = [u64; CAUSE_COUNT];

/// Close causes with their revisions settled, as counters that never fall.
///
/// A close is counted at its event, its revision an instant later, and a sample may fall between
/// the two. So a cause that can be revised shows only the closes old enough for their revisions
/// to have been counted: never too many, and exact once the grace has passed.
#[derive(Debug, Default)]
struct Causes {
    /// Closes as told at an earlier moment, at least the grace ago once there is one.
    ripe: Option<(Duration, Closes)>,
    /// The sample that becomes ripe next.
    ripening: Option<(Duration, Closes)>,
    settled: Closes,
}

impl Causes {
    fn count(&mut self, now: Duration, counters: &Counters) {
        let told = counters.closes;
        let is_ripe = |(at, _): &(Duration, Closes)| now.saturating_sub(*at) >= REVISION_GRACE;
        if self.ripening.as_ref().is_none_or(is_ripe) {
            if self.ripening.is_some() {
                self.ripe = self.ripening.take();
            }
            self.ripening = Some((now, told));
        }
        let ripe = self.ripe.map_or([0; CAUSE_COUNT], |(_, closes)| closes);
        let mut causes = told;
        for revision in Revision::ALL {
            let (from, _) = revision.causes();
            causes[from as usize] = ripe[from as usize];
        }
        for revision in Revision::ALL {
            let count = counters.revisions[revision as usize];
            let (from, to) = revision.causes();
            causes[from as usize] = causes[from as usize].saturating_sub(count);
            causes[to as usize] += count;
        }
        for (settled, cause) in self.settled.iter_mut().zip(causes) {
            *settled = (*settled).max(cause);
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;

//! What the agent has counted, held against what the kernel emitted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{http::Scrape, http::number, netns::Netns, place::own_descriptors};
use tests::{
    place::{Family, Place},
    session::Session,
    ways::reset::LINGER_ZERO,
};

use super::scene::{Scene, patiently};

const LOST: &str = "connstate_events_lost_total{reason=\"ring_full\"}";
const MISSES: &str = "connstate_bpf_program_misses_total{program=\"inet_sock_set_state\"}";

/// As long as counters must stand still before all is in them: the agent reads them every 250 ms.
const QUIET: Duration = Duration::from_secs(1);

/// Makes so many connections that are reset. How many transitions that emits.
pub(super) fn emit(netns: &Netns, connections: usize) -> Result<u64> {
    netns.run(|| {
        own_descriptors()?;
        (LINGER_ZERO.go)(&Place::new(Family::V4), connections)?;
        Ok((LINGER_ZERO.leaves)(connections).total())
    })
}

/// The agent's counters, scrape after scrape.
pub(super) struct Account {
    last: Scrape,
}

/// The sums that must agree.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    /// Transitions counted.
    counted: f64,
    /// Transitions that the kernel ran no program for.
    missed: f64,
    /// Transitions and retransmissions, each of which is a record.
    told: f64,
    /// Records that came, and those that found no room.
    received: f64,
    lost: f64,
}

impl Account {
    /// From what the agent told before anything happened.
    pub(super) fn new(scene: &Scene) -> Self {
        Self {
            last: scene.before.clone(),
        }
    }

    /// What `emit` says it emitted is counted or missed, to the unit; each record was received or
    /// lost; and no counter fell since the last time.
    pub(super) fn is_exact(
        &mut self,
        scene: &Scene,
        what: &str,
        emit: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        // One connection for all questions, for each is counted, too.
        let mut session = Session::open(scene.daemon.address())?;
        let before = self.settled(&mut session)?;
        let emitted = emit()?;
        let after = self.settled(&mut session).context(what.to_owned())?;
        let counted = after.counted - before.counted;
        let missed = after.missed - before.missed;
        eprintln!(
            "{what}: {emitted} emitted, {counted} counted, {missed} missed; {} told, {} received, \
             {} lost",
            after.told, after.received, after.lost
        );
        let accounted = counted + missed;
        ensure!(
            (accounted - number(emitted)).abs() < f64::EPSILON,
            "{what}: {accounted} of {emitted} accounted for"
        );
        ensure!(
            (after.told - after.received - after.lost).abs() < f64::EPSILON,
            "{what}: {after:?}"
        );
        Ok(())
    }

    /// The sums, once they stand still.
    fn settled(&mut self, session: &mut Session) -> Result<Sums> {
        let (mut last, mut since) = (Sums::default(), Instant::now());
        patiently("counters that stand still", || {
            let scrape = session.scrape()?;
            none_fell(&self.last, &scrape)?;
            let sums = Sums::of(&scrape)?;
            self.last = scrape;
            if sums != last {
                (last, since) = (sums, Instant::now());
            }
            Ok(since.elapsed() > QUIET)
        })?;
        Ok(last)
    }
}

impl Sums {
    fn of(scrape: &Scrape) -> Result<Self> {
        let counted = scrape.sum("connstate_state_transitions_total", "");
        Ok(Self {
            counted,
            missed: scrape.value(MISSES)?,
            told: counted + scrape.sum("connstate_retransmits_total", ""),
            received: scrape.value("connstate_events_total")?,
            lost: scrape.value(LOST)?,
        })
    }
}

/// No counter is lower than it was, or gone.
fn none_fell(before: &Scrape, after: &Scrape) -> Result<()> {
    for (series, before) in &before.0 {
        let name = series.split('{').next().unwrap_or_default();
        if name.ends_with("_total") {
            let after = after.value(series)?;
            ensure!(after >= *before, "{series} fell from {before} to {after}");
        }
    }
    Ok(())
}

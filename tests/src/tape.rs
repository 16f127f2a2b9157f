//! The records of one test, drained as the agent drains them.

use std::{thread, time::Duration};

use agent::{
    clock::monotonic,
    decode::{Event, Transition, decode},
    stream,
};
use agent_ebpf::state::{STATE_COUNT, TcpState};
use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};

/// As the engine's, while records come.
const PAUSE: Duration = Duration::from_millis(20);
/// As the engine's.
const TURN: usize = 65_536;

/// Counts of the records drained.
#[derive(Debug, Default)]
pub struct Tally {
    /// All.
    pub received: u64,
    /// Transitions `[from][to]`.
    pub transitions: [[u64; STATE_COUNT]; STATE_COUNT],
    /// Retransmissions.
    pub retransmits: u64,
}

/// Drains `ring` until `over`, which is told what there was so far, says so, and then what is left.
///
/// # Errors
///
/// Where a record cannot be decoded.
pub fn tally(ring: &mut RingBuf<MapData>, over: impl Fn(&Tally) -> bool) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let last = over(&tally);
        let mut failed = None;
        while stream::drain(ring, TURN, |record| {
            tally.received += 1;
            match decode(record, monotonic()) {
                Ok(Event::Transition(transition)) => {
                    let (from, to) = (transition.from as usize, transition.to as usize);
                    tally.transitions[from][to] += 1;
                }
                Ok(Event::Retransmit(_)) => tally.retransmits += 1,
                Err(error) => failed = Some(error),
            }
        }) == TURN
        {}
        if let Some(error) = failed {
            return Err(error).context("a record cannot be decoded");
        }
        if last {
            return Ok(tally);
        }
        thread::sleep(PAUSE);
    }
}

/// The transitions that `ring` holds, oldest first.
///
/// # Errors
///
/// Where a record cannot be decoded.
pub fn transitions(ring: &mut RingBuf<MapData>) -> Result<Vec<Transition>> {
    let mut found = Vec::new();
    let mut take = |record: &[u8]| found.push(decode(record, monotonic()));
    stream::drain(ring, usize::MAX, &mut take);
    let mut transitions = Vec::new();
    for event in found {
        if let Event::Transition(transition) = event.context("a record cannot be decoded")? {
            transitions.push(transition);
        }
    }
    Ok(transitions)
}

/// The steps of one socket among them, as told.
#[must_use]
pub fn steps(transitions: &[Transition]) -> Vec<(TcpState, TcpState)> {
    transitions
        .iter()
        .map(|transition| (transition.from, transition.to))
        .collect()
}

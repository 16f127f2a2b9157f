//! Every transition is counted: tens of thousands of connections that end in every way at once,
//! compared with what these ways must leave.

use std::{panic::resume_unwind, thread};

use anyhow::{Result, ensure};
use tests::{
    exact::{Before, Unsupported},
    netns::Netns,
    place::{Family, Place, own_descriptors},
    trace::Trace,
    watch::Watch,
    ways::{DELAYED, FAST, SLOW, Way},
};

const CONNECTIONS: usize = 50_000;
/// Connections that are open at once on one port.
const BATCH: usize = 250;
/// Connections of each way that waits.
const FEW: usize = 100;

/// Misses are those of the whole host, and see `Skipped::unseen`: so many runs show one in which
/// the books balance.
const ATTEMPTS: usize = 30;

#[test]
fn every_transition_is_counted_or_missed() -> Result<()> {
    for attempt in 1..=ATTEMPTS {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        let before = Before::now(&watch)?;
        let (connections, predicted) = all_ways(&netns)?;
        let skipped = before.settle(&watch, predicted.total())?;
        let counters = watch.counters()?;
        let counted = Trace::of(&watch.settled()?);
        let (emitted, total) = (predicted.total(), counted.total());
        eprintln!("{connections} connections: {emitted} transitions, {total} counted, {skipped:?}");
        let differences = predicted.differences(&counted);
        ensure!(counters.lost_state_full == 0, "sockets found no room");
        ensure!(counted.is_within(&predicted), "{differences:#?}");
        if skipped.is_none() {
            ensure!(counted == predicted, "{differences:#?}");
        }
        if emitted - total == skipped.transitions {
            return Ok(());
        }
        eprintln!("run {attempt} is repeated: {differences:#?}");
    }
    anyhow::bail!("transitions were lost without a trace in each of {ATTEMPTS} runs")
}

/// Makes [`CONNECTIONS`] go all ways, those that wait beside those that do not.
fn all_ways(netns: &Netns) -> Result<(usize, Trace)> {
    let waiting: Vec<&Way> = DELAYED.iter().chain(SLOW).collect();
    let rest = CONNECTIONS - waiting.len() * FEW;
    let rounds = rest.div_ceil(FAST.len() * BATCH);
    thread::scope(|scope| {
        let waiting = waiting.iter().enumerate().map(|(number, way)| {
            scope.spawn(move || {
                netns.run(|| {
                    own_descriptors()?;
                    go(way, number, FEW)
                })
            })
        });
        let mut threads: Vec<_> = waiting.collect();
        threads.push(scope.spawn(move || {
            netns.run(|| {
                own_descriptors()?;
                let mut sum = (0, Trace::NONE);
                for round in 0..rounds {
                    for way in FAST {
                        add(&mut sum, &go(way, round, BATCH)?);
                    }
                }
                Ok(sum)
            })
        }));
        let mut sum = (0, Trace::NONE);
        for thread in threads {
            let gone = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            add(&mut sum, &gone);
        }
        Ok(sum)
    })
}

fn add(sum: &mut (usize, Trace), more: &(usize, Trace)) {
    sum.0 += more.0;
    sum.1 = sum.1.and(more.1);
}

/// Goes `way` and tells how many connections went it, and what they leave.
fn go(way: &Way, number: usize, n: usize) -> Result<(usize, Trace)> {
    let family = Family::ALL[number % Family::ALL.len()];
    match (way.go)(&Place::new(family), n) {
        Ok(()) => Ok((n, (way.leaves)(n))),
        Err(error) => match error.downcast_ref::<Unsupported>() {
            Some(unsupported) => {
                eprintln!("skipped: {}: {unsupported}", way.name);
                // Its listener was opened before this was found out.
                Ok((0, Trace::listener()))
            }
            None => Err(error.context(way.name)),
        },
    }
}

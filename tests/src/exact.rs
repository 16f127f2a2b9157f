//! Compares what was counted with what must have been, to the unit.

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::{
    netns::Netns,
    place::{Family, Place, own_descriptors},
    trace::{Trace, total},
    wait,
    watch::Watch,
    ways::Way,
};

/// Runs in which the kernel skipped a program are repeated, so often at most.
const ATTEMPTS: usize = 10;

/// What this kernel cannot do.
#[derive(Debug)]
pub struct Unsupported(pub &'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Unsupported {}

/// Makes `n` connections of each family go `way` in a namespace of their own, and compares every
/// transition and every cause with the prediction.
///
/// # Errors
///
/// Where one differs in a run without a miss, or the way cannot be gone.
pub fn exactly(way: &Way, n: usize) -> Result<()> {
    let families = Family::ALL;
    let predicted = (way.leaves)(n).times(families.len());
    for attempt in 1..=ATTEMPTS {
        let netns = Netns::new()?;
        let watch = Watch::new(&netns)?;
        // RSTs revise causes, so neither program may be skipped.
        let resets_missed = watch.misses_of("tcp_send_reset")?;
        let misses = watch.misses()?;
        let gone = std::thread::scope(|scope| {
            let going = families.map(|family| {
                let netns = &netns;
                scope.spawn(move || {
                    netns.run(|| {
                        own_descriptors()?;
                        (way.go)(&Place::new(family), n)
                    })
                })
            });
            going.into_iter().try_for_each(|gone| {
                gone.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        if let Some(unsupported) = gone
            .as_ref()
            .err()
            .and_then(|e| e.downcast_ref::<Unsupported>())
        {
            eprintln!("skipped: {}: {unsupported}", way.name);
            return Ok(());
        }
        gone?;
        let missed = settle(&watch, predicted.total(), misses)?;
        let missed = missed + watch.misses_of("tcp_send_reset")? - resets_missed;
        let counted = Trace::of(&watch.settled()?);
        if missed == 0 {
            ensure!(
                counted == predicted,
                "{} left another trace: {:#?}\ncounted: {counted:#?}",
                way.name,
                predicted.differences(&counted)
            );
            return Ok(());
        }
        eprintln!(
            "{}: run {attempt} had {missed} misses, and is repeated",
            way.name
        );
    }
    bail!("{} had misses in each of {ATTEMPTS} runs", way.name)
}

/// Waits until as many transitions as `emitted` are counted or missed, and tells how often a
/// program was missed since `misses`.
///
/// # Errors
///
/// Where counters cannot be read. That there are too few is for the caller to find.
pub fn settle(watch: &Watch, emitted: u64, misses: u64) -> Result<u64> {
    let _too_few = wait::until("all transitions", || {
        let missed = watch.misses()? - misses;
        Ok(total(&watch.counters()?) + missed >= emitted)
    });
    Ok(watch.misses()? - misses)
}

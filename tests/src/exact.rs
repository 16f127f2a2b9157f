//! Compares what was counted with what must have been, to the unit.

use std::{
    fmt,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    netns::Netns,
    place::{Family, Place, own_descriptors},
    trace::{Trace, total},
    wait,
    watch::Watch,
    ways::Way,
};

/// How long nothing is counted before a test gives up on transitions that are still missing.
/// Longer than what any way leaves to come: a retransmission.
const QUIET: Duration = Duration::from_secs(2);

/// Runs in which the kernel skipped a program are repeated, so often at most.
const ATTEMPTS: usize = 30;

/// So often with all families at once and as many connections as were asked for. A kernel that
/// preempts programs may skip some in every run of so many, above all where it is emulated.
const WHOLE: usize = 2;

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
/// transition and every cause with the prediction. Where the kernel skips programs again and again
/// it is fewer and fewer, of each family by itself, down to one.
///
/// # Errors
///
/// Where one differs in a run without a miss, or the way cannot be gone.
pub fn exactly(way: &Way, n: usize) -> Result<()> {
    exactly_of(way, n, &Family::ALL)
}

/// The same of these families alone.
///
/// # Errors
///
/// As above.
pub fn exactly_of(way: &Way, n: usize, families: &[Family]) -> Result<()> {
    let mut gone = repeated(WHOLE, |_| go(way, n, families));
    if matches!(gone, Ok(false)) {
        gone = families.iter().try_fold(true, |all, family| {
            let fewer = |attempt: usize| go(way, (n >> attempt).max(1), &[*family]);
            Ok(all && repeated(ATTEMPTS, fewer)?)
        });
    }
    match gone {
        Err(error) if error.is::<Unsupported>() => {
            eprintln!("skipped: {}: {error}", way.name);
            Ok(())
        }
        gone => found(gone).context(way.name),
    }
}

/// One run.
fn go(way: &Way, n: usize, families: &[Family]) -> Result<Skipped> {
    let predicted = (way.leaves)(n).times(families.len());
    let netns = Netns::new()?;
    let watch = Watch::new(&netns)?;
    let before = Before::now(&watch)?;
    thread::scope(|scope| {
        let start = |family: &Family| {
            let (netns, place) = (&netns, Place::new(*family));
            scope.spawn(move || {
                netns.run(|| {
                    own_descriptors()?;
                    (way.go)(&place, n)
                })
            })
        };
        let going: Vec<_> = families.iter().map(start).collect();
        going
            .into_iter()
            .try_for_each(|gone| gone.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    let skipped = before.settle(&watch, predicted.total())?;
    if skipped.is_none() {
        predicted.compare(&watch)?;
    }
    Ok(skipped)
}

/// Repeats `run` until the kernel skipped no program in it: a skipped one counted, told and
/// revised nothing.
///
/// # Errors
///
/// Those of `run`, or where programs were skipped in every run.
pub fn unskipped(run: impl Fn() -> Result<Skipped>) -> Result<()> {
    found(repeated(ATTEMPTS, |_| run()))
}

/// Whether one of so many runs, which are told their number from 1 on, had no program skipped.
fn repeated(attempts: usize, run: impl Fn(usize) -> Result<Skipped>) -> Result<bool> {
    for attempt in 1..=attempts {
        let skipped = run(attempt)?;
        if skipped.is_none() {
            return Ok(true);
        }
        eprintln!("run {attempt} is repeated: {skipped:?}");
    }
    Ok(false)
}

/// That there was such a run.
fn found(run: Result<bool>) -> Result<()> {
    ensure!(run?, "programs were skipped in each of {ATTEMPTS} runs");
    Ok(())
}

/// How often the programs that tell causes were skipped before a test began.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    transitions: u64,
    resets: u64,
}

/// How often they were skipped since, on the whole host.
#[derive(Clone, Copy, Debug)]
pub struct Skipped {
    /// `inet_sock_set_state`: transitions not counted.
    pub transitions: u64,
    /// `tcp_send_reset`: causes not revised.
    pub resets: u64,
    /// Transitions predicted that were neither counted nor told as skipped. There are kernels that
    /// run no program, and tell of none skipped, while a process they protect is the current one,
    /// even where a packet only interrupts it; tracefs shows these transitions.
    pub unseen: u64,
}

impl Skipped {
    /// Whether none was.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.transitions == 0 && self.resets == 0 && self.unseen == 0
    }
}

impl Before {
    /// The present number.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn now(watch: &Watch) -> Result<Self> {
        Ok(Self {
            transitions: watch.misses()?,
            resets: watch.misses_of("tcp_send_reset")?,
        })
    }

    /// How often they were skipped since.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell.
    pub fn skipped(self, watch: &Watch) -> Result<Skipped> {
        Ok(Skipped {
            transitions: watch.misses()? - self.transitions,
            resets: watch.misses_of("tcp_send_reset")? - self.resets,
            unseen: 0,
        })
    }

    /// Waits until as many transitions as `emitted` are counted or skipped, or for [`QUIET`] none.
    ///
    /// # Errors
    ///
    /// Where counters cannot be read.
    pub fn settle(self, watch: &Watch, emitted: u64) -> Result<Skipped> {
        let (mut last, mut since) = (0, Instant::now());
        wait::until("all transitions", || {
            let accounted = total(&watch.counters()?) + self.skipped(watch)?.transitions;
            if accounted != last {
                (last, since) = (accounted, Instant::now());
            }
            Ok(accounted >= emitted || since.elapsed() > QUIET)
        })?;
        let unseen = emitted.saturating_sub(last);
        if unseen > 0 {
            let counted = Trace::of(&watch.settled()?);
            eprintln!("{unseen} of {emitted} transitions are missing: {counted:#?}");
        }
        let skipped = self.skipped(watch)?;
        Ok(Skipped { unseen, ..skipped })
    }
}

//! The stream of records: every transition wanted arrives or is counted as lost.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use agent::kernel::Options;
use agent_ebpf::{
    counters::Counters, maps::RING_BYTES, record::StreamMode, stream::StreamSettings,
};
use anyhow::{Result, ensure};
use aya::maps::{MapData, RingBuf};
use tests::{
    exact::Before,
    netns::Netns,
    place::{Family, Place, own_descriptors},
    tape::{Tally, tally},
    wait::until,
    watch::{Watch, all_transitions},
    ways::graceful::FULL_CLOSE,
};

const BATCH: usize = 500;
const THREADS: usize = 2;

/// What a record takes in the ring: 64 bytes and a header of 8.
const RECORD_BYTES: u32 = 72;

#[test]
fn a_drained_ring_loses_nothing() -> Result<()> {
    // Each thread goes on where no more than this is left to drain; what both then make, ten
    // records a connection and a few more, fits into the other half.
    const BEHIND: u32 = RING_BYTES / RECORD_BYTES / 2;
    const { assert!(THREADS * BATCH * 12 < BEHIND as usize) };
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, RING_BYTES))?;
    let mut ring = watch.kernel().take_ring()?;
    let (over, received, waits) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let keeps_up = |watch: &Watch| {
        let sent = watch.counters()?.records_sent;
        Ok(sent.saturating_sub(received.load(Ordering::Acquire)) <= u64::from(BEHIND))
    };
    let tally = thread::scope(|scope| {
        let drainer = scope.spawn(|| {
            tally(&mut ring, |tally| {
                received.store(tally.received, Ordering::Release);
                over.load(Ordering::Acquire)
            })
        });
        // Whoever holds up the drainer holds up the rest.
        let churned = churn(&netns, &watch, 100_000, || {
            if !keeps_up(&watch)? {
                waits.fetch_add(1, Ordering::Relaxed);
                until("the drainer", || keeps_up(&watch))?;
            }
            Ok(())
        });
        over.store(true, Ordering::Release);
        let tally = drainer.join().unwrap_or_else(|panic| resume_unwind(panic));
        churned.and(tally)
    })?;
    eprintln!("the drainer was waited for {} times", waits.into_inner());
    let counters = watch.counters()?;
    let wanted = account(&counters, &tally)?;
    let lost = counters.lost_ring_full;
    ensure!(lost == 0, "{lost} of {wanted} records were lost");
    ensure!(
        wanted * u64::from(RECORD_BYTES) > 10 * u64::from(RING_BYTES),
        "{wanted} records do not go round the ring"
    );
    Ok(())
}

#[test]
fn a_full_ring_loses_and_says_so() -> Result<()> {
    const PAGE: u32 = 4096;
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, PAGE))?;
    let mut ring: RingBuf<MapData> = watch.kernel().take_ring()?;
    churn(&netns, &watch, 5_000, || Ok(()))?;
    let tally = tally(&mut ring, |_| true)?;
    let counters = watch.counters()?;
    let wanted = account(&counters, &tally)?;
    ensure!(
        tally.received == u64::from(PAGE / RECORD_BYTES),
        "{} fitted",
        tally.received
    );
    ensure!(counters.lost_ring_full == wanted - tally.received);
    Ok(())
}

/// Opens and closes `n` connections, on several threads, each of which begins a batch once `ready`,
/// and waits for the last transition.
fn churn(
    netns: &Netns,
    watch: &Watch,
    n: usize,
    ready: impl Fn() -> Result<()> + Sync,
) -> Result<()> {
    let before = Before::now(watch)?;
    let each = n / THREADS / BATCH;
    let ready = &ready;
    thread::scope(|scope| {
        let threads = [Family::V4, Family::V6].map(|family| {
            scope.spawn(move || {
                netns.run(|| {
                    own_descriptors()?;
                    (0..each).try_for_each(|_| {
                        ready()?;
                        (FULL_CLOSE.go)(&Place::new(family), BATCH)
                    })
                })
            })
        });
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })?;
    let predicted = (FULL_CLOSE.leaves)(BATCH).times(each * THREADS);
    before.settle(watch, predicted.total())?;
    Ok(())
}

/// Balances the books: what was wanted was sent or lost, what was sent was received, and nothing
/// was received that was not counted. Tells how many records were wanted.
fn account(counters: &Counters, tally: &Tally) -> Result<u64> {
    let mut wanted = 0;
    let mut absent = 0;
    for (from, row) in counters.transitions.iter().enumerate() {
        for (to, count) in row.iter().enumerate() {
            // A self-transition is no change, and makes no record.
            let count = if from == to { 0 } else { *count };
            let received = tally.transitions[from][to];
            ensure!(received <= count, "{from} -> {to}: {received} of {count}");
            wanted += count;
            absent += count - received;
        }
    }
    // A FIN whose acknowledgement is dropped may be sent again, which is a record too.
    let segments = counters.retransmits.as_flattened().as_flattened();
    wanted += segments.iter().sum::<u64>();
    absent += segments.iter().sum::<u64>() - tally.retransmits;
    let (sent, lost) = (counters.records_sent, counters.lost_ring_full);
    let received = tally.received;
    eprintln!("{wanted} records wanted: {sent} sent, {lost} lost, {received} received");
    ensure!(sent + lost == wanted && received == sent && absent == lost);
    Ok(wanted)
}

#[path = "stream/content.rs"]
mod content;
#[path = "stream/modes.rs"]
mod modes;

fn options(netns: &Netns, stream: StreamMode) -> Options {
    Options {
        stream: StreamSettings::own(stream),
        ..all_transitions(netns, RING_BYTES)
    }
}

//! The stream of records: every transition wanted arrives or is counted as lost.

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
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
    watch::{Watch, all_transitions},
    ways::graceful::FULL_CLOSE,
};

const BATCH: usize = 500;
const THREADS: usize = 2;

#[test]
fn a_drained_ring_loses_next_to_nothing() -> Result<()> {
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, RING_BYTES))?;
    let mut ring = watch.kernel().take_ring()?;
    let over = AtomicBool::new(false);
    let tally = thread::scope(|scope| {
        let drainer = scope.spawn(|| tally(&mut ring, || over.load(Ordering::Acquire)));
        let churned = churn(&netns, &watch, 100_000);
        over.store(true, Ordering::Release);
        let tally = drainer.join().unwrap_or_else(|panic| resume_unwind(panic));
        churned.and(tally)
    })?;
    let counters = watch.counters()?;
    let wanted = account(&counters, &tally)?;
    let lost = counters.lost_ring_full;
    ensure!(
        lost <= wanted / 1_000,
        "{lost} of {wanted} records were lost"
    );
    Ok(())
}

#[test]
fn a_full_ring_loses_and_says_so() -> Result<()> {
    const PAGE: u32 = 4096;
    let netns = Netns::new()?;
    let mut watch = Watch::with(&all_transitions(&netns, PAGE))?;
    let mut ring: RingBuf<MapData> = watch.kernel().take_ring()?;
    churn(&netns, &watch, 5_000)?;
    let tally = tally(&mut ring, || true)?;
    let counters = watch.counters()?;
    let wanted = account(&counters, &tally)?;
    // 64 bytes and a header of 8 each.
    ensure!(
        tally.received == u64::from(PAGE / 72),
        "{} fitted",
        tally.received
    );
    ensure!(counters.lost_ring_full == wanted - tally.received);
    Ok(())
}

/// Opens and closes `n` connections, on several threads, and waits for the last transition.
fn churn(netns: &Netns, watch: &Watch, n: usize) -> Result<()> {
    let before = Before::now(watch)?;
    let each = n / THREADS / BATCH;
    thread::scope(|scope| {
        let threads = [Family::V4, Family::V6].map(|family| {
            scope.spawn(move || {
                netns.run(|| {
                    own_descriptors()?;
                    (0..each).try_for_each(|_| (FULL_CLOSE.go)(&Place::new(family), BATCH))
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

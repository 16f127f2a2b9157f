//! Drains the ring buffer.

use aya::maps::{MapData, RingBuf};

/// Hands over at most `limit` records of the ring to `take`, oldest first, and says how many.
///
/// The kernel never waits for the agent: what finds no room is counted there as lost. The limit
/// keeps one turn of the engine bounded while the programs write as fast as it reads.
pub fn drain(ring: &mut RingBuf<MapData>, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
    let mut drained = 0;
    while drained < limit
        && let Some(record) = ring.next()
    {
        take(&record);
        drained += 1;
    }
    drained
}

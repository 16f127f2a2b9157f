//! From programs of its own, where no agent runs.

use std::time::Duration;

use agent_ebpf::{record::StreamMode, stream::StreamSettings};
use anyhow::Result;
use aya::maps::{MapData, RingBuf};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Count, line::Style, output::Output};
use crate::{
    api::{event::EventLine, events::EventsQuery},
    cli::EventsArgs,
    clock,
    decode::{Event, decode},
    feed::{Told, Wish},
    kernel::{Kernel, Options, ProcessNames, missed},
    stream,
};

/// How often the ring is drained.
const TURN: Duration = Duration::from_millis(10);

/// Records taken in one turn at most.
const RECORDS: usize = 65_536;

/// Bytes that are handed to the output at a time.
const PIECE: usize = 256 * 1024;

/// Records of a piece, about: a line takes less than 512 bytes.
const RECORDS_OF_PIECE: usize = PIECE / 512;

/// How long it goes on, once it is told to stop, to print what is in the ring already.
const FAREWELL: Duration = Duration::from_millis(500);

/// How often losses are looked for, in turns.
const LOSSES_EVERY: u32 = 50;

/// Prints what happens, until `stop` or the end of whoever reads.
pub(super) async fn print(
    args: &EventsArgs,
    query: &EventsQuery,
    style: Style,
    output: &mut Output,
    stop: impl Future<Output = ()>,
) -> Result<Count> {
    let wish = query.wish().map_err(anyhow::Error::msg)?;
    let mut kernel = Kernel::load(&Options {
        stream: StreamSettings {
            listeners: wish.mode as u32,
            marked_cgroup: wish.filter.cgroup,
            filter: wish.filter,
            ..StreamSettings::own(StreamMode::Late)
        },
        ring_bytes: args.ring_bytes,
        ..Options::default()
    })?;
    let mut ring = kernel.take_ring()?;
    let mut teller = Teller {
        wish,
        style,
        names: kernel.process_names()?,
        counted: Count::default(),
        malformed: 0,
        left: 0,
    };
    eprintln!("no agent runs: listening with programs of its own");
    let mut stop = std::pin::pin!(stop);
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_u32;
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = turns.tick() => false,
        };
        turn = turn.wrapping_add(1);
        // Where the output has no room, records wait in the ring, and the programs count what
        // finds no room there.
        let Ok(has_room) = output.has_room() else {
            return teller.count(&kernel);
        };
        if stopped {
            teller.finish(&mut ring, args.ring_bytes, output).await;
            if teller.left > 0 {
                eprintln!("{} events lost: they were not read in time", teller.left);
            }
        } else if has_room {
            let (now, boot) = (clock::monotonic(), clock::boot());
            let mut text = Vec::with_capacity(PIECE);
            let mut pieces = Vec::new();
            stream::drain(&mut ring, RECORDS, |record| {
                teller.tell(record, now, boot, &mut text);
                if text.len() >= PIECE - 1_024 {
                    pieces.push(std::mem::replace(&mut text, Vec::with_capacity(PIECE)));
                }
            });
            pieces.push(text);
            for piece in pieces {
                if !piece.is_empty() && output.write(piece).await.is_err() {
                    return teller.count(&kernel);
                }
            }
        }
        if stopped || turn.is_multiple_of(LOSSES_EVERY) {
            let before = teller.counted;
            let count = teller.count(&kernel)?;
            let lost = count.lost - before.lost - teller.left;
            if lost > 0 {
                eprintln!(
                    "{lost} events lost: the ring buffer was full; make it larger with \
                     --ring-bytes, or ask for less"
                );
            }
            if count.missed > before.missed {
                eprintln!(
                    "{} times the kernel skipped a program, and what happened then is not told",
                    count.missed - before.missed
                );
            }
        }
        if stopped {
            return Ok(teller.counted);
        }
    }
}

/// Makes lines of records.
struct Teller {
    wish: Wish,
    style: Style,
    names: ProcessNames,
    /// As of the last look at what the programs count.
    counted: Count,
    /// Records that could not be decoded.
    malformed: u64,
    /// Events that were in the ring at the end, and stayed there.
    left: u64,
}

impl Teller {
    fn tell(&mut self, record: &[u8], now: Duration, boot: Duration, into: &mut Vec<u8>) {
        let Some(event) = self.wanted(record, now) else {
            return;
        };
        let pid = event.socket().pid;
        let process = pid.and_then(|pid| self.names.of(pid, now));
        let line = EventLine::of(&Told { event, process }, boot);
        self.style.write(&line, into);
        self.counted.printed += 1;
    }

    /// The event of a record, if it is asked for.
    fn wanted(&mut self, record: &[u8], now: Duration) -> Option<Event> {
        let Ok(event) = decode(record, now) else {
            // The programs and this come from one source, so it is a bug; it is not hidden.
            self.malformed += 1;
            return None;
        };
        self.wish.wants(&event).then_some(event)
    }

    /// Prints what is in the ring, and counts what is not read in time.
    async fn finish(&mut self, ring: &mut RingBuf<MapData>, ring_bytes: u32, output: &Output) {
        let (now, boot) = (clock::monotonic(), clock::boot());
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until
            && let Ok(room) = timeout_at(until, output.room()).await
        {
            let Ok(room) = room else {
                // To a reader that has gone nothing is lost.
                return;
            };
            let mut text = Vec::with_capacity(PIECE);
            let tell = |record: &[u8]| self.tell(record, now, boot, &mut text);
            if stream::drain(ring, RECORDS_OF_PIECE, tell) == 0 {
                return;
            }
            room.send(text);
        }
        // All that the ring can hold, and not for ever what is added meanwhile: no record is a byte.
        stream::drain(ring, ring_bytes as usize, |record| {
            self.left += u64::from(self.wanted(record, now).is_some());
        });
    }

    /// Brings the count of what was not told up to date.
    fn count(&mut self, kernel: &Kernel) -> Result<Count> {
        self.counted.lost = kernel.counters()?.lost_ring_full + self.malformed + self.left;
        self.counted.missed = missed(&kernel.programs());
        Ok(self.counted)
    }
}

//! From programs of its own, where no agent runs.

use std::time::Duration;

use agent_ebpf::{record::StreamMode, stream::StreamSettings};
use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};

use super::{Count, line::Style, output::Output};
use crate::{
    api::{event::EventLine, events::EventsQuery},
    cli::EventsArgs,
    clock,
    decode::decode,
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
        if has_room {
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
            if count.lost > before.lost {
                eprintln!(
                    "{} events lost: the ring buffer was full; make it larger with --ring-bytes, \
                     or ask for less",
                    count.lost - before.lost
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
}

impl Teller {
    fn tell(&mut self, record: &[u8], now: Duration, boot: Duration, into: &mut Vec<u8>) {
        let Ok(event) = decode(record, now) else {
            // The programs and this come from one source, so it is a bug; it is not hidden.
            self.malformed += 1;
            return;
        };
        if !self.wish.wants(&event) {
            return;
        }
        let pid = event.socket().pid;
        let process = pid.and_then(|pid| self.names.of(pid, now));
        let line = EventLine::of(&Told { event, process }, boot);
        self.style.write(&line, into);
        self.counted.printed += 1;
    }

    /// Brings the count of what was not told up to date.
    fn count(&mut self, kernel: &Kernel) -> Result<Count> {
        self.counted.lost = kernel.counters()?.lost_ring_full + self.malformed;
        self.counted.missed = missed(&kernel.programs());
        Ok(self.counted)
    }
}

//! What was sent again from one namespace, by three accounts: the programs' counters, their
//! records, and the kernel's own `RetransSegs`.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use agent::{
    clock::monotonic,
    decode::{Event, Retransmit, decode},
    kernel::Options,
    stream,
};
use agent_ebpf::{
    retransmit::{Packet, Trigger},
    state::TcpState,
};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, RingBuf};

use crate::{link::netstat, netns::Netns, watch::Watch};

/// The longest wait is for the third SYN, two seconds after the first.
const DEADLINE: Duration = Duration::from_secs(10);

/// Runs that the kernel hid from its programs are repeated, so often at most.
const ATTEMPTS: usize = 10;

/// Segments that the kernel sent again, and ran no program for: see
/// [`Skipped::unseen`](crate::exact::Skipped::unseen).
#[derive(Debug)]
struct Unseen(String);

impl fmt::Display for Unseen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unseen {}

/// Repeats `run` where the kernel hid a segment from the programs.
///
/// # Errors
///
/// Any other of `run`, or that one every time.
pub fn seen(run: impl Fn() -> Result<()>) -> Result<()> {
    for attempt in 1..ATTEMPTS {
        match run() {
            Err(error) if error.is::<Unseen>() => {
                eprintln!("run {attempt} is repeated: {error}");
            }
            other => return other,
        }
    }
    run()
}

/// State, packet, trigger.
pub type Cell = (&'static str, &'static str, &'static str);

/// Segments sent again, by cell; none is zero.
pub type Cells = BTreeMap<Cell, u64>;

/// A sender's namespace, watched.
pub struct Sender<'a> {
    netns: &'a Netns,
    watch: Watch,
    ring: RingBuf<MapData>,
    records: Vec<Retransmit>,
}

impl<'a> Sender<'a> {
    /// Watches `netns`, in which nothing has been sent yet.
    ///
    /// # Errors
    ///
    /// Where a program does not run.
    pub fn watch(netns: &'a Netns) -> Result<Self> {
        let mut watch = Watch::with(&Options {
            only_netns: netns.inode(),
            ..Options::default()
        })?;
        let ring = watch.kernel().take_ring()?;
        Ok(Self {
            netns,
            watch,
            ring,
            records: Vec::new(),
        })
    }

    /// What the records told so far, in their order.
    #[must_use]
    pub fn records(&self) -> &[Retransmit] {
        &self.records
    }

    fn segments_sent_again(&self) -> Result<u64> {
        netstat(self.netns, "Tcp", "RetransSegs")
    }

    fn cells(&self) -> Result<Cells> {
        let mut cells = Cells::new();
        for (raw, by_packet) in (0..).zip(self.watch.counters()?.retransmits) {
            let counts = by_packet.as_flattened().iter().copied().zip(0_usize..);
            for (count, index) in counts.filter(|(count, _)| *count > 0) {
                let state = TcpState::from_raw(raw).context("segments counted for no state")?;
                let packet = Packet::ALL[index / Trigger::ALL.len()];
                let trigger = Trigger::ALL[index % Trigger::ALL.len()];
                *cells
                    .entry((state.name(), packet.name(), trigger.name()))
                    .or_default() += count;
            }
        }
        Ok(cells)
    }

    /// Waits until `enough`, and then until all three accounts agree: on a failing path the
    /// kernel repeats itself for minutes, so one of them may always be read a segment too early.
    ///
    /// # Errors
    ///
    /// Where they do not in time.
    pub fn settle(&mut self, enough: impl Fn(&Cells) -> bool) -> Result<Cells> {
        self.settle_beside(0, enough)
    }

    /// The same where the kernel's `RetransSegs` holds as many as `failed` that were never sent.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn settle_beside(&mut self, failed: u64, enough: impl Fn(&Cells) -> bool) -> Result<Cells> {
        let started = Instant::now();
        loop {
            let before = self.segments_sent_again()?;
            let cells = self.cells()?;
            self.drain()?;
            let told = self.told();
            let counted = cells.values().sum::<u64>();
            if enough(&cells) && told == cells && counted + failed == before {
                eprintln!("RetransSegs {before}: {cells:?}");
                return Ok(cells);
            }
            if started.elapsed() > DEADLINE {
                let message =
                    format!("RetransSegs is {before}, counted are {cells:?}, told are {told:?}");
                // What was counted agrees with what was told, and there was more.
                ensure!(told == cells && counted + failed < before, message);
                return Err(Unseen(message).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn drain(&mut self) -> Result<()> {
        let mut events = Vec::new();
        let now = monotonic();
        stream::drain(&mut self.ring, usize::MAX, |record| {
            events.push(decode(record, now));
        });
        for event in events {
            if let Event::Retransmit(retransmit) = event? {
                self.records.push(retransmit);
            }
        }
        Ok(())
    }

    /// What the records tell, in the counters' shape.
    fn told(&self) -> Cells {
        let mut cells = Cells::new();
        for record in &self.records {
            let cell = (
                record.state.name(),
                record.packet.name(),
                record.trigger.name(),
            );
            *cells.entry(cell).or_default() += u64::from(record.segments);
        }
        cells
    }

    /// Compares a counter of the kernel's own among `TcpExt` with what it should be.
    ///
    /// # Errors
    ///
    /// Where it is another.
    pub fn expect_netstat(&self, name: &str, expected: u64) -> Result<()> {
        let found = netstat(self.netns, "TcpExt", name)?;
        ensure!(
            found == expected,
            "the kernel counts {found} for {name}, not {expected}"
        );
        Ok(())
    }
}

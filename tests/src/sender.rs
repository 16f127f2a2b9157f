//! What was sent again from one namespace, by three accounts: the programs' counters, their
//! records, and the kernel's own `RetransSegs`.

use std::{
    collections::BTreeMap,
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

use crate::{disturbed::Disturbed, link::netstat, netns::Netns, watch::Watch};

/// The longest wait is for the third SYN, two seconds after the first.
const DEADLINE: Duration = Duration::from_secs(10);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

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
    /// Where they do not in time; [`Disturbed`] where the kernel sent segments again and ran no
    /// program for them: see [`Skipped::unseen`](crate::exact::Skipped::unseen).
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
                return Err(Disturbed(message).into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The same, and until they are as many as the kernel's own counter `name` among `TcpExt` says:
    /// of two that are read one after the other, the first may be a segment behind.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn settle_as(&mut self, name: &str, enough: impl Fn(&Cells) -> bool) -> Result<Cells> {
        let started = Instant::now();
        loop {
            let cells = self.settle(&enough)?;
            let found = netstat(self.netns, "TcpExt", name)?;
            if found == cells.values().sum::<u64>() {
                return Ok(cells);
            }
            ensure!(
                started.elapsed() < DEADLINE,
                "the kernel counts {found} for {name}, counted are {cells:?}"
            );
            std::thread::sleep(PAUSE);
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

    /// Compares a counter of the kernel's own among `TcpExt` with what a test meant to bring about.
    /// Where the machine is slow, a timer fires that should have been stopped.
    ///
    /// # Errors
    ///
    /// [`Disturbed`] where it is another.
    pub fn expect_netstat(&self, name: &str, expected: u64) -> Result<()> {
        let found = netstat(self.netns, "TcpExt", name)?;
        if found == expected {
            return Ok(());
        }
        Err(Disturbed(format!(
            "the kernel counts {found} for {name}, not {expected}"
        ))
        .into())
    }
}

//! The thread that takes a census again and again.
//!
//! It enters one network namespace after the other, which changes what the whole thread sees, so
//! it does nothing else.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use agent_ebpf::census::CensusCounts;
use rustix::{
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::{ClockId, clock_gettime},
};
use tracing::{debug, error, warn};

use super::{Census, Namespace, NamespaceCensus, find, sockstat};
use crate::{
    kernel::{CensusReadError, CensusReader},
    logging::chain,
};

/// All censuses together take at most this part of one core: the interval stretches instead.
const CPU_SHARE_DIVISOR: u32 = 100;

/// A running thread; dropping it stops it once the namespace it counts is done.
pub struct Taker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A namespace was not counted.
#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("it cannot be entered: that takes CAP_SYS_ADMIN and CAP_SYS_PTRACE")]
    Enter(#[source] io::Error),
    #[error(transparent)]
    Read(#[from] CensusReadError),
}

/// What is counted how often.
struct Rounds {
    reader: CensusReader,
    /// The only namespace to count, if any.
    only: Option<u64>,
    interval: Duration,
    /// CPU time of a census, the last ones above all.
    mean_cost: Option<Duration>,
    /// Namespaces that were not reached last time, so as to warn of each once.
    unreached: BTreeSet<u64>,
}

impl Taker {
    /// Starts the thread: a census at once, then one each `interval`, or less often where they
    /// would take more than 1 % of one core. `only_netns` is the inode number of the only
    /// namespace to count, 0 for all. Waits where `censuses` is full.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left.
    pub fn start(
        reader: CensusReader,
        only_netns: u32,
        interval: Duration,
        censuses: SyncSender<Census>,
    ) -> io::Result<Self> {
        let mut rounds = Rounds {
            reader,
            only: (only_netns != 0).then_some(only_netns.into()),
            interval,
            mean_cost: None,
            unreached: BTreeSet::new(),
        };
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("census".to_owned())
            .spawn(move || rounds.run(&censuses, &stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the census's thread ended in a panic");
        }
    }
}

impl Rounds {
    fn run(&mut self, censuses: &SyncSender<Census>, stopped: &Receiver<()>) {
        loop {
            let (started, worked) = (clock(ClockId::Monotonic), clock(ClockId::ThreadCPUTime));
            match self.census(started, stopped) {
                Ok(None) => return,
                Ok(Some(census)) => {
                    if censuses.send(census).is_err() {
                        // The engine has gone.
                        return;
                    }
                }
                Err(error) => error!(%error, "no census: /proc cannot be read"),
            }
            let cost = clock(ClockId::ThreadCPUTime).saturating_sub(worked);
            let mean = *self
                .mean_cost
                .insert(self.mean_cost.map_or(cost, |mean| (mean * 3 + cost) / 4));
            let next = started + self.interval.max(mean * CPU_SHARE_DIVISOR);
            let pause = next.saturating_sub(clock(ClockId::Monotonic));
            debug!(?cost, ?pause, "a census is over");
            if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// One pass over all namespaces; nothing where it was told to stop.
    fn census(&mut self, started: Duration, stopped: &Receiver<()>) -> io::Result<Option<Census>> {
        let mut namespaces = find()?;
        namespaces.retain(|namespace| self.only.is_none_or(|only| only == namespace.inode));
        let mut counted = Vec::with_capacity(namespaces.len());
        let mut unreached = BTreeSet::new();
        for namespace in namespaces {
            if stopped.try_recv() != Err(TryRecvError::Empty) {
                return Ok(None);
            }
            let inode = namespace.inode;
            match self.count(&namespace) {
                Ok(Some(counts)) => counted.push(NamespaceCensus { inode, counts }),
                Ok(None) => debug!(inode, "a network namespace went before it was counted"),
                Err(error) => {
                    if !self.unreached.contains(&inode) {
                        let (path, error) = (namespace.path.display(), chain(&error));
                        warn!(inode, %path, error, "a network namespace is not counted");
                    }
                    unreached.insert(inode);
                }
            }
        }
        self.unreached = unreached;
        Ok(Some(Census {
            completed: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            took: clock(ClockId::Monotonic).saturating_sub(started),
            namespaces: counted,
            unreached: self.unreached.len(),
        }))
    }

    /// Counts one namespace's sockets; nothing where it is gone.
    fn count(&mut self, namespace: &Namespace) -> Result<Option<CensusCounts>, CountError> {
        match enter(namespace) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CountError::Enter(error)),
        }
        // What cannot be read is as good as not understood.
        let file =
            |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        if !sockstat::has_tcp(&file("sockstat"), &file("sockstat6")) {
            return Ok(Some(CensusCounts::ZERO));
        }
        Ok(Some(self.reader.read()?))
    }
}

/// Moves the calling thread into a network namespace. Staying where it is takes no rights.
fn enter(namespace: &Namespace) -> io::Result<()> {
    if fs::metadata("/proc/thread-self/ns/net")?.st_ino() == namespace.inode {
        return Ok(());
    }
    let file = namespace.open()?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}

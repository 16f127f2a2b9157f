//! The thread that takes a census again and again.
//!
//! It enters one network namespace after the other, which changes what the whole thread sees, so
//! it does nothing else.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, Ipv6Addr},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use agent_ebpf::census::{PORT_WORDS, PortKey, PortSet};
use rustix::{
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::{ClockId, clock_gettime},
};
use tracing::{debug, error, warn};

use super::{
    Census, Connects, Lingering, Listener, Namespace, NamespaceCensus, PortUse,
    connects::ConnectAges, find, host, memory::Memory, owners::Owners, socket::jiffy,
};
use crate::{
    detectors::Thresholds,
    kernel::{CensusReadError, CensusReader, Pass},
    limits::{Limits, Sysctls},
    logging::chain,
};

/// All censuses together take at most this part of one core: the interval stretches instead.
const CPU_SHARE_DIVISOR: u32 = 100;

/// Which censuses are taken.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often, or less often where they would take more than 1 % of one core.
    pub interval: Duration,
    /// The inode number of the only network namespace to count; 0 for all.
    pub only_netns: u32,
    /// From when on a socket stalls, and its owner is asked for.
    pub thresholds: Thresholds,
}

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

/// What is counted how often, and what is known from the last time.
struct Rounds {
    reader: CensusReader,
    options: Options,
    memory: Memory,
    owners: Owners,
    connects: ConnectAges,
    /// How long a jiffy is, once that is known.
    jiffy: Option<Duration>,
    /// CPU time of a census, the last ones above all.
    mean_cost: Option<Duration>,
    /// Namespaces that were not reached last time, so as to warn of each once.
    unreached: BTreeSet<u64>,
}

impl Taker {
    /// Takes one census, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left, or no /proc.
    pub fn once(reader: CensusReader, options: Options) -> io::Result<Census> {
        let mut rounds = Rounds::new(reader, options);
        let thread = std::thread::Builder::new()
            .name("census".to_owned())
            .spawn(move || {
                let (_never, stopped) = channel();
                rounds.census(clock(ClockId::Monotonic), &stopped)
            })?;
        let census = thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the census's thread ended in a panic")))?;
        Ok(census.unwrap_or_default())
    }

    /// Starts the thread: a census at once, then one each interval. Waits where `censuses` is
    /// full.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left.
    pub fn start(
        reader: CensusReader,
        options: Options,
        censuses: SyncSender<Census>,
    ) -> io::Result<Self> {
        let mut rounds = Rounds::new(reader, options);
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
    fn new(reader: CensusReader, options: Options) -> Self {
        Self {
            reader,
            options,
            memory: Memory::default(),
            owners: Owners::new(),
            connects: ConnectAges::default(),
            jiffy: None,
            mean_cost: None,
            unreached: BTreeSet::new(),
        }
    }

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
            let next = started + self.options.interval.max(mean * CPU_SHARE_DIVISOR);
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
        let only = u64::from(self.options.only_netns);
        namespaces.retain(|namespace| only == 0 || only == namespace.inode);
        let host = host();
        let mut census = Census {
            present: namespaces.iter().map(|namespace| namespace.inode).collect(),
            ..Census::default()
        };
        let mut unreached = BTreeSet::new();
        for namespace in namespaces {
            if stopped.try_recv() != Err(TryRecvError::Empty) {
                return Ok(None);
            }
            let inode = namespace.inode;
            match self.count(&namespace) {
                Ok(Some(mut counted)) => {
                    counted.is_host = host.map_or(is_first(&counted), |host| host == inode);
                    census.namespaces.push(counted);
                }
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
        census.unreached = self.unreached.len();
        self.name(&mut census);
        census.completed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        census.at = clock(ClockId::Monotonic);
        census.took = census.at.saturating_sub(started);
        Ok(Some(census))
    }

    /// Counts one namespace's sockets; nothing where it is gone.
    fn count(&mut self, namespace: &Namespace) -> Result<Option<NamespaceCensus>, CountError> {
        match enter(namespace) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CountError::Enter(error)),
        }
        let mut counted = NamespaceCensus {
            inode: namespace.inode,
            workload: namespace.pid.map(|pid| self.owners.of_process(pid)),
            limits: Limits::read(),
            ..NamespaceCensus::default()
        };
        // An iterator walks the whole host's hash table, if only to find that there is none.
        if counted.limits.sockstat.has_tcp() {
            let pass = self.reader.read(&taken_ports(&counted.limits.sysctls))?;
            self.decode(&mut counted, &pass);
        }
        Ok(Some(counted))
    }

    /// Takes in what a pass found.
    fn decode(&mut self, into: &mut NamespaceCensus, pass: &Pass) {
        let now = Duration::from_nanos(pass.counts.clock_ns);
        if self.jiffy.is_none() {
            self.jiffy = jiffy(pass.counts.jiffies, now);
        }
        into.counts = pass.counts;
        into.untold = pass.untold;
        // A socket visited twice, as kernels before 6.17 may after a read, is one.
        let mut cookies = BTreeSet::new();
        for record in &pass.sockets {
            if !cookies.insert(record.socket.cookie) {
                continue;
            }
            if let Some(mut socket) = Lingering::decode(record, self.jiffy) {
                self.memory.complete(now, &mut socket);
                into.lingering.push(socket);
            } else if let Some(listener) = Listener::decode(record) {
                into.listeners.push(listener);
            }
        }
        into.ports = pass.ports.iter().map(port_use).collect();
    }

    /// Names the owners of what was counted. What cannot be named is counted all the same.
    fn name(&mut self, census: &mut Census) {
        let now = clock(ClockId::Monotonic);
        let thresholds = self.options.thresholds;
        let stalls = |socket: &Lingering| thresholds.stalls(socket);
        let namespaces = &mut census.namespaces;
        self.owners
            .assign(&mut self.reader, now, namespaces, stalls);
        let sockets = namespaces.iter().flat_map(|namespace| &namespace.lingering);
        self.memory.keep(now, sockets);
        match self.reader.take_cgroups() {
            Ok(cgroups) => census.workloads = self.owners.by_workload(&cgroups, now),
            Err(error) => debug!(error = chain(&error), "workloads are not known"),
        }
        match self.connects(now) {
            Ok(connects) => census.connects = connects,
            Err(error) => debug!(error = chain(&error), "connects are not known"),
        }
    }

    fn connects(&mut self, now: Duration) -> Result<Vec<Connects>, CensusReadError> {
        let counts = self.reader.connects()?;
        let idle = self.connects.update(now, &counts);
        self.reader.forget_connects(&idle);
        let ids = counts.iter().map(|(key, _)| key.cgroup).collect();
        let workloads = self.owners.workloads(&ids, now);
        let connects = counts.iter().filter_map(|(key, count)| {
            Some(Connects {
                workload: workloads.get(&key.cgroup)?.clone(),
                netns: key.netns.into(),
                destination: address(key.destination),
                port: key.port,
                count: *count,
            })
        });
        Ok(connects.collect())
    }
}

/// Whether this is the namespace the kernel started with, the only one to show limits of the whole
/// host. Where process 1 may not be looked at, it passes for that process's.
fn is_first(namespace: &NamespaceCensus) -> bool {
    namespace.limits.sysctls.get("tcp_max_orphans").is_some()
}

/// The ports that `connect()` does not choose: reserved, or outside of the range.
fn taken_ports(sysctls: &Sysctls) -> PortSet {
    let mut taken = [u64::MAX; PORT_WORDS];
    for port in (0..=u16::MAX).filter(|port| sysctls.is_ephemeral(*port)) {
        taken[usize::from(port / 64)] &= !(1 << (port % 64));
    }
    taken
}

fn port_use((key, used): &(PortKey, u64)) -> PortUse {
    PortUse {
        source: address(key.source),
        destination: address(key.destination),
        port: key.port,
        used: *used,
    }
}

/// IPv4 addresses come as v4-mapped ones.
fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_outside_of_the_range_and_reserved_ones_are_taken() {
        let range = [
            ("ip_local_port_range_low", 40_000),
            ("ip_local_port_range_high", 40_099),
        ];
        let taken = taken_ports(&Sysctls::of(&range).reserving("40010-40019,50000"));
        let free = |port: u16| taken[usize::from(port / 64)] >> (port % 64) & 1 == 0;
        let free: Vec<u16> = (0..=u16::MAX).filter(|port| free(*port)).collect();
        let expected: Vec<u16> = (40_000..=40_009).chain(40_020..=40_099).collect();
        assert_eq!(free, expected);
    }

    #[test]
    fn without_a_range_every_port_is_taken() {
        assert_eq!(taken_ports(&Sysctls::default()), [u64::MAX; PORT_WORDS]);
    }

    #[test]
    fn mapped_addresses_are_told_as_what_they_stand_for() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(address(bytes), IpAddr::from([192, 0, 2, 1]));
        bytes[0] = 0x20;
        assert!(address(bytes).is_ipv6());
    }
}

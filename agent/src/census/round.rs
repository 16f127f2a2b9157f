//! One census after the other: which namespaces there are, what is in them, and whose.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io, mem,
    net::{IpAddr, Ipv6Addr},
    os::{fd::AsFd as _, linux::fs::MetadataExt as _},
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, SystemTime},
};

use agent_ebpf::census::{CensusCounts, PORT_WORDS, PortKey, PortSet, SocketRecord};
use rustix::{
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::ClockId,
};
use tracing::{debug, warn};

use super::{
    Census, Connects, Found, Lingering, Listener, Namespace, NamespaceCensus, Options, PortUse,
    connects::ConnectAges,
    find, host,
    memory::Memory,
    owners::Owners,
    plan::{Budget, LastFull, Plan},
    quick::{Sight, refresh},
    socket::jiffy,
};
use crate::{
    clock,
    kernel::{CensusReadError, CensusReader, KnownPass, Pass},
    limits::{Limits, Sockstat, Sysctls},
    logging::chain,
    workload::plain,
};

/// For how long the limits of a namespace are taken to be what they were, where reading them each
/// time costs too much.
const LIMITS_LAST: Duration = Duration::from_secs(20);

/// Characters of a mount's path in the log.
const PATH: usize = 200;

/// Quick passes that break off in a row before no more are made.
const QUICK_FAILURES: u32 = 3;

/// A namespace was not counted.
#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("it cannot be entered: that takes CAP_SYS_ADMIN and CAP_SYS_PTRACE")]
    Enter(#[source] io::Error),
    #[error(transparent)]
    Read(#[from] CensusReadError),
}

/// What is counted, and what is known from the last time.
pub(super) struct Rounds {
    reader: CensusReader,
    options: Options,
    memory: Memory,
    owners: Owners,
    connects: ConnectAges,
    /// How long a jiffy is, once that is known.
    jiffy: Option<Duration>,
    /// The last full pass over each namespace.
    fulls: BTreeMap<u64, Full>,
    budget: Budget,
    /// What the last census did, and the CPU time that its full passes took.
    done: (Plan, Duration),
    /// Whether quick passes may take the place of full ones.
    has_quick: bool,
    /// How many of them broke off in a row.
    quick_failures: u32,
    /// Namespaces that were not reached last time, so as to warn of each once.
    unreached: BTreeSet<u64>,
}

/// A full pass over a namespace.
struct Full {
    /// What it found, but for the sockets one by one: those a quick pass finds anew.
    counted: NamespaceCensus,
    last: LastFull,
    /// What the quick passes since have seen.
    sight: Sight,
    /// When it ended: time since 1970.
    completed: Duration,
    /// When its limits were read last: CLOCK_MONOTONIC.
    limits_at: Duration,
}

impl Rounds {
    /// Nothing counted yet.
    pub(super) fn new(reader: CensusReader, options: Options) -> Self {
        // Else they would miss the sockets older than the agent.
        let has_quick = reader.remembers() && !options.at_any_cost;
        Self {
            reader,
            options,
            memory: Memory::default(),
            owners: Owners::new(),
            connects: ConnectAges::default(),
            jiffy: None,
            fulls: BTreeMap::new(),
            budget: Budget::default(),
            done: (Plan::Full, Duration::ZERO),
            has_quick,
            quick_failures: 0,
            unreached: BTreeSet::new(),
        }
    }

    /// A census of all namespaces; nothing where it was told to stop.
    pub(super) fn census(&mut self, stopped: &Receiver<()>) -> io::Result<Option<Census>> {
        let started = clock::monotonic();
        let Found {
            mut namespaces,
            mut beyond,
        } = find()?;
        let only = u64::from(self.options.only_netns);
        if only != 0 {
            namespaces.retain(|namespace| only == namespace.inode);
            beyond = 0;
        }
        let present: Vec<u64> = namespaces.iter().map(|namespace| namespace.inode).collect();
        self.fulls.retain(|inode, _| present.contains(inode));
        let mut plan = self.plan(started, &present);
        let (mut census, full_cost) = loop {
            self.reader.begin().map_err(io::Error::other)?;
            let mut census = Census {
                present: present.clone(),
                ..Census::default()
            };
            let Some(full_cost) = self.count_all(&mut census, &namespaces, &plan, stopped) else {
                return Ok(None);
            };
            let Plan::Quick(chosen) = &plan else {
                break (census, full_cost);
            };
            match self.refresh(&mut census, chosen) {
                Ok(()) => {
                    self.quick_failures = 0;
                    break (census, full_cost);
                }
                Err(error) => self.quick_pass_failed(&error),
            }
            plan = Plan::Full;
        };
        census.unreached += beyond;
        self.name(&mut census);
        census.completed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let fulls = self.fulls.values().map(|full| full.completed);
        census.full_completed = fulls.min().unwrap_or(census.completed);
        census.at = clock::monotonic();
        census.took = census.at.saturating_sub(started);
        self.done = (plan, full_cost);
        Ok(Some(census))
    }

    /// Counts every namespace in full, or looks at it where a quick pass will tell the rest. Returns
    /// the CPU time of the full passes, or nothing where it was told to stop.
    fn count_all(
        &mut self,
        census: &mut Census,
        namespaces: &[Namespace],
        plan: &Plan,
        stopped: &Receiver<()>,
    ) -> Option<Duration> {
        let host = host();
        let mut unreached = BTreeSet::new();
        let mut full_cost = Duration::ZERO;
        for namespace in namespaces {
            if stopped.try_recv() != Err(TryRecvError::Empty) {
                return None;
            }
            let inode = namespace.inode;
            let in_full = match plan {
                Plan::Full => true,
                Plan::Quick(chosen) => chosen.contains(&inode),
            };
            let counted = if in_full {
                let began = clock::monotonic();
                let worked = clock::read(ClockId::ThreadCPUTime);
                // Whether quick passes will follow shows once the first full one is over.
                let remember =
                    self.has_quick && (*plan != Plan::Full || !self.fulls.contains_key(&inode));
                let counted = self.count_in_full(namespace, host, remember);
                census.full_took += clock::monotonic().saturating_sub(began);
                full_cost += clock::read(ClockId::ThreadCPUTime).saturating_sub(worked);
                counted
            } else {
                self.look_at(namespace)
            };
            match counted {
                Ok(Some(counted)) => census.namespaces.push(counted),
                Ok(None) => debug!(inode, "a network namespace went before it was counted"),
                Err(error) => {
                    if !self.unreached.contains(&inode) {
                        // Of a mount its path is what somebody called it.
                        let path = plain(&namespace.path.to_string_lossy(), PATH);
                        let error = chain(&error);
                        warn!(inode, path, error, "a network namespace is not counted");
                    }
                    unreached.insert(inode);
                }
            }
        }
        self.unreached = unreached;
        census.unreached = self.unreached.len();
        Some(full_cost)
    }

    /// A full census takes the place of a quick pass that broke off; after some in a row, always.
    fn quick_pass_failed(&mut self, error: &CensusReadError) {
        self.quick_failures += 1;
        self.has_quick = self.quick_failures < QUICK_FAILURES;
        let error = chain(error);
        if self.has_quick {
            warn!(error, "no quick pass: this census is a full one");
        } else {
            warn!(error, "no quick pass again: every census is a full one");
        }
    }

    /// How long after the beginning of the last census, which took so much CPU time, the next may
    /// begin.
    pub(super) fn space(&mut self, cost: Duration) -> Duration {
        let (plan, of_full) = &self.done;
        let interval = self.options.interval;
        if self.options.at_any_cost {
            return interval;
        }
        self.budget.space(plan, cost, *of_full, interval)
    }

    fn plan(&mut self, now: Duration, present: &[u64]) -> Plan {
        if !self.has_quick {
            return Plan::Full;
        }
        let last = self.fulls.iter().map(|(inode, full)| (*inode, full.last));
        let interval = self.options.interval;
        self.budget.plan(now, present, &last.collect(), interval)
    }

    /// Counts all of one namespace's sockets; nothing where it is gone. Where quick passes follow,
    /// they shall find these sockets.
    fn count_in_full(
        &mut self,
        namespace: &Namespace,
        host: Option<u64>,
        remember: bool,
    ) -> Result<Option<NamespaceCensus>, CountError> {
        let worked = clock::read(ClockId::ThreadCPUTime);
        if !enter(namespace)? {
            return Ok(None);
        }
        let mut counted = NamespaceCensus {
            inode: namespace.inode,
            workload: namespace.pid.map(|pid| self.owners.of_process(pid)),
            limits: Limits::read(),
            ..NamespaceCensus::default()
        };
        counted.is_host = host.map_or(is_first(&counted), |host| host == namespace.inode);
        // An iterator walks the whole host's hash table, if only to find that there is none.
        if counted.limits.sockstat.has_tcp() {
            let taken = taken_ports(&counted.limits.sysctls);
            let pass = self.reader.read(&taken, remember)?;
            self.decode_full(&mut counted, &pass);
        }
        // What was made known once stays so: the programs see what comes after.
        let before = self.fulls.get(&namespace.inode);
        let remembered = remember || before.is_some_and(|full| full.last.remembered);
        let now = clock::monotonic();
        let (lingering, listeners) = (
            mem::take(&mut counted.lingering),
            mem::take(&mut counted.listeners),
        );
        let full = Full {
            counted: counted.clone(),
            last: LastFull {
                at: now,
                remembered,
                cost: clock::read(ClockId::ThreadCPUTime).saturating_sub(worked),
                lost_sight: false,
            },
            sight: Sight::default(),
            completed: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default(),
            limits_at: now,
        };
        self.fulls.insert(namespace.inode, full);
        (counted.lingering, counted.listeners) = (lingering, listeners);
        Ok(Some(counted))
    }

    /// What the last full pass over a namespace found, with what it uses now; nothing where it is
    /// gone. A quick pass tells the rest.
    fn look_at(&mut self, namespace: &Namespace) -> Result<Option<NamespaceCensus>, CountError> {
        if !enter(namespace)? {
            return Ok(None);
        }
        let now = clock::monotonic();
        let Some(full) = self.fulls.get_mut(&namespace.inode) else {
            return Ok(None);
        };
        let limits = &mut full.counted.limits;
        if now.saturating_sub(full.limits_at) < LIMITS_LAST {
            limits.sockstat = Sockstat::read();
        } else {
            *limits = Limits::read();
            full.limits_at = now;
        }
        Ok(Some(full.counted.clone()))
    }

    /// Makes a quick pass, and brings those up to date that had no full one.
    fn refresh(
        &mut self,
        census: &mut Census,
        chosen: &BTreeSet<u64>,
    ) -> Result<(), CensusReadError> {
        let began = clock::monotonic();
        // The full passes have counted some of the same sockets.
        self.reader.take_cgroups()?;
        let KnownPass {
            namespaces,
            elsewhere,
            sockets,
            untold,
        } = self.reader.read_known()?;
        self.learn_jiffy(&elsewhere);
        let counts: HashMap<u32, CensusCounts> = namespaces.into_iter().collect();
        let mut records: HashMap<u64, Vec<SocketRecord>> = HashMap::new();
        for record in sockets {
            records
                .entry(record.socket.netns.into())
                .or_default()
                .push(record);
        }
        for namespace in &mut census.namespaces {
            if chosen.contains(&namespace.inode) {
                continue;
            }
            let known = u32::try_from(namespace.inode)
                .ok()
                .and_then(|inode| counts.get(&inode).copied())
                .unwrap_or_default();
            if let Some(counted) = namespace.limits.sockstat.full_sockets()
                && let Some(full) = self.fulls.get_mut(&namespace.inode)
            {
                let found = known.states.iter().sum();
                full.last.lost_sight |= full.sight.is_lost(counted, found);
            }
            let minisockets = namespace.limits.sockstat.tw;
            let minisockets = minisockets.unwrap_or(namespace.counts.minisockets);
            namespace.counts = refresh(&namespace.counts, &known, minisockets);
            namespace.untold = known.cgroups_untold + namespace.ports_untold;
            let records = records.remove(&namespace.inode).unwrap_or_default();
            self.decode(namespace, &records);
        }
        // Nobody knows of which namespaces these are; what is shown is their sum.
        if let Some(first) = census.namespaces.first_mut() {
            first.untold +=
                untold + elsewhere.cgroups_untold + elsewhere.states.iter().sum::<u64>();
        }
        census.known_took = Some(clock::monotonic().saturating_sub(began));
        Ok(())
    }

    /// Takes in what a full pass found.
    fn decode_full(&mut self, into: &mut NamespaceCensus, pass: &Pass) {
        self.learn_jiffy(&pass.counts);
        into.counts = pass.counts;
        into.ports_untold = pass.counts.ports_untold;
        into.untold = pass.untold + pass.counts.cgroups_untold + into.ports_untold;
        self.decode(into, &pass.sockets);
        into.ports = pass.ports.iter().map(port_use).collect();
    }

    fn learn_jiffy(&mut self, counts: &CensusCounts) {
        if self.jiffy.is_none() {
            self.jiffy = jiffy(counts.jiffies, Duration::from_nanos(counts.clock_ns));
        }
    }

    fn decode(&self, into: &mut NamespaceCensus, records: &[SocketRecord]) {
        let now = clock::monotonic();
        // A socket visited twice, as kernels before 6.17 may after a read, is one.
        let mut cookies = BTreeSet::new();
        for record in records {
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
    }

    /// Names the owners of what was counted. What cannot be named is counted all the same.
    fn name(&mut self, census: &mut Census) {
        let now = clock::monotonic();
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

/// Moves the calling thread into a network namespace; false where that is gone. Staying where it
/// is takes no rights.
fn enter(namespace: &Namespace) -> Result<bool, CountError> {
    let go = || -> io::Result<()> {
        if fs::metadata("/proc/thread-self/ns/net")?.st_ino() == namespace.inode {
            return Ok(());
        }
        let file = namespace.open()?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    };
    match go() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CountError::Enter(error)),
    }
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

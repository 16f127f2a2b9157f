//! Whose the stalled sockets are.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::Arc,
    time::Duration,
};

use agent_ebpf::{
    census::{CgroupCounts, OwnerSlot, WORKLOAD_STATES},
    maps::WANTED_CAPACITY,
};
use tracing::debug;

use super::{Lingering, NamespaceCensus, cgroups::Cgroups};
use crate::{
    kernel::CensusReader,
    logging::chain,
    workload::{Workload, comm, telling_path},
};

/// How often the owners of all stalled sockets are asked for again: sockets can be handed on, and
/// of several processes that hold one the first may end.
const REFRESH: Duration = Duration::from_secs(30);

/// Processes of a socket that are told: those with the lowest ids.
const PIDS_TOLD: usize = 16;

/// Who holds a socket, or held it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The name of the process: its thread-group leader's, and of several processes that of the
    /// one with the lowest id. Empty where no process is known.
    pub process: String,
    /// The processes that hold it, the lowest ids first, at most 16; for an orphan the one that
    /// closed it.
    pub pids: Vec<u32>,
    /// What they are part of.
    pub workload: Arc<Workload>,
}

/// Finds owners, and names what cgroups they are in.
#[derive(Debug)]
pub(super) struct Owners {
    cgroups: Cgroups,
    workloads: HashMap<String, Arc<Workload>>,
    refreshed: Option<Duration>,
}

/// A stalled socket, and the cookie by which its owner is asked for: its own, its listener's
/// where nobody has accepted it, or none where no process holds it.
struct Asked {
    namespace: usize,
    socket: usize,
    cookie: Option<u64>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Self {
            cgroups: Cgroups::new(),
            workloads: HashMap::new(),
            refreshed: None,
        }
    }

    /// Gives every socket that `stalls` its owner.
    pub(super) fn assign(
        &mut self,
        reader: &mut CensusReader,
        now: Duration,
        namespaces: &mut [NamespaceCensus],
        stalls: impl Fn(&Lingering) -> bool,
    ) {
        let due = self
            .refreshed
            .is_none_or(|at| now.saturating_sub(at) >= REFRESH);
        if due {
            self.refreshed = Some(now);
        }
        let stalled = stalled(namespaces, due, stalls);
        let cookies: BTreeSet<u64> = stalled.iter().filter_map(|asked| asked.cookie).collect();
        // More than can be asked for at once go by what is remembered of them.
        let cookies: Vec<u64> = cookies.into_iter().take(WANTED_CAPACITY).collect();
        let holders = holders(reader, &cookies);

        // What each is named by: its holders, else who closed or opened it, else its cgroup alone.
        let mut named = Vec::with_capacity(stalled.len());
        for asked in &stalled {
            let socket = &namespaces[asked.namespace].lingering[asked.socket];
            let slots = match asked.cookie.and_then(|cookie| holders.get(&cookie)) {
                Some(slots) => slots.clone(),
                // It has kept its name.
                None if socket.owner.is_some() => continue,
                None => {
                    let last = socket.pid.and_then(|pid| reader.remembered(pid));
                    last.into_iter().collect()
                }
            };
            named.push((asked, slots, socket.cgroup));
        }
        let ids = named.iter().map(|(_, slots, cgroup)| id(slots, *cgroup));
        let paths = self.cgroups.paths(&ids.collect(), now);
        let mut owners: HashMap<(Vec<u32>, u64), Arc<Owner>> = HashMap::new();
        for (asked, slots, cgroup) in named {
            let pids: Vec<u32> = slots.iter().map(|slot| slot.pid).collect();
            let id = id(&slots, cgroup);
            let owner = owners.entry((pids, id)).or_insert_with_key(|(pids, id)| {
                let path = paths.get(id).map_or("", String::as_str);
                let process = slots.first();
                Arc::new(Owner {
                    process: process.map_or_else(String::new, |slot| comm(&slot.comm)),
                    pids: pids.iter().copied().take(PIDS_TOLD).collect(),
                    workload: self.workload(path, pids.first().copied()),
                })
            });
            namespaces[asked.namespace].lingering[asked.socket].owner = Some(Arc::clone(owner));
        }
    }

    /// The sockets of each workload, given those of each cgroup.
    pub(super) fn by_workload(
        &mut self,
        cgroups: &[(u64, CgroupCounts)],
        now: Duration,
    ) -> Vec<(Arc<Workload>, CgroupCounts)> {
        let ids = cgroups.iter().map(|(id, _)| *id).collect();
        let workloads = self.workloads(&ids, now);
        let mut sums: BTreeMap<Arc<Workload>, CgroupCounts> = BTreeMap::new();
        for (id, counts) in cgroups {
            let sum = sums.entry(Arc::clone(&workloads[id])).or_default();
            for place in 0..WORKLOAD_STATES.len() {
                sum[place] += counts[place];
            }
        }
        sums.into_iter().collect()
    }

    /// The workload of a process.
    pub(super) fn of_process(&mut self, pid: u32) -> Arc<Workload> {
        self.workload("", Some(pid))
    }

    /// The workload of each of these cgroups.
    pub(super) fn workloads(
        &mut self,
        ids: &BTreeSet<u64>,
        now: Duration,
    ) -> BTreeMap<u64, Arc<Workload>> {
        let paths = self.cgroups.paths(ids, now);
        let path = |id| paths.get(&id).map_or("", String::as_str);
        ids.iter()
            .map(|id| (*id, self.workload(path(*id), None)))
            .collect()
    }

    /// The workload of a cgroup with this path, empty where that is not known. Where the second
    /// version's hierarchy does not tell, as beside the first version's, the process may.
    fn workload(&mut self, path: &str, pid: Option<u32>) -> Arc<Workload> {
        /// Names remembered; many more than there are cgroups that matter.
        const NAMES: usize = 16_384;
        let untold = path.is_empty() || path == "/";
        let own = pid
            .filter(|_| untold)
            .and_then(|pid| fs::read(format!("/proc/{pid}/cgroup")).ok());
        // Of its hierarchies, one may have a path that is no text.
        let own = own.as_deref().map(String::from_utf8_lossy);
        let path = own.as_deref().and_then(telling_path).unwrap_or(path);
        if let Some(workload) = self.workloads.get(path) {
            return Arc::clone(workload);
        }
        if self.workloads.len() >= NAMES {
            self.workloads.clear();
        }
        let workload = Arc::new(if path.is_empty() {
            Workload::unknown()
        } else {
            Workload::of_cgroup(path)
        });
        self.workloads
            .insert(path.to_owned(), Arc::clone(&workload));
        workload
    }
}

/// The processes that hold each of these sockets, the lowest id first; none where the kernel
/// cannot tell, as before 5.11.
fn holders(reader: &mut CensusReader, cookies: &[u64]) -> HashMap<u64, Vec<OwnerSlot>> {
    let mut holders: HashMap<u64, Vec<OwnerSlot>> = HashMap::new();
    if cookies.is_empty() {
        return holders;
    }
    match reader.owners(cookies) {
        Ok(records) => {
            for record in records {
                holders.entry(record.cookie).or_default().push(record.owner);
            }
        }
        Err(error) => debug!(error = chain(&error), "nobody tells who holds the sockets"),
    }
    for slots in holders.values_mut() {
        slots.sort_by_key(|slot| slot.pid);
        slots.dedup_by_key(|slot| slot.pid);
    }
    holders
}

/// The cgroup that names a socket: its owner's before its own.
fn id(slots: &[OwnerSlot], cgroup: u64) -> u64 {
    match slots.first() {
        Some(slot) if slot.cgroup != 0 => slot.cgroup,
        _ => cgroup,
    }
}

/// The stalled sockets whose owners are to be asked for: those without one, or all where that is
/// due.
fn stalled(
    namespaces: &[NamespaceCensus],
    due: bool,
    stalls: impl Fn(&Lingering) -> bool,
) -> Vec<Asked> {
    let mut stalled = Vec::new();
    for (namespace, census) in namespaces.iter().enumerate() {
        for (socket, lingering) in census.lingering.iter().enumerate() {
            if !stalls(lingering) || (lingering.owner.is_some() && !due) {
                continue;
            }
            let cookie = if lingering.orphan {
                None
            } else if lingering.unaccepted {
                let mut listeners = census.listeners.iter();
                listeners
                    .find(|listener| listener.accepts(lingering.local))
                    .map(|listener| listener.cookie)
            } else {
                Some(lingering.cookie)
            };
            stalled.push(Asked {
                namespace,
                socket,
                cookie,
            });
        }
    }
    stalled
}
